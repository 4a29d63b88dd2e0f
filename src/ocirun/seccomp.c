/* linux.seccomp (config-linux.md, Seccomp) into BPF, by libseccomp. */
#include "ocirun/ocirun.h"

#include "base/fd.h"

#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

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

static int add_architectures(scmp_filter_ctx ctx, const struct zl_oci_seccomp *s, struct zl_err *err)
{
    for (unsigned i = 0; i < s->architectures.n; i++) {
        const char *name = s->architectures.v[i];
        char lower[32];
        if (strncmp(name, "SCMP_ARCH_", 10) != 0 || strlen(name) >= sizeof lower)
            return zl_fail(err, ZL_E_INVALID, "linux.seccomp.architectures: '%.40s' is none", name);
        size_t n = 0;
        for (const char *p = name + 10; *p; p++)
            lower[n++] = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
        lower[n] = 0;
        uint32_t arch = seccomp_arch_resolve_name(lower);
        int r = arch ? seccomp_arch_add(ctx, arch) : -EINVAL;
        if (r < 0 && r != -EEXIST)
            return zl_fail(err, ZL_E_INVALID, "linux.seccomp.architectures: '%.40s' is none that libseccomp knows",
                           name);
    }
    return 0;
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
            return zl_fail(err, ZL_E_UNSUPPORTED, "linux.seccomp.syscalls[%u].action: '%.40s' is not supported", i,
                           rule->action);
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

int ocirun_seccomp(struct zl_arena *arena, const struct zl_oci_seccomp *s, struct zl_str *ret, struct zl_err *err)
{
    uint32_t fallback;
    *ret = ZL_STR("");
    if (!s->default_action)
        return 0;
    if (s->flags.n)
        return zl_fail(err, ZL_E_UNSUPPORTED, "linux.seccomp.flags: '%.60s' is not supported yet", s->flags.v[0]);
    if (action_of(s->default_action, s->default_errno_ret, &fallback) < 0)
        return zl_fail(err, ZL_E_UNSUPPORTED, "linux.seccomp.defaultAction: '%.40s' is not supported",
                       s->default_action);
    scmp_filter_ctx ctx = seccomp_init(fallback);
    if (!ctx)
        return zl_fail(err, ZL_E_RUNTIME, "linux.seccomp: libseccomp does not start");
    int r = build(ctx, s, fallback, err);
    zl_auto_close int fd = r < 0 ? -EBADF : memfd_create("seccomp", MFD_CLOEXEC);
    r = r < 0 ? r : fd < 0 ? zl_fail(err, -errno, "linux.seccomp: make a file") : seccomp_export_bpf(ctx, fd);
    seccomp_release(ctx);
    if (r < 0)
        return err->code ? r : zl_fail(err, r, "linux.seccomp: write the filter");
    off_t size = lseek(fd, 0, SEEK_END);
    char *bytes = size < 0 ? NULL : zl_arena_alloc(arena, (size_t)size);
    if (!bytes || pread(fd, bytes, (size_t)size, 0) != size)
        return zl_fail(err, ZL_E_RUNTIME, "linux.seccomp: read the filter");
    *ret = zl_str_n(bytes, (size_t)size);
    return 0;
}
