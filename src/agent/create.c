/* What an instance is made from: image record, document, addresses, the small files below /etc. */
#include "agent/agent_priv.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/phase.h"
#include "sys/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

void agent_created(void *arg, const struct zl_err *err, const struct zl_rt_reply *reply);

static bool has_env(const char **env, unsigned n, const char *name)
{
    size_t len = strlen(name);
    for (unsigned i = 0; i < n; i++)
        if (strncmp(env[i], name, len) == 0 && env[i][len] == '=')
            return true;
    return false;
}

static void set_env(struct zl_arena *arena, const char **env, unsigned *n, const char *name, const char *value)
{
    size_t len = strlen(name);
    char *pair = zl_arena_printf(arena, "%s=%s", name, value);
    for (unsigned i = 0; i < *n; i++) {
        if (strncmp(env[i], name, len) == 0 && env[i][len] == '=') {
            env[i] = pair;
            return;
        }
    }
    env[(*n)++] = pair;
}

/* Image < default PATH and TERM < document. */
static void make_env(struct zl_arena *arena, const struct zl_image_record *image, const struct zl_service *s,
                     struct zl_rt_spec *spec)
{
    const char **env = zl_arena_alloc(arena, (image->env.n + s->env.n + 3) * sizeof *env);
    unsigned n = 0;
    for (unsigned i = 0; i < image->env.n; i++)
        if (strchr(image->env.v[i], '='))
            env[n++] = image->env.v[i];
    if (!has_env(env, n, "PATH"))
        set_env(arena, env, &n, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    if (!has_env(env, n, "TERM"))
        set_env(arena, env, &n, "TERM", "xterm");
    for (unsigned i = 0; i < s->env.n; i++) {
        const struct zl_env *e = s->env.v[i];
        set_env(arena, env, &n, e->name, e->value);
    }
    spec->env = env;
    spec->nenv = n;
}

/* Neither: the image's both; args alone keep its ENTRYPOINT; an entrypoint alone keeps its CMD as arguments. */
static int make_argv(struct zl_arena *arena, const struct zl_image_record *image, const struct zl_service *s,
                     struct zl_rt_spec *spec, struct zl_err *err)
{
    const struct zl_strings *head = s->command.has_entrypoint ? &s->command.entrypoint : &image->entrypoint;
    const struct zl_strings *tail = s->command.has_args ? &s->command.args : &image->cmd;
    const char **argv = zl_arena_alloc(arena, (head->n + tail->n + 1) * sizeof *argv);
    for (unsigned i = 0; i < head->n; i++)
        argv[spec->nargv++] = head->v[i];
    for (unsigned i = 0; i < tail->n; i++)
        argv[spec->nargv++] = tail->v[i];
    spec->argv = argv;
    if (spec->nargv)
        return 0;
    return zl_hint(
        err,
        zl_fail(err, ZL_E_NO_COMMAND, "neither the image '%.100s' nor the document names a command", s->image.name),
        "set command.entrypoint or command.args");
}

static void hosts_file(struct zl_agent *a, struct zl_buf *out, const struct inst *i, const char *hostname)
{
    char text[INET_ADDRSTRLEN];
    const struct zl_state *state = zl_cluster_state(a->cluster);
    const struct zl_state_deployment *d = zl_state_deployment(state, i->deployment);
    zl_buf_puts(out, "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    zl_buf_printf(out, "%s %s\n", inet_ntop(AF_INET, &i->address, text, sizeof text), hostname);
    for (unsigned k = 0; d && k < d->nservices; k++) {
        struct in_addr addr = { htonl(d->services[k].address) };
        if (d->services[k].address)
            zl_buf_printf(out, "%s %s %s.%s %s.service.local\n", inet_ntop(AF_INET, &addr, text, sizeof text),
                          d->services[k].name, d->services[k].name, d->name, d->services[k].name);
    }
}

/* The host's servers, without those on its loopback, which a replica can't reach. */
static void resolv_file(struct zl_buf *out)
{
    zl_auto_buf host = ZL_BUF_INIT;
    if (zl_read_file(AT_FDCWD, "/etc/resolv.conf", 1 << 16, &host) < 0)
        return;
    for (struct zl_str rest = zl_buf_view(&host); rest.p && rest.n;) {
        struct zl_str line = zl_str_trim(zl_str_cut(rest, '\n', &rest));
        size_t n = line.n ? strcspn(line.p, " \t\n") : 0; /* zl_read_file ends with a NUL */
        struct zl_str key = zl_str_n(line.p, ZL_MIN(n, line.n));
        struct zl_str value = zl_str_trim(zl_str_n(line.p + key.n, line.n - key.n));
        if (zl_str_is(key, "nameserver") &&
            (value.n == 0 || zl_str_starts(value, ZL_STR("127.")) || zl_str_is(value, "::1")))
            continue;
        if (zl_str_is(key, "nameserver") || zl_str_is(key, "search") || zl_str_is(key, "options"))
            zl_buf_printf(out, "%.*s\n", ZL_STR_FMT(line));
    }
}

static int lease_layers(struct zl_agent *a, struct zl_arena *arena, const struct inst *i,
                        const struct zl_image_record *image, struct zl_rt_spec *spec, struct zl_err *err)
{
    if (image->artifact_type)
        return zl_fail(err, ZL_E_BAD_IMAGE, "'%.100s' is an artifact of the type '%.100s', not a container image",
                       image->reference, image->artifact_type);
    int r = zl_store_lease(&a->store, i->id, &image->chain_ids, err);
    if (r < 0)
        return r;
    zl_phase("create.leased");
    const char **layers = zl_arena_alloc(arena, (image->chain_ids.n + 1) * sizeof *layers);
    for (unsigned k = 0; k < image->chain_ids.n; k++) {
        char path[ZL_LAYER_PATH_SIZE];
        layers[k] = zl_arena_strdup(arena, zl_store_layer_path(&a->store, image->chain_ids.v[k], path));
    }
    spec->layers = layers;
    spec->nlayers = image->chain_ids.n;
    return 0;
}

static int fill(struct zl_agent *a, struct zl_arena *arena, struct inst *i, const struct zl_service *s,
                struct zl_rt_spec *spec, struct zl_err *err)
{
    struct zl_image_record *image;
    int r = zl_store_find_for(&a->store, arena, s->image.name, NULL, &image, err);
    if (r == ZL_E_IMAGE_NOT_FOUND) /* it went, or another came under its name: the service's policy says what now */
        agent_pull_again(a, i->deployment, i->service, i->generation);
    r = r < 0 ? r : make_argv(arena, image, s, spec, err);
    r = r < 0 ? r : agent_take_address(a, &i->address, err);
    r = r < 0 ? r : lease_layers(a, arena, i, image, spec, err);
    if (r < 0)
        return r;
    make_env(arena, image, s, spec);
    i->stop_signal = image->stop_signal ? zl_signal_number(zl_str(image->stop_signal)) : SIGTERM;
    if (i->stop_signal == 0) {
        zl_log_warn("image=%s: no signal is called '%.40s', SIGTERM is used", s->image.name, image->stop_signal);
        i->stop_signal = SIGTERM;
    }
    spec->hostname = zl_arena_printf(arena, "%.57s-%u", s->name, i->slot);
    spec->cwd = s->command.workdir ? s->command.workdir : image->workdir;
    spec->user = image->user;
    spec->netns = a->o.home->netns;
    spec->address = i->address;
    spec->node_address = agent_local_address(a);
    if (!a->holder || a->holder->limits) { /* else that is told as a warning */
        spec->limits.memory_bytes = s->resources.memory_bytes;
        spec->limits.cpu_millis = (uint64_t)(s->resources.cpu * 1000 + 0.5);
    }
    struct zl_rt_file *files = zl_arena_alloc(arena, 3 * sizeof *files);
    zl_auto_buf hosts = ZL_BUF_INIT, resolv = ZL_BUF_INIT;
    hosts_file(a, &hosts, i, spec->hostname);
    resolv_file(&resolv);
    files[0] = (struct zl_rt_file){ "hosts", zl_str(zl_arena_strdup(arena, hosts.p)) };
    files[1] = (struct zl_rt_file){ "resolv.conf", zl_str(zl_arena_strdup(arena, resolv.p ? resolv.p : "")) };
    files[2] = (struct zl_rt_file){ "hostname", zl_str(zl_arena_printf(arena, "%s\n", spec->hostname)) };
    spec->files = files;
    spec->nfiles = 3;
    return 0;
}

int agent_create(struct zl_agent *a, struct inst *i, const struct zl_service *s, struct zl_err *err)
{
    struct zl_arena arena;
    zl_arena_init(&arena);
    struct zl_rt_spec spec = { .deployment = i->deployment,
                               .service = i->service,
                               .slot = i->slot,
                               .generation = i->generation,
                               .image = i->image };
    memcpy(spec.id, i->id, sizeof spec.id);
    int r = fill(a, &arena, i, s, &spec, err);
    spec.note = zl_arena_printf(&arena, "{\"attempt\":%u,\"stop_signal\":%d}", i->attempt, i->stop_signal);
    if (r == 0) {
        struct zl_net_member m = { .addr = i->address };
        snprintf(m.deployment, sizeof m.deployment, "%s", i->deployment);
        r = zl_node_net_add(a->net, &m, 1, err);
        i->member = r == 0;
    }
    if (r == 0)
        (void)zl_runtime_create(a->runtime, &spec, agent_created, i);
    else
        zl_store_release(&a->store, i->id);
    zl_arena_done(&arena);
    return r;
}
