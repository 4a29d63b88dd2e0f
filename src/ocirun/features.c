#include "ocirun/ocirun.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct zl_value *strings(struct zl_arena *a, const char *const *v, size_t n)
{
    struct zl_value *list = zl_value_new(a, ZL_LIST);
    for (size_t i = 0; i < n; i++)
        zl_value_append(list, zl_value_string(a, zl_str(v[i])));
    return list;
}

static struct zl_value *names(struct zl_arena *a, const struct ocirun_name *v)
{
    struct zl_value *list = zl_value_new(a, ZL_LIST);
    for (; v->name; v++)
        zl_value_append(list, zl_value_string(a, zl_str(v->name)));
    return list;
}

static struct zl_value *flags(struct zl_arena *a, const char *const *names, const bool *on, size_t n)
{
    struct zl_value *map = zl_value_new(a, ZL_MAP);
    for (size_t i = 0; i < n; i++)
        zl_value_set(a, map, names[i], zl_value_bool(a, on[i]));
    return map;
}

/* AT_RECURSIVE and the rest are of kernel 5.12; the answer to a bad descriptor tells it from none. */
static bool has_mount_setattr(void)
{
    return syscall(SYS_mount_setattr, -1, "", 0, NULL, 0) < 0 && errno != ENOSYS;
}

static void add_seccomp_flags(struct zl_arena *a, struct zl_value *v)
{
    struct zl_value *known = zl_value_new(a, ZL_LIST), *supported = zl_value_new(a, ZL_LIST);
    for (const struct ocirun_name *f = ocirun_seccomp_flags; f->name; f++) {
        zl_value_append(known, zl_value_string(a, zl_str(f->name)));
        /* seccomp(2): without a program a kernel that knows the flag gives EFAULT. That of the listener comes with it.
         */
        unsigned long flags = f->flag == 1 << 5 ? f->flag | SECCOMP_FILTER_FLAG_NEW_LISTENER : f->flag;
        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, NULL) < 0 && errno == EFAULT)
            zl_value_append(supported, zl_value_string(a, zl_str(f->name)));
    }
    zl_value_set(a, v, "knownFlags", known);
    zl_value_set(a, v, "supportedFlags", supported);
}

static struct zl_value *seccomp_part(struct zl_arena *a)
{
    static const char *const actions[] = { "SCMP_ACT_ALLOW",        "SCMP_ACT_ERRNO",       "SCMP_ACT_KILL",
                                           "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
                                           "SCMP_ACT_NOTIFY",       "SCMP_ACT_TRACE",       "SCMP_ACT_TRAP" };
    static const char *const operators[] = { "SCMP_CMP_EQ", "SCMP_CMP_GE",        "SCMP_CMP_GT", "SCMP_CMP_LE",
                                             "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE" };
    /* The specification's; which of them the library knows is its version's matter. */
    static const char *const archs[] = { "AARCH64",   "ARM",    "LOONGARCH64", "M68K",        "MIPS",   "MIPS64",
                                         "MIPS64N32", "MIPSEL", "MIPSEL64",    "MIPSEL64N32", "PARISC", "PARISC64",
                                         "PPC",       "PPC64",  "PPC64LE",     "RISCV64",     "S390",   "S390X",
                                         "SH",        "SHEB",   "X32",         "X86",         "X86_64" };
    struct zl_value *v = zl_value_new(a, ZL_MAP), *known = zl_value_new(a, ZL_LIST);
    for (size_t i = 0; i < ZL_ARRAY_LEN(archs); i++)
        if (ocirun_seccomp_arch(archs[i]))
            zl_value_append(known, zl_value_string(a, zl_str(zl_arena_printf(a, "SCMP_ARCH_%s", archs[i]))));
    zl_value_set(a, v, "enabled", zl_value_bool(a, true));
    zl_value_set(a, v, "actions", strings(a, actions, ZL_ARRAY_LEN(actions)));
    zl_value_set(a, v, "operators", strings(a, operators, ZL_ARRAY_LEN(operators)));
    zl_value_set(a, v, "archs", known);
    add_seccomp_flags(a, v);
    return v;
}

