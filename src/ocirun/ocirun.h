/*
 * zl-oci: the OCI runtime command line (runtime-spec, runtime.md) over the set-up library. Single-threaded; a command
 * ends, the container stays. What the files of this room share. Owns: the command's arena. Fails: zl_err.
 */
#pragma once

#include "oci/runtime_config.h"
#include "runtime/native/setup.h"

#include <stdio.h>

#ifndef ZLAYER_VERSION
#define ZLAYER_VERSION "0"
#endif

enum ocirun_status { OCIRUN_CREATED, OCIRUN_RUNNING, OCIRUN_PAUSED, OCIRUN_STOPPED };
extern const char *const ocirun_status_names[];

/* What the command line said; the table in options.c tells what each is. */
struct ocirun_options {
    const char *root, *log, *log_format, *cgroup_manager, *rootless;
    const char *log_level;
    const char *bundle, *config, *pid_file, *pidfd_socket, *console_socket, *format;
    const char *process, *cwd, *user, *apparmor, *process_label;                   /* of exec */
    const char *preserve_fds;                                                      /* of create, run, exec */
    const char *resources, *interval;                                              /* of update and events */
    const char *memory, *memory_swap, *cpu_quota, *cpu_period, *cpu_shares, *pids; /* of update, instead of a file */
    const char *memory_reservation, *kernel_memory, *kernel_memory_tcp, *cpu_burst, *cpu_rt_period, *cpu_rt_runtime;
    const char *cpu_idle, *cpus, *mems, *blkio_weight, *l3, *bandwidth;
    struct zl_strings words;                    /* what the verb is given: the id first */
    struct zl_strings command;                  /* of exec, options of ps */
    struct zl_strings env, gids, caps, cgroups; /* of exec */
    bool debug, detach, keep, force, all, quiet, tty, stats, no_new_privs, no_new_keyring, ignore_paused, spec_rootless;
    uint64_t preserved; /* --preserve-fds, and LISTEN_FDS: they were open when we began */
    const char *listen; /* how many of them are sockets that the caller listens at (sd_listen_fds(3)); NULL: none */
    bool help, log_json, json, systemd_cgroup, no_cgroup;
};

/* What <root>/<id>/state.json says; the rest of a state is looked up. */
struct ocirun_state {
    const char *id, *version, *bundle, *rootfs, *cgroup_parent, *cgroup_name, *created, *boot_id;
    int64_t pid, start_time;     /* pid 0: it was never made whole */
    const char *unit;            /* of systemd, when that manages its cgroup; else NULL or "" */
    const char *program;         /* zl-systemd, which a sealed copy of us could not find */
    bool unit_user;              /* of the user's systemd */
    int64_t controllers;         /* the groups that it has beside the usual ones: 1 << zl_controller */
    const char *rdt_class;       /* its folder in resctrl; "", of older ones NULL: none */
    int64_t rdt;                 /* OCIRUN_RDT_… */
    struct zl_items annotations; /* of struct zl_oci_pair */
};
enum { OCIRUN_RDT_OWN = 1, OCIRUN_RDT_MONITORED = 2 }; /* made for it alone; with a group that counts */

/* Where a process's terminal is sent; -EBADF: nowhere. */
struct ocirun_console {
    int theirs, ours; /* a socket for the process; the other end, when the terminal is carried by us */
};

struct ocirun {
    struct ocirun_console console;
    struct ocirun_options o;
    const char *verb;
    int log; /* --log, or -EBADF */
    struct zl_arena arena;
    struct zl_err err;
};

struct ocirun_verb {
    const char *name, *words, *help;
    int min, max; /* how many words it is given */
    int (*fn)(struct ocirun *r, const char *id);
    bool enters;  /* a container: it runs from a sealed copy */
    bool rest;    /* behind the id all belongs to a command */
    bool refused; /* has no help either */
};

/* --- options.c: the command line --- */
/* `verbs` ends with a row without a name. `r->o.help`: help was asked for, of *ret or (NULL) of all. */
int ocirun_parse(struct ocirun *r, const struct ocirun_verb *verbs, int argc, char **argv,
                 const struct ocirun_verb **ret) ZL_MUST;
void ocirun_usage(FILE *to, const struct ocirun_verb *verbs, const struct ocirun_verb *only);

