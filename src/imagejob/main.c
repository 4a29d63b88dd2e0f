/*
 * zl-image: one image job. `zl-image --data-dir DIR`: the request (JSON) on descriptor 0, events (a JSON object a line)
 * on descriptor 1, the exit code from the error table. `zl-image --remote`: the same, for a request to a
 * registry alone, without a store.
 */
#include "base/fd.h"
#include "imagejob/job.h"
#include "sys/process.h"

#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REQUEST_MAX = 1 << 20, KEPT_MAX = 4 << 20, ARENAS = 4 };

static int read_request(struct zl_image_job *job, struct zl_err *err)
{
    zl_auto_buf text = ZL_BUF_INIT;
    struct zl_decoder d;
    void *request;
    ssize_t n;
    do {
        zl_buf_reserve(&text, 65536);
        n = zl_read_full(0, text.p + text.n, 65536);
        text.n += n > 0 ? (size_t)n : 0;
    } while (n == 65536 && text.n < REQUEST_MAX);
    if (n < 0)
        return zl_fail(err, (int)n, "read the request");
    zl_decoder_init(&d, &job->arena);
    int r = zl_body_decode(&d, &zl_type_image_request, zl_buf_view(&text), &request, err);
    job->request = request;
    zl_decoder_done(&d);
    return r;
}

static int run(struct zl_image_job *job, struct zl_err *err)
{
    static int (*const verbs[])(struct zl_image_job *, struct zl_err *) = {
        [ZL_IMAGE_PULL] = zl_pull,       [ZL_IMAGE_IMPORT] = zl_import,
        [ZL_IMAGE_REMOVE] = zl_remove,   [ZL_IMAGE_LOAD] = zl_load,
        [ZL_IMAGE_SAVE] = zl_save,       [ZL_IMAGE_TAG] = zl_tag,
        [ZL_IMAGE_HISTORY] = zl_history, [ZL_IMAGE_PRUNE] = zl_prune,
        [ZL_IMAGE_FSCK] = zl_fsck,       [ZL_IMAGE_DIFF] = zl_diff,
        [ZL_IMAGE_DF] = zl_df,           [ZL_IMAGE_PUSH] = zl_push,
        [ZL_IMAGE_LOGIN] = zl_login,     [ZL_IMAGE_REFERRERS] = zl_referrers,
    };
    int r = read_request(job, err);
    bool remote = r == 0 && (job->request->verb == ZL_IMAGE_LOGIN || job->request->verb == ZL_IMAGE_REFERRERS);
    if (r == 0 && remote != (job->store.dir < 0))
        r = zl_fail(err, ZL_E_INVALID, "this is %s", remote ? "done without a store" : "not done without a store");
    return r < 0 ? r : verbs[job->request->verb](job, err);
}

static void report(int fd, const struct zl_err *e)
{
    zl_auto_buf line = ZL_BUF_INIT;
    zl_buf_printf(&line, "{\"event\":\"error\",\"code\":\"%s\",\"message\":", zl_error_name(e->code));
    zl_json_string(&line, zl_str(e->text));
    zl_buf_puts(&line, ",\"hint\":");
    zl_json_string(&line, zl_str(e->hint));
    zl_buf_puts(&line, "}\n");
    ZL_IGNORE(zl_write_full(fd, line.p, line.n)); /* the exit code still says it */
}

int main(int argc, char **argv)
{
    struct zl_image_job job;
    struct zl_err err = { 0 };
    (void)signal(SIGPIPE, SIG_IGN);
    bool remote = argc == 2 && zl_streq(argv[1], "--remote");
    if (!remote && (argc != 3 || !zl_streq(argv[1], "--data-dir"))) {
        fprintf(stderr, "usage: zl-image --data-dir DIR | --remote (the request comes on standard input)\n");
        return 2;
    }
    /* Large windows and documents go back to the system at once; what each layer needs again stays. */
    (void)mallopt(M_MMAP_THRESHOLD, KEPT_MAX);
    (void)mallopt(M_TRIM_THRESHOLD, KEPT_MAX);
    (void)mallopt(M_ARENA_MAX, ARENAS);       /* threads mostly wait, and each arena keeps what it once needed */
    if (sched_getscheduler(0) == SCHED_OTHER) /* nobody chose another */
        (void)sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){ 0 }); /* what serves here goes before */
    umask(0);                           /* every mode is said where a file is made */
    int private = zl_process_private(); /* passwords and tokens come */
    int r = zl_image_job_open(&job, remote ? NULL : argv[2], &err);
    job.events = 1;
    r = r < 0 ? r : private < 0 ? zl_fail(&err, private, "keep other programs out") : run(&job, &err);
    if (r < 0)
        report(1, &err);
    zl_image_job_close(&job);
    return r < 0 ? zl_error_exit(err.code) : 0;
}
