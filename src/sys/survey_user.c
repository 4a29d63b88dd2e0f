/* What an ordinary user's deployments need, and how to get what is not there. */
#include "base/fd.h"
#include "base/str.h"
#include "sys/cgroup.h"
#include "sys/idmap.h"
#include "sys/ns.h"
#include "sys/overlay.h"
#include "sys/survey_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static int write_own(const char *file, const char *text)
{
    zl_auto_close int fd = zl_openat(AT_FDCWD, file, O_WRONLY, 0);
    return fd < 0 ? fd : zl_write_full(fd, text, strlen(text));
}

/* Root of a user namespace with the own id alone: no program is needed for that. */
static int enter(void)
{
    char uids[40], gids[40];
    snprintf(uids, sizeof uids, "0 %u 1\n", (unsigned)geteuid());
    snprintf(gids, sizeof gids, "0 %u 1\n", (unsigned)getegid());
    if (unshare(CLONE_NEWUSER) < 0)
        return -errno;
    int r = write_own("/proc/self/setgroups", "deny");
    r = r < 0 ? r : write_own("/proc/self/uid_map", uids);
    return r < 0 ? r : write_own("/proc/self/gid_map", gids);
}

static int try_namespaces(const struct survey *s)
{
    (void)s;
    int r = enter();
    int all = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWCGROUP;
    return r < 0 ? r : unshare(all) < 0 ? -errno : 0;
}

/* On the file system of the data dir: its nearest folder that is there, or when that is somebody else's, on none. */
static int try_overlay(const struct survey *s)
{
    char path[4096];
    snprintf(path, sizeof path, "%s", s->data_dir);
    while (access(path, F_OK) < 0) {
        char *slash = strrchr(path, '/');
        if (!slash || slash == path)
            break;
        *slash = 0;
    }
    int r = enter();
    if (r < 0 || unshare(CLONE_NEWNS) < 0)
        return r < 0 ? r : -errno;
    if (access(path, W_OK) == 0)
        return zl_overlay_probe(path);
    return mount("tmpfs", "/tmp", "tmpfs", 0, "size=64k") < 0 ? -errno : zl_overlay_probe("/tmp");
}

static int try_inside_veth(const struct survey *s)
{
    int r = enter();
    return r < 0 ? r : survey_try_veth(s);
}

static int try_inside_nft(const struct survey *s)
{
    int r = enter();
    return r < 0 ? r : unshare(CLONE_NEWNET) < 0 ? -errno : survey_try_nft(s);
}

static const char *text_of(int r)
{
    const char *text = strerrordesc_np(-r);
    return text ? text : "refused";
}

static bool survey_namespaces(struct survey *s)
{
    int r = survey_in_child(try_namespaces, s);
    if (r == 0)
        survey_row(s, "user namespaces", ZL_SURVEY_OK, "with mount, uts, ipc, net, pid, cgroup in them");
    else
        survey_fix(survey_row(s, "user namespaces", ZL_SURVEY_FAIL, "%s", text_of(r)),
                   r == -ENOSPC || r == -EUSERS
                       ? "an ordinary user needs them: raise user.max_user_namespaces by sysctl"
                       : "an ordinary user needs them: sysctl kernel.unprivileged_userns_clone=1 (Debian) or "
                         "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); or run zlayer as root");
    return r == 0;
}

static bool is_privileged(const char *program)
{
    static const char *const folders[] = { "/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin" };
    char path[64];
    struct stat st;
    for (size_t i = 0; i < ZL_ARRAY_LEN(folders); i++) {
        snprintf(path, sizeof path, "%s/%s", folders[i], program);
        if (stat(path, &st) == 0)
            return st.st_mode & S_ISUID || getxattr(path, "security.capability", NULL, 0) > 0;
    }
    return false;
}

