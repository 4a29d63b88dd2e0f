/* linux.seccomp (config-linux.md, Seccomp) into BPF, by libseccomp. */
#include "ocirun/ocirun.h"

#include "base/fd.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

const struct ocirun_name ocirun_seccomp_flags[] = {
    { "SECCOMP_FILTER_FLAG_TSYNC", SECCOMP_FILTER_FLAG_TSYNC },
    { "SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG },
    { "SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW },
    { "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 1 << 5 /* kernel 5.19 */ },
    { NULL, 0 },
};

static int action_of(const char *name, int64_t errno_ret, uint32_t *ret)
{
    uint32_t code = errno_ret >= 0 ? (uint32_t)errno_ret : EPERM;
    const struct {
        const char *name;
        uint32_t action;
    } actions[] = { { "SCMP_ACT_ALLOW", SCMP_ACT_ALLOW },
                    { "SCMP_ACT_LOG", SCMP_ACT_LOG },
                    { "SCMP_ACT_TRAP", SCMP_ACT_TRAP },
                    { "SCMP_ACT_KILL", SCMP_ACT_KILL },
                    { "SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD },
                    { "SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS },
                    { "SCMP_ACT_ERRNO", SCMP_ACT_ERRNO(code) },
                    { "SCMP_ACT_NOTIFY", SCMP_ACT_NOTIFY },
                    { "SCMP_ACT_TRACE", SCMP_ACT_TRACE(code) } };
    for (size_t i = 0; i < ZL_ARRAY_LEN(actions); i++)
        if (zl_streq(name, actions[i].name)) {
            *ret = actions[i].action;
            return 0;
        }
    return -EINVAL;
}

static int compare_of(const struct zl_oci_seccomp_arg *a, struct scmp_arg_cmp *ret)
{
    static const char *const ops[] = { "",
                                       "SCMP_CMP_NE",
                                       "SCMP_CMP_LT",
                                       "SCMP_CMP_LE",
                                       "SCMP_CMP_EQ",
                                       "SCMP_CMP_GE",
                                       "SCMP_CMP_GT",
                                       "SCMP_CMP_MASKED_EQ" };
    for (int i = SCMP_CMP_NE; i <= SCMP_CMP_MASKED_EQ; i++)
        if (zl_streq(a->op, ops[i])) {
            *ret = (struct scmp_arg_cmp){ (unsigned)a->index, (enum scmp_compare)i, a->value, a->value_two };
            return 0;
        }
    return -EINVAL;
}

/* Several conditions on one argument can't be one rule of libseccomp: as runc and crun do, each is then one of its own.
 */
static int add_rules(scmp_filter_ctx ctx, uint32_t action, int nr, const struct zl_oci_seccomp_rule *rule)
{
    struct scmp_arg_cmp args[6];
    bool seen[6] = { false }, again = false;
    if (rule->args.n > ZL_ARRAY_LEN(args))
        return -E2BIG;
    for (unsigned i = 0; i < rule->args.n; i++) {
        const struct zl_oci_seccomp_arg *a = rule->args.v[i];
        if (compare_of(a, &args[i]) < 0)
            return -EINVAL;
        again |= seen[a->index];
        seen[a->index] = true;
    }
    int r = again ? 0 : seccomp_rule_add_array(ctx, action, nr, rule->args.n, args);
    for (unsigned i = 0; again && r == 0 && i < rule->args.n; i++)
        r = seccomp_rule_add_array(ctx, action, nr, 1, &args[i]);
    return r;
}

uint32_t ocirun_seccomp_arch(const char *name)
{
    char lower[32];
    size_t n = 0;
    for (const char *p = name; *p && n < sizeof lower - 1; p++)
        lower[n++] = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
    lower[n] = 0;
    return name[n] ? 0 : seccomp_arch_resolve_name(lower);
}

static int add_architectures(scmp_filter_ctx ctx, const struct zl_oci_seccomp *s, struct zl_err *err)
{
    for (unsigned i = 0; i < s->architectures.n; i++) {
        const char *name = s->architectures.v[i];
        if (strncmp(name, "SCMP_ARCH_", 10) != 0)
            return zl_fail(err, ZL_E_INVALID, "linux.seccomp.architectures: '%.40s' is none", name);
        uint32_t arch = ocirun_seccomp_arch(name + 10);
        int r = arch ? seccomp_arch_add(ctx, arch) : 0;
        if (!arch || (r < 0 && r != -EEXIST))
            return zl_fail(err, ZL_E_INVALID, "linux.seccomp.architectures: '%.40s' is none that libseccomp %s", name,
                           arch ? "can have in one filter with this machine's, which has another byte order" : "knows");
    }
    return 0;
}

/* A notified call waits for the listener, and until that is handed over nobody listens: what that takes can't wait. */
static int check_notify(const struct zl_oci_seccomp *s, unsigned i, struct zl_err *err)
{
    const struct zl_oci_seccomp_rule *rule = s->rules.v[i];
    for (unsigned k = 0; k < rule->names.n; k++)
        if (zl_streq(rule->names.v[k], "write") || zl_streq(rule->names.v[k], "read"))
            return zl_fail(err, ZL_E_INVALID, "linux.seccomp.syscalls[%u]: SCMP_ACT_NOTIFY can't be used for %s", i,
                           rule->names.v[k]);
    return s->listener_path
               ? 0
               : zl_fail(err, ZL_E_INVALID,
                         "linux.seccomp.syscalls[%u]: SCMP_ACT_NOTIFY needs linux.seccomp.listenerPath", i);
}

static int build(scmp_filter_ctx ctx, const struct zl_oci_seccomp *s, uint32_t fallback, struct zl_err *err)
{
    int r = add_architectures(ctx, s, err);
    if (r < 0)
        return r;
    if (seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0) < 0 || seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2) < 0)
        return zl_fail(err, ZL_E_RUNTIME, "linux.seccomp: libseccomp can't be set up");
    for (unsigned i = 0; i < s->rules.n; i++) {
        const struct zl_oci_seccomp_rule *rule = s->rules.v[i];
        uint32_t action;
        if (action_of(rule->action, rule->errno_ret, &action) < 0)
            return zl_fail(err, ZL_E_INVALID, "linux.seccomp.syscalls[%u].action", i);
        if (action == fallback)
            continue;
        for (unsigned k = 0; k < rule->names.n; k++) {
            int nr = seccomp_syscall_resolve_name(rule->names.v[k]);
            /* A name that is unknown here can't be called here: the default is for it. */
            r = nr == __NR_SCMP_ERROR ? 0 : add_rules(ctx, action, nr, rule);
            if (r < 0)
                return zl_fail(err, r == -EINVAL ? ZL_E_INVALID : r, "linux.seccomp.syscalls[%u]: the rule for %.40s",
                               i, rule->names.v[k]);
        }
    }
    return 0;
}

static int flags_of(const struct zl_oci_seccomp *s, uint64_t *ret, struct zl_err *err)
{
    for (unsigned i = 0; i < s->flags.n; i++) {
        size_t k = 0;
        while (ocirun_seccomp_flags[k].name && !zl_streq(s->flags.v[i], ocirun_seccomp_flags[k].name))
            k++;
        if (!ocirun_seccomp_flags[k].name)
            return zl_fail(err, ZL_E_INVALID, "linux.seccomp.flags[%u]: '%.60s' is none", i, s->flags.v[i]);
        *ret |= ocirun_seccomp_flags[k].flag;
    }
    return 0;
}

/* More can't be a filter: the kernel takes 4,096 instructions, and a comparison is four. To find that out libseccomp
 * needs minutes. */
enum { COMPARISONS_MAX = 1024, NAMES_MAX = 16384, INSTRUCTIONS_MAX = 4096 };

static int check_rules(const struct zl_oci_seccomp *s, uint32_t fallback, bool *listener, struct zl_err *err)
{
    size_t comparisons = 0, names = 0;
    for (unsigned i = 0; i < s->rules.n; i++) {
        const struct zl_oci_seccomp_rule *rule = s->rules.v[i];
        uint32_t action;
        names += rule->names.n;
        comparisons += (size_t)rule->args.n * rule->names.n;
        if (comparisons > COMPARISONS_MAX || names > NAMES_MAX)
            return zl_fail(err, ZL_E_LIMIT, "linux.seccomp.syscalls[%u]: over %d %s by then: no filter has so many", i,
                           comparisons > COMPARISONS_MAX ? COMPARISONS_MAX : NAMES_MAX,
                           comparisons > COMPARISONS_MAX ? "comparisons of arguments" : "names");
        if (action_of(rule->action, rule->errno_ret, &action) < 0)
            return zl_fail(err, ZL_E_UNSUPPORTED, "linux.seccomp.syscalls[%u].action: '%.40s' is not supported", i,
                           rule->action);
        if (action == SCMP_ACT_NOTIFY && action != fallback && check_notify(s, i, err) < 0)
            return err->code;
        *listener |= action == SCMP_ACT_NOTIFY;
    }
    return 0;
}

static int compile(struct ocirun *r, const struct zl_oci_seccomp *s, uint32_t fallback, struct zl_str *ret)
{
    struct zl_err *err = &r->err;
    scmp_filter_ctx ctx = seccomp_init(fallback);
    if (!ctx)
        return zl_fail(err, ZL_E_RUNTIME, "linux.seccomp: libseccomp does not start");
    int e = build(ctx, s, fallback, err);
    zl_auto_close int fd = e < 0 ? -EBADF : memfd_create("seccomp", MFD_CLOEXEC);
    e = e < 0 ? e : fd < 0 ? zl_fail(err, -errno, "linux.seccomp: make a file") : seccomp_export_bpf(ctx, fd);
    seccomp_release(ctx);
    if (e < 0)
        return err->code ? e : zl_fail(err, e, "linux.seccomp: write the filter");
    off_t size = lseek(fd, 0, SEEK_END);
    if (size > (off_t)(INSTRUCTIONS_MAX * sizeof(struct sock_filter)))
        return zl_fail(err, ZL_E_LIMIT, "linux.seccomp: the filter has %lld instructions, and the kernel takes %d",
                       (long long)size / (long long)sizeof(struct sock_filter), INSTRUCTIONS_MAX);
    char *bytes = size < 0 ? NULL : zl_arena_alloc(&r->arena, (size_t)size);
    if (!bytes || pread(fd, bytes, (size_t)size, 0) != size)
        return zl_fail(err, ZL_E_RUNTIME, "linux.seccomp: read the filter");
    *ret = zl_str_n(bytes, (size_t)size);
    return 0;
}

int ocirun_seccomp(struct ocirun *r, const struct zl_oci_seccomp *s, struct zl_job *job)
{
    uint32_t fallback;
    bool listener = false;
    job->seccomp = ZL_STR("");
    if (!s->default_action)
        return 0;
    if (flags_of(s, &job->seccomp_flags, &r->err) < 0)
        return r->err.code;
    if (zl_streq(s->default_action, "SCMP_ACT_NOTIFY"))
        return zl_fail(&r->err, ZL_E_INVALID, "linux.seccomp.defaultAction: it can't be SCMP_ACT_NOTIFY");
    if (action_of(s->default_action, s->default_errno_ret, &fallback) < 0)
        return zl_fail(&r->err, ZL_E_UNSUPPORTED, "linux.seccomp.defaultAction: '%.40s' is not supported",
                       s->default_action);
    int e = check_rules(s, fallback, &listener, &r->err);
    if (e < 0)
        return e;
    job->seccomp_listener = listener;
    if (ocirun_cached_filter(r, s, &job->seccomp))
        return 0;
    e = compile(r, s, fallback, &job->seccomp);
    if (e == 0)
        ocirun_keep_filter(r, s, job->seccomp);
    return e;
}

/* config-linux.md, The Container Process State. */
int ocirun_send_listener(void *listener, int fd)
{
    struct ocirun_listener *l = listener;
    struct zl_arena *a = &l->r->arena;
    const struct zl_oci_seccomp *s = &l->c->linux_.seccomp;
    zl_auto_close int owned = fd;
    zl_auto_close int sock = ocirun_connect(s->listener_path);
    if (sock < 0)
        return sock;
    struct zl_value *v = zl_value_new(a, ZL_MAP), *fds = zl_value_new(a, ZL_LIST);
    zl_value_append(fds, zl_value_string(a, ZL_STR("seccompFd")));
    zl_value_set(a, v, "ociVersion", zl_value_string(a, zl_str(l->s->version)));
    zl_value_set(a, v, "fds", fds);
    zl_value_set(a, v, "pid", zl_value_int(a, l->pid));
    zl_value_set(a, v, "metadata", zl_value_string(a, zl_str(s->listener_metadata ? s->listener_metadata : "")));
    zl_value_set(a, v, "state", ocirun_show_as(l->r, l->s, l->pid == l->s->pid ? "creating" : "running", l->s->pid));
    zl_auto_buf text = ZL_BUF_INIT;
    zl_json_print(&text, v, 0);
    return ocirun_send_fd(sock, zl_buf_view(&text), owned);
}
