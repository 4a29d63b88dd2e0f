/*
 * The command line: one table of verbs (the caller's) and one of options, from which parsing and usage come. Options of
 * the program stand before the verb or behind it, a verb's own behind it, as runc and crun take them.
 */
#include "ocirun/ocirun.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum option_kind {
    TEXT,
    FLAG,
    STRINGS, /* may be said again */
    IGNORED, /* a value that changes nothing */
    NO_FLAG  /* a flag that changes nothing */
};

#define AT(member) offsetof(struct ocirun_options, member)
#define EVERY      NULL

/* A verb's own row comes before a row of all verbs of the same name. */
static const struct option {
    const char *verbs; /* EVERY: it may stand before the verb, too */
    const char *name, *letter;
    enum option_kind kind;
    size_t at;
    const char *value, *help;
} options[] = {
    { "spec", "rootless", NULL, FLAG, AT(spec_rootless), NULL, "for a caller who is not root" },
    { EVERY, "root", NULL, TEXT, AT(root), "DIR", "where the containers' states are (/run/zl-oci)" },
    { EVERY, "log", NULL, TEXT, AT(log), "FILE", "append errors to this file, too" },
    { EVERY, "log-format", NULL, TEXT, AT(log_format), "text|json", "how the log is written" },
    { EVERY, "debug", NULL, FLAG, AT(debug), NULL, "log what is called, too" },
    { EVERY, "systemd-cgroup", NULL, FLAG, AT(systemd_cgroup), NULL, "cgroups are made by systemd" },
    { EVERY, "cgroup-manager", NULL, TEXT, AT(cgroup_manager), "MANAGER",
      "cgroupfs, systemd or disabled, as crun has it" },
    { EVERY, "rootless", NULL, TEXT, AT(rootless), "true|false|auto", "taken; what may be done is found out" },
    { EVERY, "log-level", NULL, TEXT, AT(log_level), "LEVEL", "error, warning or debug, which is --debug" },
    { EVERY, "criu", NULL, IGNORED, 0, "PATH", "taken; there are no checkpoints" },
    { "create run spec", "bundle", "b", TEXT, AT(bundle), "DIR", "where config.json is (the working folder)" },
    { "create run", "config", "f", TEXT, AT(config), "FILE", "the document, instead of the bundle's config.json" },
    { "create run exec", "pid-file", NULL, TEXT, AT(pid_file), "FILE", "write the process's number there" },
    { "create run exec", "pidfd-socket", NULL, TEXT, AT(pidfd_socket), "SOCKET", "send a pidfd of the process there" },
    { "create run exec", "console-socket", NULL, TEXT, AT(console_socket), "SOCKET", "send the terminal there" },
    { "create run exec", "preserve-fds", NULL, TEXT, AT(preserve_fds), "N",
      "so many open files from 3 on are its, too" },
    { "create run", "no-pivot", NULL, NO_FLAG, 0, NULL, "taken; the root is always pivoted to" },
    { "create run", "no-new-keyring", NULL, FLAG, AT(no_new_keyring), NULL, "keep the caller's session keyring" },
    { "run exec", "detach", "d", FLAG, AT(detach), NULL, "do not wait for its end" },
    { "run", "keep", NULL, FLAG, AT(keep), NULL, "do not delete it at its end" },
    { "run", "no-subreaper", NULL, NO_FLAG, 0, NULL, "taken; run never reaps what is not its own" },
    { "exec", "process", "p", TEXT, AT(process), "FILE", "the process as a document, instead of a command" },
    { "exec", "tty", "t", FLAG, AT(tty), NULL, "on a terminal" },
    { "exec", "cwd", NULL, TEXT, AT(cwd), "DIR", "its working folder" },
    { "exec", "env", "e", STRINGS, AT(env), "NAME=VALUE", "a variable more" },
    { "exec", "user", "u", TEXT, AT(user), "UID[:GID]", "who it runs as" },
    { "exec", "additional-gids", "g", STRINGS, AT(gids), "GID", "a group more" },
    { "exec", "cap", "c", STRINGS, AT(caps), "NAME", "a capability more" },
    { "exec", "no-new-privs", NULL, FLAG, AT(no_new_privs), NULL, "no rights are gained by what it executes" },
    { "exec", "apparmor", NULL, TEXT, AT(apparmor), "PROFILE", "its AppArmor profile" },
    { "exec", "process-label", NULL, TEXT, AT(process_label), "LABEL", "its SELinux label" },
    { "exec", "cgroup", NULL, STRINGS, AT(cgroups), "PATH",
      "in this group below the container's; also CONTROLLER,…:PATH" },
    { "exec", "ignore-paused", NULL, FLAG, AT(ignore_paused), NULL, "in a paused container, too: it waits there" },
    { "kill", "all", "a", FLAG, AT(all), NULL, "every process in it" },
    { "delete", "force", "f", FLAG, AT(force), NULL, "kill it first; nothing to delete is fine" },
    { "list", "quiet", "q", FLAG, AT(quiet), NULL, "the names only" },
    { "list ps", "format", "f", TEXT, AT(format), "table|json", "how it is printed" },
    { "update", "resources", "r", TEXT, AT(resources), "FILE", "linux.resources as a document; -: standard input" },
    { "update", "memory", "m", TEXT, AT(memory), "BYTES", "-1: any" },
    { "update", "memory-swap", NULL, TEXT, AT(memory_swap), "BYTES", "memory and swap together; -1: any" },
    { "update", "cpu-quota", NULL, TEXT, AT(cpu_quota), "USEC", "of processor time in a period; -1: any" },
    { "update", "cpu-period", NULL, TEXT, AT(cpu_period), "USEC", "how long a period is" },
    { "update", "cpu-share", NULL, TEXT, AT(cpu_shares), "N", "its weight beside others" },
    { "update", "memory-reservation", NULL, TEXT, AT(memory_reservation), "BYTES",
      "what it is left with when all want more" },
    { "update", "kernel-memory", NULL, TEXT, AT(kernel_memory), "BYTES", "where the kernel counts that apart" },
    { "update", "kernel-memory-tcp", NULL, TEXT, AT(kernel_memory_tcp), "BYTES", "the same, of TCP buffers" },
    { "update", "cpu-burst", NULL, TEXT, AT(cpu_burst), "USEC", "what may be saved up of unused time" },
    { "update", "cpu-rt-period", NULL, TEXT, AT(cpu_rt_period), "USEC", "a period of real-time processes" },
    { "update", "cpu-rt-runtime", NULL, TEXT, AT(cpu_rt_runtime), "USEC", "their time in it" },
    { "update", "cpu-idle", NULL, TEXT, AT(cpu_idle), "0|1", "1: runs only where nothing else does" },
    { "update", "cpuset-cpus", NULL, TEXT, AT(cpus), "LIST", "its processors" },
    { "update", "cpuset-mems", NULL, TEXT, AT(mems), "LIST", "its memory nodes" },
    { "update", "blkio-weight", NULL, TEXT, AT(blkio_weight), "N", "its weight at the disks, 10 to 1000" },
    { "update", "l3-cache-schema", NULL, TEXT, AT(l3), "SCHEMA", "its class's part of the L3 cache: L3:0=f;1=f" },
    { "update", "mem-bw-schema", NULL, TEXT, AT(bandwidth), "SCHEMA", "its class's memory bandwidth: MB:0=20;1=70" },
    { "update", "pids-limit", NULL, TEXT, AT(pids), "N", "-1: any" },
    { "events", "stats", NULL, FLAG, AT(stats), NULL, "once" },
    { "events", "interval", NULL, TEXT, AT(interval), "TIME", "how often (5s)" },
};

