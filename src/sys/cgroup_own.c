#include "base/fd.h"
#include "sys/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Folder and list of processes are ours: that is what delegation means (cgroup-v2, "Delegation"). */
static bool is_ours(const char *dir)
{
    char path[600];
    struct stat st, procs;
    snprintf(path, sizeof path, "%s/cgroup.procs", dir);
    return stat(dir, &st) == 0 && stat(path, &procs) == 0 && st.st_uid == geteuid() && procs.st_uid == geteuid();
}

/* "4:memory:/a/b", and "0::/a/b" of v2. */
static struct zl_str own_path(struct zl_str text, bool v2)
{
    while (text.p && text.n) {
        struct zl_str rest, line = zl_str_cut(text, '\n', &text), number = zl_str_cut(line, ':', &rest), names;
        names = zl_str_cut(rest.p ? rest : ZL_STR(""), ':', &rest);
        if (rest.p && (v2 ? names.n == 0 && zl_str_is(number, "0") : names.n > 0))
            return rest;
    }
    return ZL_STR("");
}

int zl_cgroup_delegated(char ret[200])
{
    struct zl_cgroup g;
    char dir[520];
    zl_auto_buf text = ZL_BUF_INIT;
    int r = zl_cgroup_find_all("", "x", UINT32_MAX, &g);
    r = r < 0 ? r : zl_read_file(AT_FDCWD, "/proc/self/cgroup", 1 << 16, &text);
    int c = ZL_CONTROLLER_UNIFIED;
    while (r == 0 && c < ZL_CONTROLLER_COUNT && !g.dir[c][0])
        c++;
    if (r < 0 || c == ZL_CONTROLLER_COUNT)
        return r < 0 ? r : -ENOENT;
    struct zl_str own = own_path(zl_buf_view(&text), c == ZL_CONTROLLER_UNIFIED);
    if (own.n < 2 || own.n >= 200 || own.p[0] != '/')
        return -ENOENT;
    int mounted = (int)(strlen(g.dir[c]) - strlen("/x"));
    for (size_t n = 1; n <= own.n; n++) {
        if (n < own.n && own.p[n] != '/')
            continue;
        snprintf(dir, sizeof dir, "%.*s%.*s", mounted, g.dir[c], (int)n, own.p);
        if (is_ours(dir)) {
            snprintf(ret, 200, "%.*s", (int)(n - 1), own.p + 1);
            return 0;
        }
    }
    return -ENOENT;
}