static void survey_ids(struct survey *s)
{
    struct zl_idmap map;
    zl_idmap_own(&map);
    if (map.top_uid && !(is_privileged("newuidmap") && is_privileged("newgidmap")))
        survey_fix(survey_row(s, "ids", ZL_SURVEY_FAIL, "newuidmap and newgidmap are without rights"),
                   "maps can't be written: reinstall uidmap, and not on a file system that is mounted nosuid");
    else if (map.top_uid)
        survey_row(s, "ids", ZL_SURVEY_OK, "%u users and %u groups beside the own one", (unsigned)map.top_uid,
                   (unsigned)map.top_gid);
    else
        survey_fix(
            survey_row(s, "ids", ZL_SURVEY_WARN, "the own one alone%s",
                       zl_idmap_programs() ? "" : "; newuidmap and newgidmap are not there"),
            "every file of an image is root's then, and no program can be another user: install uidmap, and "
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER (a range that is nobody else's)");
}

static void survey_layers(struct survey *s)
{
    int r = survey_in_child(try_overlay, s);
    const char *program = zl_overlay_program();
    if (r == 0)
        survey_row(s, "overlayfs", ZL_SURVEY_OK, "mounts in a user namespace");
    else if (program)
        survey_fix(
            survey_row(s, "overlayfs", ZL_SURVEY_WARN, "%s; %s is used", text_of(r), program),
            "files are slower by it; Linux 5.11 and a local file system under the data dir need no such program");
    else
        survey_fix(survey_row(s, "overlayfs", ZL_SURVEY_FAIL, "%s", text_of(r)),
                   "images are stacked with it: needs Linux 5.11 and a local file system under the data dir, or "
                   "fuse-overlayfs and a /dev/fuse that users may open");
}

static void survey_tries(struct survey *s)
{
    static const struct {
        const char *name;
        int (*fn)(const struct survey *s);
        const char *good, *fix;
    } tries[] = { { "veth", try_inside_veth, "can be made", "replicas are joined with it: modprobe veth, as root" },
                  { "nftables", try_inside_nft, "answers",
                    "isolation and outward traffic need it: modprobe nf_tables, as root" } };
    for (size_t i = 0; i < ZL_ARRAY_LEN(tries); i++) {
        int r = survey_in_child(tries[i].fn, s);
        if (r == 0)
            survey_row(s, tries[i].name, ZL_SURVEY_OK, "%s", tries[i].good);
        else
            survey_fix(survey_row(s, tries[i].name, ZL_SURVEY_FAIL, "%s", text_of(r)), tries[i].fix);
    }
}

static void survey_pasta(struct survey *s)
{
    bool there = access("/usr/bin/pasta", X_OK) == 0 || access("/usr/local/bin/pasta", X_OK) == 0 ||
                 access("/bin/pasta", X_OK) == 0;
    bool tun = access("/dev/net/tun", R_OK | W_OK) == 0;
    struct zl_survey_row *r = survey_row(s, "pasta", there && tun ? ZL_SURVEY_OK : ZL_SURVEY_WARN, "%s%s",
                                         there ? "there" : "not there", tun ? "" : "; /dev/net/tun can't be opened");
    if (!there || !tun)
        survey_fix(
            r, !there ? "containers have no way out of this machine: install passt"
                      : "containers have no way out of this machine: modprobe tun, chmod 666 /dev/net/tun, as root");
}

static void survey_groups(struct survey *s)
{
    char group[200];
    if (zl_cgroup_delegated(group) == 0)
        survey_row(s, "cgroups", ZL_SURVEY_OK, "delegated: /%.140s", group);
    else
        survey_fix(survey_row(s, "cgroups", ZL_SURVEY_WARN, "none is delegated to this user"),
                   "limits in documents are not kept, and nothing can be paused: start the agent in a group of the "
                   "user's, as by "
                   "systemd-run --user --scope -p Delegate=yes zlayer up -b");
}

static void survey_ports(struct survey *s)
{
    char floor[16] = "?";
    ZL_IGNORE(zl_sysctl_read("net/ipv4/ip_unprivileged_port_start", floor, sizeof floor)); /* "?" says so */
    struct zl_survey_row *r = survey_row(s, "ports", ZL_SURVEY_OK, "from %s on", floor);
    if (!zl_streq(floor, "0"))
        survey_fix(r, "for lower ones: sysctl net.ipv4.ip_unprivileged_port_start=80, as root");
}

void survey_user(struct survey *s)
{
    bool possible = survey_namespaces(s);
    survey_ids(s);
    if (possible) { /* else these say the same again */
        survey_layers(s);
        survey_tries(s);
    }
    survey_pasta(s);
    survey_groups(s);
    survey_ports(s);
}