static bool is_for(const struct option *o, const char *verb)
{
    if (o->verbs == EVERY)
        return true;
    for (struct zl_str rest = zl_str(o->verbs); verb && rest.p;)
        if (zl_str_is(zl_str_cut(rest, ' ', &rest), verb))
            return true;
    return false;
}

static int set_flag(struct ocirun *r, const char *word, const char *value, bool *ret)
{
    bool on = !value || zl_streq(value, "true") || zl_streq(value, "1");
    if (!on && !zl_streq(value, "false") && !zl_streq(value, "0"))
        return zl_fail(&r->err, ZL_E_USAGE, "%.40s is true or false", word);
    *ret = on;
    return 0;
}

/* `word` is the option as it was said; `next` the word behind it, which may be its value. */
static int take_option(struct ocirun *r, const char *word, const char *next, bool *ret_used)
{
    bool is_long = word[1] == '-';
    struct zl_str value, name = zl_str_cut(zl_str(word + (is_long ? 2 : 1)), '=', &value);
    const struct option *o = NULL;
    bool known = false;
    *ret_used = false;
    for (size_t i = 0; i < ZL_ARRAY_LEN(options) && !o; i++) {
        const char *its = is_long ? options[i].name : options[i].letter;
        if (!its || !zl_str_is(name, its))
            continue;
        known = true;
        if (is_for(&options[i], r->verb))
            o = &options[i];
    }
    if (!o && known && !r->verb)
        return zl_fail(&r->err, ZL_E_USAGE, "%.60s belongs behind the verb", word);
    if (!o)
        return zl_fail(&r->err, ZL_E_USAGE,
                       known ? "%.60s is no option of %s" : "there is no option %.60s: zl-oci %s%s--help lists them",
                       word, r->verb ? r->verb : "", r->verb ? " " : "");
    char *at = (char *)&r->o + o->at;
    if (o->kind == FLAG || o->kind == NO_FLAG) {
        bool unused;
        return set_flag(r, word, value.p, o->kind == FLAG ? (bool *)(void *)at : &unused);
    }
    const char *text = value.p ? value.p : next;
    if (!text)
        return zl_fail(&r->err, ZL_E_USAGE, "%.60s needs a value", word);
    *ret_used = !value.p;
    if (o->kind == TEXT)
        *(const char **)(void *)at = text;
    if (o->kind == STRINGS) {
        struct zl_strings *s = (struct zl_strings *)(void *)at;
        s->v[s->n++] = text;
    }
    return 0;
}