/* Of the program, for people. */
static struct zl_value *annotations(struct zl_arena *a)
{
    const struct scmp_version *lib = seccomp_version();
    struct zl_value *v = zl_value_new(a, ZL_MAP);
    zl_value_set(a, v, "io.github.seccomp.libseccomp.version",
                 zl_value_string(a, zl_str(zl_arena_printf(a, "%u.%u.%u", lib->major, lib->minor, lib->micro))));
    zl_value_set(a, v, "com.zlayer.version", zl_value_string(a, zl_str(ZLAYER_VERSION)));
    return v;
}

int ocirun_features(struct ocirun *r, const char *unused)
{
    static const char *const cgroup[] = { "v1", "v2", "systemd", "systemdUser", "rdma" }, *const enabled[] = {
        "enabled"
    };
    static const bool have_cgroup[] = { true, true, true, true, true }, all[] = { true, true, true }, yes[] = { true };
    static const char *const rdt[] = { "enabled", "schemata", "monitoring" };
    static const char *const followed[] = { "org.systemd.property." }; /* of a document; scope.c */
    const bool idmap[] = { has_mount_setattr() };
    struct zl_arena *a = &r->arena;
    struct zl_value *v = zl_value_new(a, ZL_MAP), *l = zl_value_new(a, ZL_MAP),
                    *mount_options = zl_value_new(a, ZL_LIST), *namespaces = zl_value_new(a, ZL_LIST),
                    *capabilities = zl_value_new(a, ZL_LIST), *mounts = zl_value_new(a, ZL_MAP);
    (void)unused;
    ocirun_mount_option_names(a, mount_options);
    ocirun_namespace_names(a, namespaces);
    ocirun_capability_names(a, capabilities);
    zl_value_set(a, v, "ociVersionMin", zl_value_string(a, ZL_STR("1.0.0")));
    zl_value_set(a, v, "ociVersionMax", zl_value_string(a, ZL_STR("1.3.0")));
    zl_value_set(a, v, "hooks", strings(a, zl_oci_hook_names, ZL_OCI_HOOK_KINDS));
    zl_value_set(a, v, "mountOptions", mount_options);
    zl_value_set(a, l, "namespaces", namespaces);
    zl_value_set(a, l, "capabilities", capabilities);
    zl_value_set(a, l, "cgroup", flags(a, cgroup, have_cgroup, ZL_ARRAY_LEN(cgroup)));
    zl_value_set(a, l, "seccomp", seccomp_part(a));
    zl_value_set(a, l, "apparmor", flags(a, enabled, yes, 1));
    zl_value_set(a, l, "selinux", flags(a, enabled, yes, 1));
    struct zl_value *policy = zl_value_new(a, ZL_MAP);
    zl_value_set(a, policy, "modes", names(a, ocirun_memory_modes));
    zl_value_set(a, policy, "flags", names(a, ocirun_memory_flags));
    zl_value_set(a, l, "memoryPolicy", policy);
    zl_value_set(a, l, "intelRdt", flags(a, rdt, all, ZL_ARRAY_LEN(rdt)));
    zl_value_set(a, mounts, "idmap", flags(a, enabled, idmap, 1));
    zl_value_set(a, l, "mountExtensions", mounts);
    zl_value_set(a, l, "netDevices", flags(a, enabled, yes, 1));
    zl_value_set(a, v, "linux", l);
    zl_value_set(a, v, "annotations", annotations(a));
    zl_value_set(a, v, "potentiallyUnsafeConfigAnnotations", strings(a, followed, ZL_ARRAY_LEN(followed)));
    zl_auto_buf text = ZL_BUF_INIT;
    zl_json_print(&text, v, 2);
    printf("%s\n", text.p);
    return 0;
}
