#include "cli/commands.h"
#include "cli/node.h"
#include "cli/output.h"

#include "base/fd.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

static const struct zl_cmd *const commands[] = {
    &zl_cmd_up,      &zl_cmd_deploy,     &zl_cmd_down, &zl_cmd_stop,     &zl_cmd_exec,  &zl_cmd_status,
    &zl_cmd_ps,      &zl_cmd_logs,       &zl_cmd_pull, &zl_cmd_push,     &zl_cmd_login, &zl_cmd_logout,
    &zl_cmd_image,   &zl_cmd_validate,   &zl_cmd_spec, &zl_cmd_oci,      &zl_cmd_serve, &zl_cmd_doctor,
    &zl_cmd_version, &zl_cmd_completion, &zl_cmd_help, &zl_cmd_complete, &zl_cmd_man,   NULL,
};

static const struct zl_example examples[] = {
    { "zlayer up", "run what .zlayer.yml says; Ctrl+C stops it" },
    { "zlayer up -b", "run it in the background" },
    { "zlayer status", "what is deployed" },
    { "zlayer logs -d shop -s web -f", "follow the logs of a service" },
    { "zlayer down shop", "stop it and clean up" },
};

const struct zl_cmd zl_cmd_root = {
    .name = "zlayer",
    .summary = "Run containers from a deployment document: started, watched, healed and served",
    ZL_CMD_EXAMPLES(examples),
    .commands = commands,
};

/* The terms as they are before --color is known, so that a usage error is shown well too. */
static void init_terms(struct zl_cli *cli)
{
    zl_term_init(&cli->out, STDOUT_FILENO, cli->globals.color);
    zl_term_init(&cli->err, STDERR_FILENO, cli->globals.color);
}

static void set_log_level(unsigned verbose)
{
    static const enum zl_log_level levels[] = { ZL_LOG_WARN, ZL_LOG_INFO, ZL_LOG_DEBUG };
    zl_log_set_level(levels[ZL_MIN(verbose, 2u)]);
    zl_log_level_from_env();
}

static int fail(struct zl_cli *cli, const struct zl_err *err, int code)
{
    zl_report(&cli->err, err);
    if (code == ZL_E_USAGE) {
        zl_auto_buf usage = ZL_BUF_INIT;
        zl_usage_print(&usage, cli->path, cli->depth);
        zl_term_write(&cli->err, zl_buf_view(&usage));
    }
    if (err->code == -EACCES || err->code == -EPERM)
        return zl_error_exit(ZL_E_PERMISSION);
    return zl_error_exit(code);
}

static int run(struct zl_cli *cli, struct zl_err *err)
{
    if (cli->globals.help) {
        zl_auto_buf help = ZL_BUF_INIT;
        zl_help_print(&help, cli->path, cli->depth, cli->out.colour);
        zl_term_write(&cli->out, zl_buf_view(&help));
        return 0;
    }
    if (cli->globals.version) {
        zl_say(cli, "zlayer %s", ZL_VERSION);
        return 0;
    }
    set_log_level(cli->globals.verbose);
    return zl_cli_cmd(cli)->run(cli, cli->options, err);
}

/* A descriptor of 0..2 that is closed would be given to the next file that is opened. */
static void fill_standard_streams(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO);
    (void)zl_close(fd);
}

/* Results that could not be written are no success; some file systems say so at the end only. */
static int check_output(struct zl_cli *cli, int failed, int code)
{
    struct zl_err err = { 0 };
    if (close(STDOUT_FILENO) < 0 && errno != EINTR && !failed)
        failed = -errno;
    if (!failed)
        return code;
    int e = zl_fail(&err, failed, "write the output");
    zl_report(&cli->err, &err);
    return code ? code : zl_error_exit(e);
}

int zl_cli_main(int argc, char *const *argv)
{
    fill_standard_streams();
    (void)signal(SIGPIPE, SIG_IGN); /* zl_term_write ends the program as SIGPIPE would; sockets report EPIPE */
    struct zl_cli cli = { .root = &zl_cmd_root };
    struct zl_err err = { 0 };
    zl_arena_init(&cli.arena);
    int r = zl_options_parse(&cli, argc, argv, &err);
    init_terms(&cli);
    int failed = 0;
    cli.out.failed = &failed;
    if (r >= 0)
        r = run(&cli, &err);
    if (r < 0)
        r = fail(&cli, &err, r);
    r = check_output(&cli, failed, r);
    zl_node_done(&cli);
    zl_arena_done(&cli.arena);
    return r;
}
