/*
 * What runs before the C library does. A verb that enters a container goes on from a sealed program anyway (main.c,
 * run_sealed), so it changes to the read-only mount at once: the library's own start, which asks the processor what it
 * is (cpuid, which a hypervisor answers, each time), and the relocations are then paid once and not twice. It is a
 * saving and nothing else: what fails here, or is not done here, is done, checked and reported by main.
 *
 * There is no library, no relocation and no thread pointer yet: only system calls, no table of pointers, no call of
 * another file, no stack protector (meson.build).
 */
#include <fcntl.h>
#include <linux/mount.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

void zl_oci_early(uintptr_t *stack);

/* As the kernel enters a program: the arguments lie on the stack, and _start wants the registers as they were. */
__asm__(".text\n"
        ".globl zl_oci_entry\n"
        ".type zl_oci_entry, @function\n"
        "zl_oci_entry:\n"
        "    endbr64\n"
        "    push %rdx\n"
        "    push %rdx\n"
        "    lea 16(%rsp), %rdi\n"
        "    call zl_oci_early\n"
        "    pop %rdx\n"
        "    pop %rdx\n"
        "    jmp _start\n"
        ".size zl_oci_entry, . - zl_oci_entry\n");

static long call(long number, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e)
{
    register uintptr_t r10 __asm__("r10") = d;
    register uintptr_t r8 __asm__("r8") = e;
    long r;
    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return r;
}

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static int begins(const char *a, const char *b)
{
    while (*b && *a == *b)
        a++, b++;
    return !*b;
}

/*
 * Any word will do: one that is no verb costs an exec and does no harm. Who asks for systemd's groups needs the
 * program's own folder later, which main notes down before it goes on from the mount.
 */
static int enters(char *const *argv)
{
    int found = 0;
    for (; *argv; argv++) {
        if (begins(*argv, "--systemd-cgroup") || begins(*argv, "--cgroup-manager"))
            return 0;
        found |= same(*argv, "run") || same(*argv, "exec") || same(*argv, "create");
    }
    return found;
}

/* `stack`: argc, then the arguments and the variables, each list with its NULL. */
void zl_oci_early(uintptr_t *stack)
{
    char **argv = (char **)(stack + 1);
    if (!*stack || !enters(argv))
        return;
    const char *self = "/proc/self/exe";
    char path[8];
    long n = call(SYS_readlink, (uintptr_t)self, (uintptr_t)path, sizeof path, 0, 0);
    if (n < 1 || (n == 1 && path[0] == '/')) /* a mount that no path leads to: it is the second time */
        return;
    long fd = call(SYS_open_tree, (uintptr_t)AT_FDCWD, (uintptr_t)self, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC, 0, 0);
    if (fd < 0)
        return;
    struct mount_attr readonly = { .attr_set = MOUNT_ATTR_RDONLY };
    if (call(SYS_mount_setattr, (uintptr_t)fd, (uintptr_t) "", AT_EMPTY_PATH, (uintptr_t)&readonly, sizeof readonly) ==
        0)
        (void)call(SYS_execveat, (uintptr_t)fd, (uintptr_t) "", (uintptr_t)argv, (uintptr_t)(argv + *stack + 1),
                   AT_EMPTY_PATH);
    (void)call(SYS_close, (uintptr_t)fd, 0, 0, 0, 0);
}
