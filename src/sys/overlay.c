#include "sys/overlay.h"

#include "base/fd.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

static int try_mount(int dir)
{
    static const char *const names[] = { "lower", "upper", "work", "merged" };
    char at[32];
    if (fchdir(dir) < 0)
        return -errno;
    for (size_t i = 0; i < ZL_ARRAY_LEN(names); i++) {
        int r = zl_mkdirat(dir, names[i], 0755);
        if (r < 0)
            return r;
    }
    snprintf(at, sizeof at, "merged");
    if (mount("overlay", at, "overlay", MS_NODEV, "lowerdir=lower,upperdir=upper,workdir=work,userxattr") < 0)
        return -errno;
    return umount2(at, MNT_DETACH) < 0 ? -errno : 0;
}

int zl_overlay_probe(const char *folder)
{
    char name[32];
    zl_auto_close int above = zl_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0);
    zl_auto_close int before = zl_openat(AT_FDCWD, ".", O_PATH | O_DIRECTORY, 0);
    snprintf(name, sizeof name, ".probe.%d", (int)getpid());
    int r = above < 0 ? above : before < 0 ? before : zl_mkdirat(above, name, 0700);
    zl_auto_close int dir = r < 0 ? r : zl_openat(above, name, O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0)
        return dir;
    r = try_mount(dir);
    if (fchdir(before) < 0 && r == 0)
        r = -errno;
    ZL_IGNORE(zl_remove_tree(above, name)); /* it is swept with the data dir's other leftovers */
    return r;
}

const char *zl_overlay_program(void)
{
    static const char *const places[] = { "/usr/bin/fuse-overlayfs", "/usr/local/bin/fuse-overlayfs",
                                          "/bin/fuse-overlayfs" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(places); i++)
        if (access(places[i], X_OK) == 0 && access("/dev/fuse", R_OK | W_OK) == 0)
            return places[i];
    return NULL;
}