/* --- log.c: the file of --log --- */
int ocirun_open_log(struct ocirun *r, int argc, char **argv) ZL_MUST;
/* A line there, if there is a log. Only level "error" is read as a failure. */
void ocirun_log(const struct ocirun *r, const char *level, const char *fmt, ...) ZL_PRINTF(3, 4);

/* --- state.c: the folder of a container, <root>/<id> --- */
int ocirun_check_id(const char *id, struct zl_err *err) ZL_MUST;
/* Makes the folder; ZL_E_EXISTS. Returns its descriptor. */
int ocirun_make_folder(struct ocirun *r, const char *id) ZL_MUST;
int ocirun_open_folder(struct ocirun *r, const char *id) ZL_MUST;
int ocirun_remove_folder(struct ocirun *r, const char *id) ZL_MUST;
int ocirun_write_state(struct ocirun *r, int folder, const struct ocirun_state *s) ZL_MUST;
/* Of what state.json says; ZL_E_RUNTIME when it is damaged. */
int ocirun_parse_state(struct zl_arena *arena, struct zl_str text, struct ocirun_state **ret,
                       struct zl_err *err) ZL_MUST;
int ocirun_read_state(struct ocirun *r, int folder, const char *id, struct ocirun_state **ret) ZL_MUST;
int ocirun_status(struct ocirun *r, const struct ocirun_state *s, int folder, enum ocirun_status *ret) ZL_MUST;
/* Its cgroup, as it is or would be. */
int ocirun_cgroup(const struct ocirun_state *s, struct zl_cgroup *ret) ZL_MUST;
int ocirun_show(struct ocirun *r, const struct ocirun_state *s, int folder, struct zl_value **ret) ZL_MUST;
/* The specification's part of it, with this status. */
struct zl_value *ocirun_show_as(struct ocirun *r, const struct ocirun_state *s, const char *status, int64_t pid);

/* --- translate.c: a config into a set-up job --- */
/* `process`: instead of the config's, for exec; NULL: the config's. */
int ocirun_job(struct ocirun *r, const struct zl_oci_runtime *c, const struct zl_oci_process *process,
               const char *bundle, const char *id, struct zl_job *ret) ZL_MUST;
/* "/a/b/c" or "a/b/c" as parent and name; without one: zl-oci-<id>. */
int ocirun_cgroup_path(struct ocirun *r, const char *path, const char *id, const char **parent,
                       const char **name) ZL_MUST;

/* --- systemd.c: cgroups that systemd manages --- */
/* Before the program runs on as a copy that no path leads to. */
void ocirun_remember_folder(void);
/* An ordinary user, also one who is root of a user namespace: with a state folder and a systemd of the own. */
bool ocirun_is_user(void);
/* Sets s->program. */
int ocirun_systemd_find(struct ocirun *r, struct ocirun_state *s) ZL_MUST;
/* Starts s->unit with the process in it; s->cgroup_parent and _name are where that is. */
int ocirun_systemd_start(struct ocirun *r, struct ocirun_state *s, struct zl_value *properties, pid_t pid) ZL_MUST;
int ocirun_systemd_set(struct ocirun *r, const struct ocirun_state *s, const struct zl_value *properties) ZL_MUST;
/* Kills what is in the unit and forgets it; one that has gone is no error. */
int ocirun_systemd_stop(struct ocirun *r, const struct ocirun_state *s) ZL_MUST;
/* A process into the unit, which the caller may not move there. */
int ocirun_systemd_attach(struct ocirun *r, const struct ocirun_state *s, pid_t pid) ZL_MUST;

/* What is translated, and into what. */
struct ocirun_translation {
    struct ocirun *r;
    const struct zl_oci_runtime *c;
    struct zl_job *job;
};
/* --- process.c, mounts.c --- */
int ocirun_process(struct ocirun_translation *t, const struct zl_oci_process *p) ZL_MUST;
int ocirun_mounts(struct ocirun_translation *t, const char *bundle) ZL_MUST;
const char **ocirun_words(struct zl_arena *a, const struct zl_strings *s);
/* Mappings in the form of /proc/PID/uid_map. */
int ocirun_map(struct ocirun_translation *t, const char *what, const struct zl_items *maps, const char **ret) ZL_MUST;
/* "0-3,7" as a set of bits of that many bytes. */
int ocirun_bits(struct zl_arena *a, const char *list, size_t size, struct zl_str *ret) ZL_MUST;

