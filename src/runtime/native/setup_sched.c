/* How the program is scheduled, where its memory lies, and as what kind of Linux it sees its machine. */
#include "base/macros.h"
#include "runtime/native/setup_parts.h"

#include <errno.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <unistd.h>

/* sched_setattr(2); the C library has no name for it. */
struct sched_request {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

int zl_setup_affinity(struct zl_str cpus, struct zl_setup_error *err)
{
    if (cpus.n && syscall(SYS_sched_setaffinity, 0, cpus.n, cpus.p) < 0)
        return zl_setup_fail(err, -errno, "stay on the processors of execCPUAffinity");
    return 0;
}

int zl_setup_scheduling(const struct zl_job *job, struct zl_setup_error *err)
{
    enum { WHO_PROCESS = 1 }; /* of ioprio_set(2) */
    const struct zl_job_scheduler *s = &job->scheduler;
    struct sched_request request = { sizeof request,        (uint32_t)s->policy, s->flags,    (int32_t)(int64_t)s->nice,
                                     (uint32_t)s->priority, s->runtime,          s->deadline, s->period };
    if (s->set && syscall(SYS_sched_setattr, 0, &request, 0) < 0)
        return zl_setup_fail(err, -errno, "set the scheduler");
    if (job->io_priority && syscall(SYS_ioprio_set, WHO_PROCESS, 0, (int)job->io_priority) < 0)
        return zl_setup_fail(err, -errno, "set the I/O priority");
    if (job->memory_policy && syscall(SYS_set_mempolicy, (int)(job->memory_policy - 1), job->memory_nodes.p,
                                      job->memory_nodes.n ? job->memory_nodes.n * 8 + 1 : 0) < 0)
        return zl_setup_fail(err, -errno, "set the memory policy");
    if (job->set_personality && personality((unsigned long)job->personality) < 0)
        return zl_setup_fail(err, -errno, "set the personality");
    return zl_setup_affinity(job->cpus, err);
}
