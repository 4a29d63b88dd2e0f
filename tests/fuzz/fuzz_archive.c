/*
 * An image archive is staged, and its documents are read. Nothing may appear beside the staging folder, nor in it but
 * numbered files; a blob that was taken has the digest that its name says. Headers' checksums are made right first.
 */
#include "base/alloc.h"
#include "base/fd.h"
#include "imagejob/staged.h"
#include "oci/archive.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[64];

static void tidy(void)
{
    ZL_IGNORE(zl_remove_tree(AT_FDCWD, base));
}

static void prepare(void)
{
    snprintf(base, sizeof base, "/tmp/zl-fuzz-archive-XXXXXX");
    if (!mkdtemp(base))
        abort();
    (void)atexit(tidy);
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

/* Every name in the folder begins so. */
static void only(int dir, const char *prefix)
{
    int fd = zl_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        abort();
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.' && strncmp(e->d_name, prefix, strlen(prefix)) != 0)
            abort();
    closedir(d);
}

static void read_documents(const struct zl_staged *s, struct zl_arena *arena)
{
    static const char *const names[] = { "oci-layout", "index.json", "manifest.json" };
    for (unsigned i = 0; i < 3; i++) {
        zl_auto_buf text = ZL_BUF_INIT;
        struct zl_err err = { 0 };
        struct zl_oci_layout layout = { 0 };
        struct zl_items images = { 0 };
        const struct zl_staged_file *f = zl_staged_find(s, names[i]);
        if (!f || zl_staged_read(s, f, &text, &err) < 0)
            continue;
        if (i == 0)
            ZL_IGNORE(zl_oci_layout_check(arena, zl_buf_view(&text), &err));
        if (i == 1 && zl_oci_layout_parse(arena, zl_buf_view(&text), &layout, &err) == 0)
            for (unsigned k = 0; k < layout.index.n; k++)
                if (!layout.names[k] || !zl_oci_digest_valid(zl_str(layout.index.items[k].digest)))
                    abort();
        if (i == 2 && zl_docker_archive_parse(arena, zl_buf_view(&text), &images, &err) == 0)
            for (unsigned k = 0; k < images.n; k++)
                (void)zl_staged_find(s, ((struct zl_docker_image *)images.v[k])->config);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_err err = { 0 };
    struct zl_arena arena;
    struct zl_staged s;
    char path[80];
    if (!base[0])
        prepare();
    snprintf(path, sizeof path, "%s/staging", base);
    if (mkdir(path, 0700) < 0)
        abort();
    int top = zl_openat(AT_FDCWD, base, O_RDONLY | O_DIRECTORY, 0);
    int staging = zl_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    zl_auto_free uint8_t *copy = zl_xmalloc(size);
    if (size)
        memcpy(copy, data, size);
    mend(copy, size);
    zl_arena_init(&arena);
    zl_staged_init(&s, staging, &arena);
    struct archive *tar = archive_read_new();
    archive_read_support_format_tar(tar);
    archive_read_set_options(tar, "hdrcharset=BINARY");
    if (archive_read_open_memory(tar, copy, size) >= ARCHIVE_WARN && zl_stage_archive(&s, tar, &err) == 0) {
        read_documents(&s, &arena);
        for (size_t i = 0; i < s.n; i++) {
            char said[ZL_DIGEST_SIZE];
            if (!s.v[i].link && zl_oci_blob_name(s.v[i].name, said) && strcmp(said, s.v[i].digest) != 0)
                abort();
        }
    }
    archive_read_free(tar);
    only(staging, "file.");
    only(top, "staging");
    zl_staged_done(&s);
    zl_arena_done(&arena);
    zl_close(staging);
    zl_close(top);
    if (zl_remove_tree(AT_FDCWD, path) < 0)
        abort();
    return 0;
}
