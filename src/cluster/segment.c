#include "cluster/segment.h"

#include "base/fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { WORD = 8, ENTRY = 16, FORMAT = 1, SEGMENT_MAX = 64 << 20, ROOM = 4096 };

static uint64_t word(const char *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = bytes; i-- > 0;)
        v = v << 8 | (unsigned char)p[i];
    return v;
}

/* The plain CRC-32: most significant bit first, begun with 0, not inverted. A nibble at a time. */
static uint32_t checksum(const char *p, size_t n)
{
    uint32_t table[16], crc = 0;
    for (uint32_t i = 0; i < ZL_ARRAY_LEN(table); i++) {
        table[i] = i << 28;
        for (unsigned bit = 0; bit < 4; bit++)
            table[i] = table[i] << 1 ^ (table[i] & 0x80000000u ? 0x04c11db7u : 0);
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        crc = crc << 4 ^ table[crc >> 28 ^ c >> 4];
        crc = crc << 4 ^ table[crc >> 28 ^ (c & 15u)];
    }
    return crc;
}

/* The size of the batch at the start of `s` if it is whole and checks, else 0. */
static size_t batch(struct zl_str s)
{
    if (s.n < 2 * WORD)
        return 0;
    uint64_t entries = word(s.p + WORD, WORD);
    if (entries == 0 || entries > (s.n - 2 * WORD) / ENTRY)
        return 0;
    size_t header = WORD + (size_t)entries * ENTRY, data = 0;
    for (uint64_t i = 0; i < entries; i++) {
        data += (size_t)(word(s.p + 2 * WORD + i * ENTRY + 12, 4) + WORD - 1) / WORD * WORD;
        if (data > s.n - WORD - header)
            return 0;
    }
    bool good = checksum(s.p + WORD, header) == word(s.p, 4) && checksum(s.p + WORD + header, data) == word(s.p + 4, 4);
    return good ? WORD + header + data : 0;
}

size_t zl_segment_sound(struct zl_str bytes, bool *ret_rest)
{
    size_t at = 0;
    if (bytes.n >= WORD && word(bytes.p, WORD) == FORMAT) {
        at = WORD;
        for (size_t n; (n = batch(zl_str_n(bytes.p + at, bytes.n - at)));)
            at += n;
    }
    *ret_rest = false;
    for (size_t i = at; i < bytes.n && !*ret_rest; i++)
        *ret_rest = bytes.p[i] != 0;
    return at;
}

static int prepare_one(int dir, const char *name, bool saved)
{
    bool open = strncmp(name, "open-", 5) == 0, rest;
    if (!open && (name[0] < '0' || name[0] > '9'))
        return 0;
    zl_auto_buf bytes = ZL_BUF_INIT;
    int r = zl_read_file(dir, name, SEGMENT_MAX, &bytes);
    if (r < 0)
        return r;
    size_t sound = zl_segment_sound(zl_buf_view(&bytes), &rest);
    if (!open)
        return rest || sound <= WORD || sound != bytes.n ? -EBADMSG : 0;
    if (!rest && sound > WORD && bytes.n - sound >= ROOM)
        return 0;
    if (rest && !saved)
        return -ENOSPC;
    /* Nothing in it: libraft would drop it, after a look that is better spared. */
    if (sound <= WORD)
        return unlinkat(dir, name, 0) < 0 ? -errno : 0;
    zl_auto_close int fd = zl_openat(dir, name, O_WRONLY, 0);
    if (fd < 0)
        return fd;
    /* Zeros follow, and more than a batch's header of them: a shorter end is what libraft stumbles over. */
    size_t whole = ZL_MAX(bytes.n, sound + ROOM) / ROOM * ROOM + ROOM;
    return ftruncate(fd, (off_t)sound) < 0 || ftruncate(fd, (off_t)whole) < 0 || fsync(fd) < 0 ? -errno : 0;
}

int zl_segments_prepare(int dir, bool saved, char *bad, size_t size)
{
    int fd = zl_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    DIR *d = fdopendir(fd);
    if (!d) {
        zl_close(fd);
        return -ENOMEM;
    }
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(d));) {
        r = prepare_one(dir, e->d_name, saved);
        if (r < 0)
            (void)snprintf(bad, size, "%s", e->d_name);
    }
    closedir(d);
    return r;
}
