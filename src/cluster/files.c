#include "cluster/files.h"

#include "base/fd.h"
#include "base/id.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { SNAPSHOT_MAX = 1 << 30, NODE_TEXT = 17, RESERVE = 2 << 20 };

static bool is_segment(const char *name)
{
    return (name[0] >= '0' && name[0] <= '9' && strchr(name, '-')) || strncmp(name, "open-", 5) == 0;
}

static bool is_snapshot(const char *name)
{
    return strncmp(name, "snapshot-", 9) == 0 && !zl_str_ends(zl_str(name), ZL_STR(".meta"));
}

static DIR *open_folder(int dir)
{
    int fd = zl_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
    return fd < 0 ? NULL : fdopendir(fd);
}

int zl_log_present(int dir)
{
    DIR *d = open_folder(dir);
    if (!d)
        return -EIO;
    int found = 0;
    for (struct dirent *e; !found && (e = readdir(d));)
        found = is_segment(e->d_name) || is_snapshot(e->d_name);
    closedir(d);
    return found;
}

int zl_node_id_load(int dir, uint64_t *ret)
{
    zl_auto_buf text = ZL_BUF_INIT;
    char fresh[NODE_TEXT + 1];
    int r = zl_read_file(dir, "node", 64, &text);
    if (r == -ENOENT) {
        uint64_t id;
        do
            id = zl_random_u64() >> 1; /* JSON numbers and libraft's callers take it as signed */
        while (id == 0);
        (void)snprintf(fresh, sizeof fresh, "%016llx\n", (unsigned long long)id);
        *ret = id;
        return zl_write_file_atomic(dir, "node", fresh, NODE_TEXT, 0600, ZL_POWER_PROOF);
    }
    if (r < 0)
        return r;
    char *end;
    *ret = strtoull(text.p, &end, 16);
    return text.n == NODE_TEXT && end == text.p + NODE_TEXT - 1 && *ret ? 0 : -EINVAL;
}

static int newest_first(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*b)->d_name, (*a)->d_name);
}

static int only_snapshots(const struct dirent *e)
{
    return is_snapshot(e->d_name);
}

int zl_snapshot_rescue(int dir, struct zl_state **ret)
{
    struct dirent **names;
    int n = scandirat(dir, ".", &names, only_snapshots, newest_first);
    if (n < 0)
        return -errno;
    int r = -ENOENT;
    for (int i = 0; i < n; i++) {
        zl_auto_buf bytes = ZL_BUF_INIT;
        if (r < 0 && zl_read_file(dir, names[i]->d_name, SNAPSHOT_MAX, &bytes) == 0 &&
            zl_state_decode(zl_buf_view(&bytes), ret, NULL) == 0)
            r = 0;
        free(names[i]);
    }
    free(names);
    return r;
}

static uint64_t space(int dir)
{
    struct statvfs v;
    return fstatvfs(dir, &v) == 0 ? (uint64_t)v.f_bavail * v.f_frsize : 0;
}

void zl_reserve_hold(int dir)
{
    if (faccessat(dir, "reserve", F_OK, 0) == 0 || space(dir) < 3ull * RESERVE)
        return;
    zl_auto_close int fd = zl_openat(dir, "reserve", O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd >= 0 && fallocate(fd, 0, 0, RESERVE) < 0)
        (void)unlinkat(dir, "reserve", 0);
}

void zl_reserve_release(int dir)
{
    if (space(dir) < RESERVE)
        (void)unlinkat(dir, "reserve", 0);
}