/* --- seccomp.c --- */
struct ocirun_name {
    const char *name;
    uint64_t flag;
};
extern const struct ocirun_name ocirun_seccomp_flags[]; /* a name of NULL at the end */
/* Of a name behind SCMP_ARCH_, as libseccomp has it; 0: it does not know it. */
uint32_t ocirun_seccomp_arch(const char *name);
/* --- translate.c: linux.memoryPolicy's --- */
extern const struct ocirun_name ocirun_memory_modes[], ocirun_memory_flags[];
/* Compiles a profile into the job's filter, in the arena. */
int ocirun_seccomp(struct ocirun *r, const struct zl_oci_seccomp *s, struct zl_job *job) ZL_MUST;
/* --- filter_cache.c --- */
/* The filter of such a profile, when it was compiled before; in the arena. */
bool ocirun_cached_filter(struct ocirun *r, const struct zl_oci_seccomp *s, struct zl_str *ret);
void ocirun_keep_filter(struct ocirun *r, const struct zl_oci_seccomp *s, struct zl_str filter);

/* Who gets the listener of a filter with SCMP_ACT_NOTIFY: linux.seccomp.listenerPath. */
struct ocirun_listener {
    struct ocirun *r;
    const struct zl_oci_runtime *c;
    const struct ocirun_state *s;
    pid_t pid;
};
int ocirun_send_listener(void *listener, int fd);

/* Reads the document: the bundle's at creation; later the copy in the container's folder, as a bundle may change. */
int ocirun_load(struct ocirun *r, int dir, const char *shown, struct zl_oci_runtime **ret) ZL_MUST;
/* Tells the caller which process it is: --pid-file, --pidfd-socket. */
int ocirun_write_pid(struct ocirun *r, pid_t pid) ZL_MUST;
int ocirun_setup_error(struct ocirun *r, const struct zl_setup_error *e);
/* --- handover.c --- */
/* A stream socket at that path, or -errno. */
int ocirun_connect(const char *path) ZL_MUST;
int ocirun_send_fd(int to, struct zl_str text, int fd) ZL_MUST;
/* To --pidfd-socket. */
int ocirun_send_pidfd(struct ocirun *r, pid_t pid) ZL_MUST;
/* --- console.c --- */
/* r->console, for a job with a terminal or not, whose end someone waits for or not. */
int ocirun_make_console(struct ocirun *r, struct zl_job *job, bool waits) ZL_MUST;
/* Signals go to the process, and ours to its terminal and back; its end is the exit code. */
int ocirun_wait(struct ocirun *r, pid_t pid);

/* --- hooks.c --- */
/* Runs the hooks of a kind one after another, with the state on their standard input. Fails at the first that fails. */
int ocirun_hooks(struct ocirun *r, const struct zl_oci_runtime *c, enum zl_oci_hook_kind kind,
                 const struct ocirun_state *s, const char *status) ZL_MUST;

/* --- the verbs; each returns an exit code, or an error --- */
int ocirun_create(struct ocirun *r, const char *id, bool run) ZL_MUST;
int ocirun_start(struct ocirun *r, const char *id) ZL_MUST;
int ocirun_kill(struct ocirun *r, const char *id, const char *signal) ZL_MUST;
int ocirun_delete(struct ocirun *r, const char *id) ZL_MUST;
int ocirun_exec(struct ocirun *r, const char *id) ZL_MUST;
/* --- show.c: what there is, and freezing it --- */
int ocirun_show_state(struct ocirun *r, const char *id) ZL_MUST;
int ocirun_list(struct ocirun *r, const char *unused) ZL_MUST;
int ocirun_ps(struct ocirun *r, const char *id) ZL_MUST;
int ocirun_pause(struct ocirun *r, const char *id) ZL_MUST;
int ocirun_resume(struct ocirun *r, const char *id) ZL_MUST;
/* --- limits.c --- */
/* What a document says beside the limits that struct zl_cgroup_limits has, and the controllers that it takes. */
struct ocirun_values {
    struct zl_cgroup_value *v;
    unsigned n;
    uint32_t controllers;
};
int ocirun_values(struct ocirun *r, const struct zl_oci_resources *from, struct ocirun_values *ret) ZL_MUST;
int ocirun_set_values(struct ocirun *r, const struct zl_cgroup *g, const struct ocirun_values *values) ZL_MUST;
/* --- rdt.c: linux.intelRdt; `root` is where resctrl is mounted --- */
int ocirun_rdt_open(struct ocirun *r) ZL_MUST;
/* Checks, and says in the state what make will make. */
int ocirun_rdt_plan(struct ocirun *r, const struct zl_oci_rdt *want, struct ocirun_state *s) ZL_MUST;
int ocirun_rdt_make(struct ocirun *r, int root, const struct zl_oci_rdt *want, const struct ocirun_state *s) ZL_MUST;
/* A process, and what it makes from then on. */
int ocirun_rdt_enter(struct ocirun *r, int root, const struct ocirun_state *s, pid_t pid) ZL_MUST;
int ocirun_rdt_change(struct ocirun *r, int root, const struct ocirun_state *s, const char *l3,
                      const char *bandwidth) ZL_MUST;
