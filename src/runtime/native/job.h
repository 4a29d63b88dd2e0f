/*
 * The set-up job: everything a container is made from, flat and versioned, prepared by the caller (no JSON, no profile
 * compiling in the set-up). A frame (base/frame.h, magic ZLJB) of records, by one table for both directions; unknown
 * record types are an error here, as a set-up that ignores what it was told would be less strict than asked.
 * Thread: any. Owns: the arena owns a decoded job's strings and arrays, `seccomp` is a view into the decoded bytes.
 * Fails: -EPROTO for bytes that are no job, -EMSGSIZE over 4 MiB.
 */
#pragma once

#include "base/alloc.h"
#include "base/str.h"

#include <netinet/in.h>

enum { ZL_JOB_MAGIC = 0x424a4c5a, ZL_JOB_VERSION = 3, ZL_JOB_MAX = 4 << 20 };

struct zl_job_namespace {
    uint64_t kind;    /* CLONE_NEW… */
    const char *path; /* the one to join; "": a new one. A kind that is not listed is the caller's. */
};

struct zl_job_mount {
    const char *target, *source, *type, *data; /* target: a path inside the container; type "": a bind mount's */
    uint64_t flags;                /* MS_… of mount(2); the kernel takes most of a bind mount's in a second call */
    uint64_t propagation;          /* MS_SHARED, … with MS_REC or not; 0: as it is */
    uint64_t copy_up;              /* what the target held is copied in */
    uint64_t attr_set, attr_clear; /* MOUNT_ATTR_… of mount_setattr(2), for all mounts of the tree */
    uint64_t idmap;                /* of a bind mount: its owners are mapped; MS_REC with the mounts below, 0 not */
    const char *uid_map, *gid_map; /* how, in the form of /proc/PID/uid_map; "": as the container's user namespace */
};

struct zl_job_device {
    const char *path;
    uint64_t mode; /* with its type, S_IFCHR and so on */
    uint64_t major, minor, uid, gid;
};

struct zl_job_pair {
    const char *name, *value;
};

struct zl_job_group {
    uint64_t gid;
};

struct zl_job_rlimit {
    uint64_t resource, soft, hard;
};

struct zl_job_caps {
    uint64_t bounding, effective, permitted, inheritable, ambient; /* bits by number */
};

struct zl_job_scheduler {                                                   /* sched_setattr(2), by its names */
    uint64_t set, policy, flags, nice, priority, runtime, deadline, period; /* nice: an int64 */
};

struct zl_job {
    const char *id, *hostname, *domainname; /* names "": unchanged */
    const char **argv, **env;               /* all such lists: NULL at the end */

    const char *rootfs;  /* the root: this folder; "": an overlay of */
    const char **lowers; /* these, top first, absolute, and of upper/ in the working folder */
    uint64_t nlowers;
    uint64_t root_readonly, root_propagation; /* propagation: MS_…; 0: private */
    struct zl_job_namespace *namespaces;
    uint64_t nnamespaces;
    const char *uid_map, *gid_map; /* of a new user namespace, in the form of /proc/PID/uid_map */
    const char *time_offsets;      /* of a new time namespace, in the form of /proc/PID/timens_offsets */
    struct zl_job_pair *links_in;  /* network links that are moved in: their name, and that inside */
    uint64_t nlinks_in;
    struct zl_job_mount *mounts; /* in this order */
    uint64_t nmounts;
    struct zl_job_device *devices;
    uint64_t ndevices;
    struct zl_job_pair *links; /* symbolic links: path, target */
    uint64_t nlinks;
    struct zl_job_pair *files; /* path and content; what is there is replaced */
    uint64_t nfiles;
    const char **masked, **readonly; /* paths; what is not there is passed over */

    const char *cwd, *user; /* user: "uid[:gid]" or names of the image's passwd and group; "" root */
    uint64_t
        exact_user; /* user is "uid:gid", the groups are these, and any user has the capabilities; else root only */
    struct zl_job_group *groups;
    uint64_t ngroups;
    uint64_t umask;
    const char *oom_score_adj; /* "": unchanged */
    struct zl_job_caps caps;
    struct zl_job_pair *sysctls; /* "net/ipv4/ip_forward" */
    uint64_t nsysctls;
    struct zl_job_rlimit *rlimits;
    uint64_t nrlimits;
    uint64_t terminal, rows, columns; /* the program gets a pseudo-terminal; its size, 0: the kernel's */
    uint64_t no_new_privs;
    struct zl_str seccomp; /* an array of struct sock_filter; empty: none */
    uint64_t seccomp_flags;
    uint64_t seccomp_listener;      /* the filter's listener is handed to who starts the program */
    const char *apparmor, *selinux; /* "": none */
    struct zl_job_scheduler scheduler;
    uint64_t io_priority;                  /* ioprio_set(2); 0: as it is */
    uint64_t set_personality, personality; /* personality(2) */
    struct zl_str cpus_entering, cpus;     /* cpu_set_t: of who enters for an exec, and of the program; empty: any */
    uint64_t memory_policy;                /* the mode of set_mempolicy(2) + 1; 0: as it is */
    struct zl_str memory_nodes;            /* its mask */
    uint64_t preserve_fds;                 /* so many from 3 on stay open in the program */
    uint64_t keep_keyring;                 /* the caller's session keyring is the program's, too */

    const char *cgroup_parent;
    uint64_t memory_bytes, cpu_quota_us, pids;

    const char *netns;    /* the node's, a path; "": no link to it */
    const char *link;     /* the node's end of the veth */
    uint64_t addr, local; /* IPv4, in_addr_t */
    uint64_t log_max_bytes, log_files;
    uint64_t user_xattr;      /* overlayfs keeps its own attributes as user.overlay.*: in a user namespace */
    const char *fuse_overlay; /* of a container under a shim: the program that stacks layers, as the kernel does not */
    uint64_t open_stdin;      /* of a container under a shim: its input is a pipe or the terminal, else nothing */
};

void zl_job_encode(struct zl_buf *out, const struct zl_job *job);
int zl_job_decode(struct zl_arena *arena, struct zl_str bytes, struct zl_job *ret) ZL_MUST;