/* What only some words are for. */
static int check_values(struct ocirun *r)
{
    static const struct {
        const char *name;
        size_t at;
        const char *words[5];
    } choices[] = { { "--format", AT(format), { "table", "json" } },
                    { "--log-level", AT(log_level), { "error", "warning", "debug" } },
                    { "--log-format", AT(log_format), { "text", "json" } },
                    { "--cgroup-manager", AT(cgroup_manager), { "cgroupfs", "systemd", "disabled" } },
                    { "--rootless", AT(rootless), { "true", "false", "auto" } } };
    for (size_t i = 0; i < ZL_ARRAY_LEN(choices); i++) {
        const char *said = *(const char **)(void *)((char *)&r->o + choices[i].at), *const *words = choices[i].words;
        bool good = !said;
        for (unsigned k = 0; !good && words[k]; k++)
            good = zl_streq(said, words[k]);
        if (!good)
            return zl_fail(&r->err, ZL_E_USAGE, "%s is %s%s%s%s%s, not '%.40s'", choices[i].name, words[0],
                           words[2] ? ", " : " or ", words[1], words[2] ? " or " : "", words[2] ? words[2] : "", said);
    }
    r->o.json = r->o.format && zl_streq(r->o.format, "json");
    r->o.log_json = r->o.log_format && zl_streq(r->o.log_format, "json");
    r->o.no_cgroup = r->o.cgroup_manager && zl_streq(r->o.cgroup_manager, "disabled");
    r->o.debug |= r->o.log_level && zl_streq(r->o.log_level, "debug");
    r->o.systemd_cgroup |= r->o.cgroup_manager && zl_streq(r->o.cgroup_manager, "systemd");
    return 0;
}

enum { PRESERVED_MAX = 1024 };

/* Sockets that are meant for us (sd_listen_fds(3)) are for the container: engines are activated so, and pass it on. */
static int take_listened(struct ocirun *r)
{
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    uint64_t n, to;
    bool makes = zl_streq(r->verb, "create") || zl_streq(r->verb, "run");
    if (!makes || !pid || !fds || zl_parse_u64(zl_str(pid), 1, INT32_MAX, &to) < 0 || to != (uint64_t)getpid())
        return 0;
    if (zl_parse_u64(zl_str(fds), 0, PRESERVED_MAX, &n) < 0)
        return zl_fail(&r->err, ZL_E_USAGE, "LISTEN_FDS is a number from 0 to %d, not '%.20s'", PRESERVED_MAX, fds);
    r->o.listen = n ? fds : NULL;
    r->o.preserved += n;
    return 0;
}

/* Files that the caller left open for the program: looked at before we open any of our own, which must not be taken
 * for them. */
static int check_preserved(struct ocirun *r)
{
    const char *text = r->o.preserve_fds;
    if (text && zl_parse_u64(zl_str(text), 0, PRESERVED_MAX, &r->o.preserved) < 0)
        return zl_fail(&r->err, ZL_E_USAGE, "--preserve-fds is a number from 0 to %d, not '%.20s'", PRESERVED_MAX,
                       text);
    int e = take_listened(r);
    for (uint64_t i = 0; i < r->o.preserved && e == 0; i++)
        if (fcntl(3 + (int)i, F_SETFD, 0) < 0)
            e = zl_fail(&r->err, ZL_E_USAGE, "%s %s: there is no open file %d",
                        r->o.listen ? "LISTEN_FDS" : "--preserve-fds", r->o.listen ? r->o.listen : text, 3 + (int)i);
    return e;
}

