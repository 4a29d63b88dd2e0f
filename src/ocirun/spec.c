#include "ocirun/ocirun.h"

#include "base/fd.h"

#include <fcntl.h>
#include <unistd.h>

/* A shell in a root filesystem, with the rights that engines give by default. */
static const char text[] =
    "{\n"
    "  \"ociVersion\": \"1.2.0\",\n"
    "  \"process\": {\n"
    "    \"user\": { \"uid\": 0, \"gid\": 0 },\n"
    "    \"args\": [ \"sh\" ],\n"
    "    \"env\": [ \"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\" ],\n"
    "    \"cwd\": \"/\",\n"
    "    \"capabilities\": {\n"
    "      \"bounding\": [ \"CAP_AUDIT_WRITE\", \"CAP_KILL\", \"CAP_NET_BIND_SERVICE\" ],\n"
    "      \"effective\": [ \"CAP_AUDIT_WRITE\", \"CAP_KILL\", \"CAP_NET_BIND_SERVICE\" ],\n"
    "      \"permitted\": [ \"CAP_AUDIT_WRITE\", \"CAP_KILL\", \"CAP_NET_BIND_SERVICE\" ]\n"
    "    },\n"
    "    \"rlimits\": [ { \"type\": \"RLIMIT_NOFILE\", \"hard\": 1024, \"soft\": 1024 } ],\n"
    "    \"noNewPrivileges\": true\n"
    "  },\n"
    "  \"root\": { \"path\": \"rootfs\", \"readonly\": true },\n"
    "  \"hostname\": \"zl-oci\",\n"
    "  \"mounts\": [\n"
    "    { \"destination\": \"/proc\", \"type\": \"proc\", \"source\": \"proc\" },\n"
    "    { \"destination\": \"/dev\", \"type\": \"tmpfs\", \"source\": \"tmpfs\",\n"
    "      \"options\": [ \"nosuid\", \"strictatime\", \"mode=755\", \"size=65536k\" ] },\n"
    "    { \"destination\": \"/dev/pts\", \"type\": \"devpts\", \"source\": \"devpts\",\n"
    "      \"options\": [ \"nosuid\", \"noexec\", \"newinstance\", \"ptmxmode=0666\", \"mode=0620\"%s ] },\n"
    "    { \"destination\": \"/dev/shm\", \"type\": \"tmpfs\", \"source\": \"shm\",\n"
    "      \"options\": [ \"nosuid\", \"noexec\", \"nodev\", \"mode=1777\", \"size=65536k\" ] },\n"
    "    { \"destination\": \"/dev/mqueue\", \"type\": \"mqueue\", \"source\": \"mqueue\", \"options\": [ \"nosuid\", "
    "\"noexec\", \"nodev\" ] },\n"
    "%s,\n"
    "    { \"destination\": \"/sys/fs/cgroup\", \"type\": \"cgroup\", \"source\": \"cgroup\",\n"
    "      \"options\": [ \"nosuid\", \"noexec\", \"nodev\", \"relatime\", \"ro\" ] }\n"
    "  ],\n"
    "  \"linux\": {\n"
    "    \"namespaces\": [ { \"type\": \"pid\" }, %s, { \"type\": \"ipc\" }, { \"type\": "
    "\"uts\" },\n"
    "                    { \"type\": \"mount\" }, { \"type\": \"cgroup\" } ],\n"
    "%s"
    "    \"maskedPaths\": [ \"/proc/acpi\", \"/proc/asound\", \"/proc/kcore\", \"/proc/keys\", "
    "\"/proc/latency_stats\",\n"
    "                     \"/proc/timer_list\", \"/proc/timer_stats\", \"/proc/sched_debug\", \"/proc/scsi\", "
    "\"/sys/firmware\" ],\n"
    "    \"readonlyPaths\": [ \"/proc/bus\", \"/proc/fs\", \"/proc/irq\", \"/proc/sys\", \"/proc/sysrq-trigger\" ]\n"
    "  }\n"
    "}\n";

/* Without root: no network of its own, so the machine's /sys is bound; one user, the caller, who is root inside. */
static const char new_sys[] = "    { \"destination\": \"/sys\", \"type\": \"sysfs\", \"source\": \"sysfs\",\n"
                              "      \"options\": [ \"nosuid\", \"noexec\", \"nodev\", \"ro\" ] }";
static const char bound_sys[] = "    { \"destination\": \"/sys\", \"type\": \"none\", \"source\": \"/sys\",\n"
                                "      \"options\": [ \"rbind\", \"nosuid\", \"noexec\", \"nodev\", \"ro\" ] }";
static const char mappings[] = "    \"uidMappings\": [ { \"containerID\": 0, \"hostID\": %u, \"size\": 1 } ],\n"
                               "    \"gidMappings\": [ { \"containerID\": 0, \"hostID\": %u, \"size\": 1 } ],\n";

int ocirun_spec(struct ocirun *r, const char *unused)
{
    (void)unused;
    const char *path = zl_arena_printf(&r->arena, "%s/config.json", r->o.bundle ? r->o.bundle : ".");
    zl_auto_buf out = ZL_BUF_INIT;
    if (r->o.spec_rootless)
        zl_buf_printf(&out, text, "", bound_sys, "{ \"type\": \"user\" }",
                      zl_arena_printf(&r->arena, mappings, (unsigned)geteuid(), (unsigned)getegid()));
    else
        zl_buf_printf(&out, text, ", \"gid=5\"", new_sys, "{ \"type\": \"network\" }", "");
    zl_auto_close int fd = zl_openat(AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    int e = fd < 0 ? fd : zl_write_full(fd, out.p, out.n);
    return e < 0 ? zl_fail(&r->err, e, "write %s", path) : 0;
}
