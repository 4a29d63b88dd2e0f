/* A log file as a reader finds it: from the start, and the last lines, which must be the end of the former. */
#include "base/assert.h"
#include "base/fd.h"
#include "runtime/logs.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[64];

static void tidy(void)
{
    ZL_IGNORE(zl_remove_tree(AT_FDCWD, base));
}

static unsigned read_all(int containers, bool last, uint64_t lines, size_t *bytes)
{
    struct zl_log_reader *r;
    struct zl_log_entry e;
    unsigned n = 0;
    *bytes = 0;
    zl_assert(zl_log_reader_open(containers, "i", &r) == 0);
    if (last)
        zl_assert(zl_log_reader_seek_last(r, lines) == 0);
    int more;
    while ((more = zl_log_reader_next(r, &e)) > 0) {
        n += !e.partial;
        *bytes += e.text.n;
    }
    zl_assert(more == 0);
    zl_log_reader_free(r);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int containers = -1, dir = -1;
    if (containers < 0) {
        snprintf(base, sizeof base, "/tmp/zl-fuzz-log-XXXXXX");
        zl_assert(mkdtemp(base) != NULL);
        (void)atexit(tidy);
        containers = zl_openat(AT_FDCWD, base, O_RDONLY | O_DIRECTORY, 0);
        zl_assert(containers >= 0 && mkdirat(containers, "i", 0755) == 0);
        dir = zl_openat(containers, "i", O_RDONLY | O_DIRECTORY, 0);
    }
    size_t whole_bytes, last_bytes;
    zl_assert(zl_write_file_atomic(dir, "log", data, size, 0600, ZL_KILL_PROOF) == 0);
    unsigned whole = read_all(containers, false, 0, &whole_bytes);
    unsigned last = read_all(containers, true, 3, &last_bytes);
    zl_assert(last <= whole && last_bytes <= whole_bytes);
    return 0;
}
