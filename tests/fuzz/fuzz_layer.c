/*
 * A layer's tar is placed above a fixed lower layer; nothing beside its root may change. In whole blocks the headers'
 * checksums are made right first, as no change of a header would pass otherwise.
 */
#include "base/alloc.h"
#include "base/fd.h"
#include "imagejob/unpack.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[64], lower[80];

static void tidy(void)
{
    ZL_IGNORE(zl_remove_tree(AT_FDCWD, base));
}

static void make(const char *path, const char *link)
{
    char full[200];
    snprintf(full, sizeof full, "%s/%s", base, path);
    if (link ? symlink(link, full) < 0 : mkdir(full, 0755) < 0)
        abort();
}

static void prepare(void)
{
    snprintf(base, sizeof base, "/tmp/zl-fuzz-layer-XXXXXX");
    if (!mkdtemp(base))
        abort();
    (void)atexit(tidy);
    snprintf(lower, sizeof lower, "%s/lower", base);
    make("lower", NULL);
    make("lower/d", NULL);
    make("lower/d/e", NULL);
    make("lower/out", "../victim");
    make("victim", NULL);
}

static unsigned count(const char *name)
{
    char full[200];
    unsigned n = 0;
    snprintf(full, sizeof full, "%s/%s", base, name);
    DIR *d = opendir(full);
    if (!d)
        abort();
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* The sum of a header's bytes, its own field taken as spaces (POSIX, pax). */
static void mend(uint8_t *tar, size_t size)
{
    enum { BLOCK = 512, SUM = 148, SUM_END = 156, MAGIC = 257 };
    for (uint8_t *b = tar; size % BLOCK == 0 && b < tar + size; b += BLOCK) {
        unsigned sum = 0;
        if (memcmp(b + MAGIC, "ustar", 5) != 0)
            continue;
        for (unsigned i = 0; i < BLOCK; i++)
            sum += i >= SUM && i < SUM_END ? ' ' : b[i];
        snprintf((char *)b + SUM, SUM_END - SUM, "%06o", sum);
    }
}

/* libFuzzer's; there is none where a corpus is only replayed. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max) __attribute__((weak));
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

/* A number of any magnitude, binary as GNU tar writes what is too great for octal digits. */
static void number(uint8_t *f, size_t n, unsigned seed)
{
    uint64_t v = (uint64_t)seed * 0x9e3779b97f4a7c15U >> seed % 64;
    f[0] = 0x80;
    for (size_t i = n; --i > 0; v >>= 8)
        f[i] = (uint8_t)v;
}

/* Every other time one field of one header changes, and keeps its length: changes at any place hit contents mostly. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    enum { BLOCK = 512, MAGIC = 257 };
    static const struct {
        unsigned short at, n;
    } fields[] = { { 0, 100 }, { 156, 1 }, { 157, 100 }, { 257, 8 },  { 345, 155 }, /* texts; numbers: */
                   { 100, 8 }, { 108, 8 }, { 116, 8 },   { 124, 12 }, { 136, 12 },  { 329, 8 }, { 337, 8 } };
    enum { NUMBERS = 5 };
    size_t blocks = size / BLOCK, block = blocks ? (seed >> 8) % blocks : 0;
    size_t field = (seed >> 2) % ZL_ARRAY_LEN(fields);
    uint8_t *header = data + block * BLOCK;
    if (seed & 1 || blocks == 0 || memcmp(header + MAGIC, "ustar", 5) != 0)
        return LLVMFuzzerMutate(data, size, max);
    uint8_t *f = header + fields[field].at;
    if (field >= NUMBERS && seed & 2) {
        number(f, fields[field].n, seed);
    } else {
        size_t n = LLVMFuzzerMutate(f, fields[field].n, fields[field].n);
        memset(f + n, 0, fields[field].n - n);
    }
    return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_err err = { 0 };
    char path[80];
    if (!base[0])
        prepare();
    make("root", NULL);
    snprintf(path, sizeof path, "%s/root", base);
    make("aside", NULL);
    int below = zl_openat(AT_FDCWD, lower, O_PATH | O_DIRECTORY, 0);
    const struct zl_lowers lowers = { &below, 1 };
    int root = zl_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    snprintf(path, sizeof path, "%s/aside", base);
    int aside = zl_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    struct zl_unpack u;
    zl_unpack_init(&u, root, aside, "layer");
    zl_auto_free uint8_t *copy = zl_xmalloc(size);
    if (size)
        memcpy(copy, data, size);
    mend(copy, size);
    struct archive *tar = archive_read_new();
    archive_read_support_format_tar(tar);
    archive_read_support_format_empty(tar);
    archive_read_set_options(tar, "hdrcharset=BINARY");
    if (archive_read_open_memory(tar, copy, size) >= ARCHIVE_WARN)
        if (zl_unpack_place(&u, tar, &err) == 0)
            ZL_IGNORE(zl_unpack_settle(&u, &lowers, &err));
    archive_read_free(tar);
    zl_unpack_done(&u);
    zl_close(root);
    zl_close(aside);
    zl_close(below);
    if (count("aside") != 2 || zl_remove_tree(AT_FDCWD, path) < 0)
        abort();
    struct stat st;
    snprintf(path, sizeof path, "%s/root", base);
    if (count("") != 5 || count("victim") != 2 || count("lower") != 4 || count("lower/d") != 3 || lstat(path, &st) < 0)
        abort();
    if (zl_remove_tree(AT_FDCWD, path) < 0)
        abort();
    return 0;
}
