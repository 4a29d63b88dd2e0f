#include "imagejob/partial.h"

#include "base/fd.h"
#include "base/str.h"
#include "imagejob/digest.h"
#include "oci/manifest.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { WORTH_BYTES = 1 << 20, OLD_S = 24 * 3600 };

static const char folder[] = ".partial", prefix[] = "blob.";

char *zl_partial_name(const char *digest, char ret[ZL_PARTIAL_NAME_SIZE])
{
    snprintf(ret, ZL_PARTIAL_NAME_SIZE, "%s%.64s", prefix, digest + 7);
    return ret;
}

static int to_path(const char *hex, char ret[ZL_PARTIAL_NAME_SIZE])
{
    char digest[ZL_DIGEST_SIZE + 300];
    snprintf(digest, sizeof digest, "sha256:%s", hex);
    snprintf(ret, ZL_PARTIAL_NAME_SIZE, "%s/%.64s", folder, hex);
    return zl_oci_digest_valid(zl_str(digest)) ? 0 : -EINVAL;
}

static DIR *open_folder(int dir, const char *name)
{
    int fd = zl_openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        zl_close(fd);
    return d;
}

void zl_partial_keep(int staging, const char *job)
{
    DIR *d = open_folder(staging, job);
    struct dirent *e;
    while (d && (e = readdir(d)) != NULL) {
        char to[ZL_PARTIAL_NAME_SIZE];
        struct stat st;
        if (!zl_str_starts(zl_str(e->d_name), zl_str(prefix)) || to_path(e->d_name + sizeof prefix - 1, to) < 0 ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_size < WORTH_BYTES)
            continue;
        (void)mkdirat(staging, folder, 0700);
        (void)renameat(dirfd(d), e->d_name, staging, to);
    }
    if (d)
        closedir(d);
}

void zl_partial_take(int staging, int job, const char *digest)
{
    char from[ZL_PARTIAL_NAME_SIZE], to[ZL_PARTIAL_NAME_SIZE];
    if (to_path(digest + 7, from) == 0 && renameat(staging, from, job, zl_partial_name(digest, to)) == 0)
        (void)unlinkat(staging, folder, AT_REMOVEDIR); /* when it was the last */
}

void zl_partial_drop(int staging, bool all)
{
    DIR *d = open_folder(staging, folder);
    struct dirent *e;
    if (!d)
        return;
    while ((e = readdir(d)) != NULL) {
        struct stat st;
        if (e->d_name[0] != '.' && fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            (all || st.st_mtime + OLD_S < time(NULL)))
            (void)unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
    (void)unlinkat(staging, folder, AT_REMOVEDIR); /* when it is empty */
}
