#include "sys/idmap.h"

#include "base/fd.h"
#include "sys/process.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILE_MAX = 4 << 20, RANGES_MAX = 64 };
static const char *const places[] = { "/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin" };

static struct zl_str field(struct zl_str line, int n)
{
    struct zl_str f = { NULL, 0 };
    int i = 0;
    for (; i <= n && line.p; i++)
        f = zl_str_cut(line, ':', &line);
    return i > n ? f : (struct zl_str){ NULL, 0 };
}

uint32_t zl_idmap_take(struct zl_str text, const char *name, uint32_t user, uint32_t own, char ret[ZL_IDMAP_SIZE])
{
    char number[16];
    uint64_t next = 1;
    int n = snprintf(ret, ZL_IDMAP_SIZE, "0 %u 1\n", (unsigned)own), ranges = 0;
    snprintf(number, sizeof number, "%u", (unsigned)user);
    for (struct zl_str rest = text; rest.p && rest.n && ranges < RANGES_MAX;) {
        struct zl_str line = zl_str_trim(zl_str_cut(rest, '\n', &rest)), who = field(line, 0);
        uint64_t first, count;
        if (!who.p || !who.n || !(zl_str_is(who, number) || (*name && zl_str_is(who, name))) ||
            zl_parse_u64(field(line, 1), 1, UINT32_MAX - 1, &first) < 0 ||
            zl_parse_u64(field(line, 2), 1, UINT32_MAX - 1, &count) < 0)
            continue;
        if (first + count > UINT32_MAX || next + count > UINT32_MAX || (own >= first && own < first + count))
            continue; /* newuidmap would refuse all of it */
        int m = snprintf(ret + n, (size_t)(ZL_IDMAP_SIZE - n), "%llu %llu %llu\n", (unsigned long long)next,
                         (unsigned long long)first, (unsigned long long)count);
        if (m >= ZL_IDMAP_SIZE - n) {
            ret[n] = 0;
            break;
        }
        n += m;
        next += count;
        ranges++;
    }
    return (uint32_t)(next - 1);
}