int ocirun_rdt_remove(struct ocirun *r, int root, const struct ocirun_state *s) ZL_MUST;
static inline bool ocirun_has_rdt(const struct ocirun_state *s)
{
    return s->rdt_class && *s->rdt_class;
}
/* --- groups.c: the container's cgroups at its beginning and its end --- */
struct ocirun_groups {
    struct ocirun *r;
    const struct zl_oci_runtime *c;
    struct ocirun_state *s; /* what it says of groups is filled in */
    int folder;
    struct ocirun_values values;
    struct zl_value *properties; /* of the unit; NULL: systemd does not manage it */
    struct zl_cgroup *g;         /* in memory that the container's process shares */
};
/* Names and checks; makes nothing. */
int ocirun_groups_plan(struct ocirun_groups *k, const char *id) ZL_MUST;
/* Before there is a process: the groups that are not systemd's, with their limits. */
int ocirun_groups_make(struct ocirun_groups *k) ZL_MUST;
/* With the process: the unit, and its limits. */
int ocirun_groups_place(struct ocirun_groups *k, pid_t pid) ZL_MUST;
/* After a failure of the above, or of what came after; keeps r->err. */
void ocirun_groups_drop(const struct ocirun_groups *k);
/* Kills what is in there and removes the groups, and the unit. */
int ocirun_groups_remove(struct ocirun *r, const struct ocirun_state *s, unsigned timeout_ms) ZL_MUST;
/* --- resources.c --- */
int ocirun_limits(struct ocirun *r, const struct zl_oci_resources *from, struct zl_cgroup_limits *ret) ZL_MUST;
/* The document's rules, then what every container has (config-linux.md, Default Devices). */
int ocirun_set_devices(struct ocirun *r, const struct zl_items *rules, const struct zl_cgroup *g) ZL_MUST;
/* --- saved.c: what the files said before an update, to be written again when it fails half way --- */
struct ocirun_saved;
struct ocirun_saved *ocirun_save_limits(struct ocirun *r, const struct zl_cgroup *g,
                                        const struct ocirun_values *values);
void ocirun_restore_limits(const struct ocirun_saved *saved);
int ocirun_update(struct ocirun *r, const char *id) ZL_MUST;
/* A container with its status and its groups. */
int ocirun_find(struct ocirun *r, const char *id, struct ocirun_state **s, struct zl_cgroup *g,
                enum ocirun_status *status) ZL_MUST;
/* --- stats.c: what the group has used and may use, in the arena --- */
struct zl_value *ocirun_stats(struct ocirun *r, const struct zl_cgroup *g);
/* --- events.c --- */
/* What a container takes: once with --stats, else each --interval until it ends, and when it runs out of memory. */
int ocirun_events(struct ocirun *r, const char *id) ZL_MUST;
/* --- features.c: what this can do (features.md) --- */
int ocirun_features(struct ocirun *r, const char *unused) ZL_MUST;
/* Names that are understood, as a list. */
void ocirun_mount_option_names(struct zl_arena *arena, struct zl_value *ret);
void ocirun_namespace_names(struct zl_arena *arena, struct zl_value *ret);
void ocirun_capability_names(struct zl_arena *arena, struct zl_value *ret);
/* --- spec.c: writes a config.json to start from, in the bundle --- */
int ocirun_spec(struct ocirun *r, const char *unused) ZL_MUST;
