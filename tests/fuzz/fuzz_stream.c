/* A layer's blob through hashing and decompression, from its first byte to its last; and in one go, where that goes. */
#include "base/fd.h"
#include "imagejob/stream.h"
#include "imagejob/whole.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_err err = { 0 };
    char blob[ZL_DIGEST_SIZE], diff_id[ZL_DIGEST_SIZE], wanted[ZL_DIGEST_SIZE];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || zl_write_full(fd, data, size) < 0 || lseek(fd, 0, SEEK_SET) < 0)
        abort();
    struct zl_stream *s = zl_stream_new(fd, NULL, NULL);
    static char block[65536];
    ssize_t n;
    while ((n = zl_stream_read(s, block, sizeof block, &err)) > 0)
        ;
    bool read = n == 0 && zl_stream_finish(s, blob, diff_id, &err) == 0;
    if (read && !zl_streq(blob, zl_digest_of(data, size, wanted)))
        abort();
    zl_stream_free(s);
    static unsigned char room[ZL_DECODER_ROOM];
    size_t whole;
    if (zl_whole_unpack(data, size, NULL, room, &whole) && read &&
        !zl_streq(diff_id, zl_digest_of(room, whole, wanted)))
        abort();
    zl_close(fd);
    return 0;
}