static bool find_program(const char *name, char path[64])
{
    for (size_t i = 0; i < ZL_ARRAY_LEN(places); i++) {
        snprintf(path, 64, "%s/%s", places[i], name);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

bool zl_idmap_programs(void)
{
    char path[64];
    return find_program("newuidmap", path) && find_program("newgidmap", path);
}

/* By /etc/passwd alone: a static program has no other sources, and lines by number need no name. */
static void own_name(uint32_t uid, char ret[256])
{
    zl_auto_buf passwd = ZL_BUF_INIT;
    *ret = 0;
    if (zl_read_file(AT_FDCWD, "/etc/passwd", FILE_MAX, &passwd) == 0) {
        for (struct zl_str rest = zl_buf_view(&passwd); rest.p && rest.n;) {
            uint64_t id;
            struct zl_str line = zl_str_cut(rest, '\n', &rest), name = field(line, 0);
            if (zl_parse_u64(field(line, 2), 0, UINT32_MAX, &id) == 0 && id == uid) {
                snprintf(ret, 256, "%.*s", ZL_STR_FMT(name));
                return;
            }
        }
    }
    const char *said = getenv("USER"); /* of a directory service; newuidmap looks for itself */
    snprintf(ret, 256, "%s", said ? said : "");
}

void zl_idmap_own(struct zl_idmap *ret)
{
    char name[256];
    uint32_t uid = geteuid(), gid = getegid();
    zl_auto_buf uids = ZL_BUF_INIT, gids = ZL_BUF_INIT;
    own_name(uid, name);
    ret->top_uid = ret->top_gid = 0;
    if (zl_idmap_programs() && zl_read_file(AT_FDCWD, "/etc/subuid", FILE_MAX, &uids) == 0 &&
        zl_read_file(AT_FDCWD, "/etc/subgid", FILE_MAX, &gids) == 0) {
        ret->top_uid = zl_idmap_take(zl_buf_view(&uids), name, uid, uid, ret->uids);
        ret->top_gid = zl_idmap_take(zl_buf_view(&gids), name, uid, gid, ret->gids);
    }
    if (ret->top_uid && ret->top_gid)
        return;
    ret->top_uid = ret->top_gid = 0;
    snprintf(ret->uids, sizeof ret->uids, "0 %u 1\n", (unsigned)uid);
    snprintf(ret->gids, sizeof ret->gids, "0 %u 1\n", (unsigned)gid);
}

static int write_proc(pid_t pid, const char *file, const char *text)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    zl_auto_close int fd = zl_openat(AT_FDCWD, path, O_WRONLY, 0);
    if (fd < 0)
        return fd;
    size_t n = strlen(text); /* in one write, or it is refused */
    return write(fd, text, n) == (ssize_t)n ? 0 : -errno;
}

/* newuidmap PID container host size …: the program has the rights that /etc/subuid gives an ordinary user. */
static int map_by_program(const char *program, pid_t pid, const char *map)
{
    const char *argv[256];
    char text[4096], number[16], *save = NULL;
    int n = 0, status;
    pid_t child;
    if (strlen(map) >= sizeof text)
        return -E2BIG;
    snprintf(text, sizeof text, "%s", map);
    snprintf(number, sizeof number, "%d", (int)pid);
    argv[n++] = program;
    argv[n++] = number;
    for (char *word = strtok_r(text, " \n", &save); word && n < 255; word = strtok_r(NULL, " \n", &save))
        argv[n++] = word;
    argv[n] = NULL;
    int e = zl_spawn(program, argv, (const char *const *)(uintptr_t)environ, -EBADF, -EBADF, &child);
    if (e < 0)
        return e;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

int zl_idmap_write(pid_t pid, const char *uids, const char *gids, const char **failed)
{
    *failed = "users";
    int r = write_proc(pid, "uid_map", uids);
    if (r == -EPERM)
        r = map_by_program("newuidmap", pid, uids);
    if (r < 0)
        return r;
    *failed = "groups";
    r = write_proc(pid, "gid_map", gids);
    if (r != -EPERM)
        return r;
    unsigned inside, outside, count;
    int end = 0;
    /* The own group alone may be mapped once setgroups is forbidden for ever (user_namespaces(7)): nothing else may
     * cost that. */
    bool own = sscanf(gids, "%u %u %u %n", &inside, &outside, &count, &end) == 3 && !gids[end] && count == 1 &&
               outside == getegid();
    if (own && write_proc(pid, "setgroups", "deny") == 0)
        return write_proc(pid, "gid_map", gids);
    return map_by_program("newgidmap", pid, gids);
}

/* Calls fn for each line of a map of ours until it says true. */
static bool any_line(const char *file, bool (*fn)(uint64_t inside, uint64_t outside, uint64_t count, uint32_t id),
                     uint32_t id)
{
    char path[32];
    zl_auto_buf text = ZL_BUF_INIT;
    snprintf(path, sizeof path, "/proc/self/%s", file);
    if (zl_read_file(AT_FDCWD, path, FILE_MAX, &text) < 0)
        return false;
    for (const char *p = text.n ? text.p : ""; *p;) {
        char *end;
        uint64_t v[3] = { 0 };
        for (int i = 0; i < 3; i++, p = end)
            v[i] = strtoull(p, &end, 10);
        if (fn(v[0], v[1], v[2], id))
            return true;
        p += strspn(p, " \n");
    }
    return false;
}

static bool holds(uint64_t inside, uint64_t outside, uint64_t count, uint32_t id)
{
    (void)outside;
    return id >= inside && id - inside < count;
}

static bool is_whole(uint64_t inside, uint64_t outside, uint64_t count, uint32_t id)
{
    (void)id;
    return inside == 0 && outside == 0 && count == UINT32_MAX;
}

bool zl_idmap_has(const char *file, uint32_t id)
{
    return any_line(file, holds, id);
}

bool zl_idmap_inside(void)
{
    return access("/proc/self/uid_map", F_OK) == 0 && !any_line("uid_map", is_whole, 0);
}
