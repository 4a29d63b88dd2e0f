#include "client/place.h"

#include "base/alloc.h"
#include "base/str.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int absolute(const char *path, char **ret, struct zl_err *err)
{
    if (path[0] == '/') {
        *ret = zl_xstrdup(path);
    } else {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here))
            return zl_fail(err, -errno, "find the current folder");
        *ret = zl_xasprintf("%s/%s", here, path);
    }
    size_t n = strlen(*ret);
    while (n > 1 && (*ret)[n - 1] == '/')
        (*ret)[--n] = 0;
    return 0;
}

/* XDG Base Directory Specification. NULL: there is no home. */
static char *users_default(void)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (data && data[0] == '/')
        return zl_xasprintf("%s/zlayer", data);
    return home && home[0] == '/' ? zl_xasprintf("%s/.local/share/zlayer", home) : NULL;
}

/*
 * An ordinary user's socket is where the session's volatile files are, which may not be told to each of its programs
 * (by cron, through sudo): so <data>/run leads there, too, and an agent that was not told itself has it there.
 */
static char *find_run(const char *data)
{
    struct stat st;
    const char *volatile_files = getenv("XDG_RUNTIME_DIR");
    zl_auto_free char *below = zl_xasprintf("%s/run", data), *socket = zl_xasprintf("%s/zlayer.sock", below);
    zl_auto_free char *own = geteuid() == 0 ? NULL : users_default();
    if (geteuid() == 0 && zl_streq(data, ZL_DEFAULT_DATA_DIR))
        return zl_xstrdup(ZL_DEFAULT_RUN_DIR);
    if (!own || !zl_streq(own, data) || !volatile_files || volatile_files[0] != '/' || access(socket, F_OK) == 0 ||
        stat(volatile_files, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return ZL_TAKE(below);
    return zl_xasprintf("%s/zlayer", volatile_files);
}

int zl_place_find(struct zl_place *ret, const char *data_dir, struct zl_err *err)
{
    struct zl_place p = { .from = "--data-dir" };
    const char *path = data_dir && data_dir[0] ? data_dir : NULL;
    if (!path) {
        path = getenv("ZLAYER_DATA_DIR");
        p.from = "ZLAYER_DATA_DIR";
    }
    zl_auto_free char *below_home = NULL;
    if (!path || !path[0]) {
        p.from = "default";
        path = ZL_DEFAULT_DATA_DIR;
        if (geteuid() != 0) {
            if (!(below_home = users_default()))
                return zl_hint(err, zl_fail(err, ZL_E_INVALID, "HOME is not set, so there is no default data dir"),
                               "name one with --data-dir");
            path = below_home;
        }
    }
    if (strlen(path) > PATH_MAX / 2)
        return zl_fail(err, ZL_E_INVALID, "the data dir's path is too long");
    int e = absolute(path, &p.data, err);
    if (e < 0)
        return e;
    p.run = find_run(p.data);
    p.socket = zl_xasprintf("%s/zlayer.sock", p.run);
    *ret = p;
    return 0;
}

void zl_place_done(struct zl_place *p)
{
    free(ZL_TAKE(p->data));
    free(ZL_TAKE(p->run));
    free(ZL_TAKE(p->socket));
}

int zl_program_find(const char *name, char **ret, struct zl_err *err)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        return zl_fail(err, -errno, "find this program's own path");
    self[n] = 0;
    *strrchr(self, '/') = 0;
    /* In a build tree each program stands in its room's folder. */
    static const char *const places[] = { "",         "/../libexec/zlayer", "/../imagejob", "/../inside",
                                          "/../shim", "/../proxyd",         "/../ocirun" };
    zl_auto_free char *build = zl_xasprintf("%s/../../build.ninja", self);
    size_t count = access(build, F_OK) == 0 ? ZL_ARRAY_LEN(places) : 2;
    for (size_t i = 0; i < count; i++) {
        zl_auto_free char *path = zl_xasprintf("%s%s/%s", self, places[i], name);
        if (access(path, X_OK) == 0) {
            *ret = ZL_TAKE(path);
            return 0;
        }
    }
    return zl_hint(
        err,
        zl_fail(err, ZL_E_NOT_FOUND, "the program %s is neither in %s nor in %s/../libexec/zlayer", name, self, self),
        "zlayer is not completely installed: run 'make install' again");
}