static int take_word(struct ocirun *r, const struct ocirun_verb *verbs, const char *word,
                     const struct ocirun_verb **verb)
{
    if (*verb) {
        if (r->o.words.n == (unsigned)(*verb)->max)
            return zl_fail(&r->err, ZL_E_USAGE, "'%.40s' is one argument too many: %s %s", word, r->verb,
                           (*verb)->max ? (*verb)->words : "takes none");
        r->o.words.v[r->o.words.n++] = word;
        return 0;
    }
    for (; verbs->name && !*verb; verbs++)
        if (zl_streq(word, verbs->name))
            *verb = verbs;
    if (!*verb)
        return zl_fail(&r->err, ZL_E_USAGE, "there is no verb '%.40s': zl-oci --help lists them", word);
    r->verb = word;
    return 0;
}

static bool asks_for_help(const char *word)
{
    return zl_streq(word, "--help") || zl_streq(word, "-h");
}

int ocirun_parse(struct ocirun *r, const struct ocirun_verb *verbs, int argc, char **argv,
                 const struct ocirun_verb **ret)
{
    const struct ocirun_verb *verb = NULL;
    struct zl_strings *lists[] = { &r->o.words, &r->o.env, &r->o.gids, &r->o.caps, &r->o.cgroups };
    for (size_t i = 0; i < ZL_ARRAY_LEN(lists); i++)
        lists[i]->v = zl_arena_alloc(&r->arena, (size_t)argc * sizeof *lists[i]->v);
    bool take = true;
    for (int i = 1; i < argc; i++) {
        bool used = false;
        /* Behind the id, the words are the command's, whatever they look like. */
        if (verb && verb->rest && r->o.words.n == 1) {
            i += zl_streq(argv[i], "--") && take;
            r->o.command = (struct zl_strings){ (const char **)(void *)(argv + i), (unsigned)(argc - i) };
            break;
        }
        if (take && zl_streq(argv[i], "--")) {
            take = false;
            continue;
        }
        if (take && asks_for_help(argv[i])) {
            r->o.help = true;
            *ret = verb;
            return 0;
        }
        int e = take && argv[i][0] == '-' && argv[i][1]
                    ? take_option(r, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used)
                    : take_word(r, verbs, argv[i], &verb);
        if (e < 0)
            return e;
        i += used;
        if (verb && verb->refused) /* whatever else is said */
            break;
    }
    if (!verb)
        return zl_fail(&r->err, ZL_E_USAGE, "there is no verb: zl-oci --help lists them");
    if (r->o.words.n < (unsigned)verb->min)
        return zl_fail(&r->err, ZL_E_USAGE, "%s takes %s", verb->name, verb->words);
    *ret = verb;
    int e = check_preserved(r);
    return e < 0 ? e : check_values(r);
}

static void say_options(FILE *to, const char *verb)
{
    for (size_t i = 0; i < ZL_ARRAY_LEN(options); i++) {
        const struct option *o = &options[i];
        char left[64];
        if (verb ? o->verbs == EVERY || !is_for(o, verb) : o->verbs != EVERY)
            continue;
        snprintf(left, sizeof left, "%s%s%s--%s%s%s", o->letter ? "-" : "", o->letter ? o->letter : "",
                 o->letter ? ", " : "    ", o->name, o->value ? " " : "", o->value ? o->value : "");
        fprintf(to, "    %-32s %s\n", left, o->help);
    }
}

void ocirun_usage(FILE *to, const struct ocirun_verb *verbs, const struct ocirun_verb *only)
{
    if (!only)
        fprintf(to, "usage: zl-oci [OPTION]… VERB [OPTION]… [ARGUMENT]…\n       zl-oci --version\n\noptions\n");
    if (!only)
        say_options(to, NULL);
    for (const struct ocirun_verb *v = only ? only : verbs; v->name; v++) {
        fprintf(to, only ? "usage: zl-oci [OPTION]… %s %s\n\n%s\n" : "\n%s %s\n  %s\n", v->name, v->words, v->help);
        say_options(to, v->name);
        if (only)
            break;
    }
}
