#include "sys/devices.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    ALL_ACCESS = ZL_DEVICE_MKNOD | ZL_DEVICE_READ | ZL_DEVICE_WRITE,
    INSTRUCTIONS_A_RULE = 10,
    EXCEPTIONS_MAX = 300
};

void zl_device_policy_make(const struct zl_device_rule *rules, unsigned n, struct zl_device_policy *ret)
{
    ret->allow = true; /* a new group has what the one above has */
    ret->n = 0;
    for (unsigned i = 0; i < n; i++) {
        struct zl_device_rule r = rules[i];
        unsigned k = 0;
        if (r.type == 'a') {
            ret->allow = r.allow;
            ret->n = 0;
            continue;
        }
        while (k < ret->n && (ret->exceptions[k].type != r.type || ret->exceptions[k].major != r.major ||
                              ret->exceptions[k].minor != r.minor))
            k++;
        struct zl_device_rule *e = &ret->exceptions[k];
        if (r.allow == ret->allow) { /* no exception any more */
            if (k < ret->n && (e->access &= ~r.access) == 0)
                *e = ret->exceptions[--ret->n];
        } else if (k < ret->n) {
            e->access |= r.access;
        } else {
            ret->exceptions[ret->n++] = r;
        }
    }
}

#define LOAD(dst, at)       ((struct bpf_insn){ BPF_LDX | BPF_MEM | BPF_W, dst, BPF_REG_1, at, 0 })
#define SET(dst, value)     ((struct bpf_insn){ BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value })
#define COPY(dst, src)      ((struct bpf_insn){ BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0 })
#define AND(dst, value)     ((struct bpf_insn){ BPF_ALU | BPF_AND | BPF_K, dst, 0, 0, value })
#define SHIFT(dst, bits)    ((struct bpf_insn){ BPF_ALU | BPF_RSH | BPF_K, dst, 0, 0, bits })
#define UNLESS(dst, v, off) ((struct bpf_insn){ BPF_JMP32 | BPF_JNE | BPF_K, dst, 0, off, v })
#define IF(dst, v, off)     ((struct bpf_insn){ BPF_JMP32 | BPF_JEQ | BPF_K, dst, 0, off, v })
#define RETURN              ((struct bpf_insn){ BPF_JMP | BPF_EXIT, 0, 0, 0, 0 })

/* r2 type, r3 access, r4 major, r5 minor; the answer in r0. */
static unsigned compile(const struct zl_device_policy *p, struct bpf_insn *out)
{
    unsigned n = 0;
    out[n++] = LOAD(BPF_REG_2, offsetof(struct bpf_cgroup_dev_ctx, access_type));
    out[n++] = COPY(BPF_REG_3, BPF_REG_2);
    out[n++] = AND(BPF_REG_2, 0xffff);
    out[n++] = SHIFT(BPF_REG_3, 16);
    out[n++] = LOAD(BPF_REG_4, offsetof(struct bpf_cgroup_dev_ctx, major));
    out[n++] = LOAD(BPF_REG_5, offsetof(struct bpf_cgroup_dev_ctx, minor));
    for (unsigned i = 0; i < p->n; i++) {
        const struct zl_device_rule *e = &p->exceptions[i];
        struct bpf_insn rule[INSTRUCTIONS_A_RULE];
        unsigned k = 0;
        rule[k++] = UNLESS(BPF_REG_2, e->type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR, 0);
        if (e->major >= 0)
            rule[k++] = UNLESS(BPF_REG_4, (int)e->major, 0);
        if (e->minor >= 0)
            rule[k++] = UNLESS(BPF_REG_5, (int)e->minor, 0);
        rule[k++] = COPY(BPF_REG_1, BPF_REG_3);
        /* Allowed when all that is asked is in it, refused when anything is. */
        rule[k++] = AND(BPF_REG_1, (int)(p->allow ? e->access : ALL_ACCESS & ~e->access));
        rule[k++] = p->allow ? IF(BPF_REG_1, 0, 0) : UNLESS(BPF_REG_1, 0, 0);
        rule[k++] = SET(BPF_REG_0, !p->allow);
        rule[k++] = RETURN;
        for (unsigned j = 0; j < k; j++) {
            if (BPF_CLASS(rule[j].code) == BPF_JMP32)
                rule[j].off = (short)(k - j - 1); /* to the next rule */
            out[n++] = rule[j];
        }
    }
    out[n++] = SET(BPF_REG_0, p->allow);
    out[n++] = RETURN;
    return n;
}

int zl_cgroup_attach_devices(const char *dir, const struct zl_device_policy *policy)
{
    if (policy->n > EXCEPTIONS_MAX)
        return -E2BIG;
    zl_auto_free struct bpf_insn *code = zl_xcalloc(policy->n * INSTRUCTIONS_A_RULE + 16, sizeof *code);
    union bpf_attr load = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
                            .insn_cnt = compile(policy, code),
                            .insns = (uint64_t)(uintptr_t)code,
                            .license = (uint64_t)(uintptr_t) "Apache-2.0" };
    zl_auto_close int group = zl_openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0);
    if (group < 0)
        return group;
    zl_auto_close int program = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
    if (program < 0)
        return -errno;
    union bpf_attr attach = { .target_fd = (unsigned)group,
                              .attach_bpf_fd = (unsigned)program,
                              .attach_type = BPF_CGROUP_DEVICE,
                              .attach_flags = BPF_F_ALLOW_MULTI };
    return syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach) < 0 ? -errno : 0;
}

static int write_rule(const char *dir, const struct zl_device_rule *r)
{
    char path[400], text[80], major[24] = "*", minor[24] = "*";
    if (r->major >= 0)
        snprintf(major, sizeof major, "%lld", (long long)r->major);
    if (r->minor >= 0)
        snprintf(minor, sizeof minor, "%lld", (long long)r->minor);
    int n = r->type == 'a' ? snprintf(text, sizeof text, "a")
                           : snprintf(text, sizeof text, "%c %s:%s %s%s%s", r->type, major, minor,
                                      r->access & ZL_DEVICE_READ ? "r" : "", r->access & ZL_DEVICE_WRITE ? "w" : "",
                                      r->access & ZL_DEVICE_MKNOD ? "m" : "");
    snprintf(path, sizeof path, "%s/devices.%s", dir, r->allow ? "allow" : "deny");
    zl_auto_close int fd = zl_openat(AT_FDCWD, path, O_WRONLY, 0);
    return fd < 0 ? fd : zl_write_full(fd, text, (size_t)n);
}

int zl_cgroup_set_devices(const struct zl_cgroup *g, const struct zl_device_rule *rules, unsigned n)
{
    const char *v1 = g->dir[ZL_CONTROLLER_DEVICES], *v2 = g->dir[ZL_CONTROLLER_UNIFIED];
    int r = 0;
    if (n == 0)
        return 0;
    for (unsigned i = 0; v1[0] && i < n && r == 0; i++)
        r = write_rule(v1, &rules[i]);
    if (v1[0])
        return r;
    if (!v2[0])
        return -EOPNOTSUPP;
    zl_auto_free struct zl_device_rule *exceptions = zl_xcalloc(n, sizeof *exceptions);
    struct zl_device_policy policy = { .exceptions = exceptions };
    zl_device_policy_make(rules, n, &policy);
    return zl_cgroup_attach_devices(v2, &policy);
}
