/*
 * The set-up job: everything a container is made from, flat and versioned, prepared by the caller (no JSON, no profile
 * compiling in the set-up). A frame (base/frame.h, magic ZLJB) of records; unknown record types are an error here, as a
 * set-up that ignores what it was told would be less strict than asked.
 * Thread: any. Owns: a decoded job's strings are views into the bytes it was decoded from; its arrays are in the arena.
 * Fails: -EPROTO for bytes that are no job, -EMSGSIZE over 4 MiB.
 */
#pragma once

#include "base/alloc.h"
#include "base/str.h"

#include <netinet/in.h>

enum { ZL_JOB_MAGIC = 0x424a4c5a, ZL_JOB_VERSION = 1, ZL_JOB_MAX = 4 << 20 };

struct zl_job_file {
    const char *path, *content; /* absolute path inside the container */
};

struct zl_job {
    const char *id, *hostname;
    const char **argv, **env, **lowers, **masked, **readonly; /* NULL at the end; lowers top first, absolute */
    unsigned nlowers;
    struct zl_job_file *files;
    unsigned nfiles;
    const char *cwd, *user; /* user: "uid[:gid]" or names of the image's passwd and group; "" root */
    const char *cgroup_parent;
    uint64_t memory_bytes, cpu_quota_us, pids;
    uint64_t caps;         /* bits by number */
    struct zl_str seccomp; /* an array of struct sock_filter; empty: none */
    const char *netns;     /* the node's, a path; "": no network but lo */
    const char *link;      /* the node's end of the veth */
    struct in_addr addr, local;
    uint64_t log_max_bytes, log_files;
    uint64_t nofile;
};

void zl_job_encode(struct zl_buf *out, const struct zl_job *job);
int zl_job_decode(struct zl_arena *arena, struct zl_str bytes, struct zl_job *ret) ZL_MUST;
