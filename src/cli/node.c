#include "cli/node.h"

#include "cli/output.h"

static void tell_starting(void *arg)
{
    struct zl_cli *cli = arg;
    if (cli->globals.verbose)
        zl_note(cli, "starting the agent of %s", cli->client->place.data);
}

static void tell_problem(void *arg, const struct zl_value *p)
{
    struct zl_cli *cli = arg;
    zl_auto_buf b = ZL_BUF_INIT;
    zl_buf_puts(&b, "  ");
    if (zl_value_u64(p, "line", 0))
        zl_buf_printf(&b, "line %llu, column %llu: ", (unsigned long long)zl_value_u64(p, "line", 0),
                      (unsigned long long)zl_value_u64(p, "column", 0));
    zl_term_clean(&b, zl_str(zl_value_cstr(p, "message")));
    const char *hint = zl_value_cstr(p, "hint");
    if (hint[0]) {
        zl_buf_puts(&b, " (");
        zl_term_clean(&b, zl_str(hint));
        zl_buf_putc(&b, ')');
    }
    zl_buf_putc(&b, '\n');
    zl_term_write(&cli->err, zl_buf_view(&b));
}

int zl_cli_client(struct zl_cli *cli, enum zl_start start, struct zl_client **ret, struct zl_err *err)
{
    if (!cli->client) {
        struct zl_place place;
        int e = zl_place_find(&place, cli->globals.data_dir, err);
        if (e < 0)
            return e;
        cli->client = zl_xcalloc(1, sizeof *cli->client);
        *cli->client =
            (struct zl_client){ .place = place, .starting = tell_starting, .problem = tell_problem, .arg = cli };
    }
    cli->client->may_start = start == ZL_MAY_START;
    *ret = cli->client;
    return 0;
}

int zl_cli_call(struct zl_cli *cli, enum zl_start start, const char *method, const char *path,
                const struct zl_value *body, struct zl_value **ret, struct zl_err *err)
{
    struct zl_client *c;
    int e = zl_cli_client(cli, start, &c, err);
    return e < 0 ? e : zl_client_call(c, &cli->arena, method, path, body, ret, err);
}

const struct zl_value *zl_reply_list(const struct zl_value *reply, const char *key)
{
    if (!reply || reply->kind == ZL_LIST)
        return reply;
    const struct zl_value *list = zl_value_get(reply, key);
    return list && list->kind == ZL_LIST ? list : NULL;
}

const char *zl_deployment_path(struct zl_cli *cli, const char *name, const char *rest)
{
    zl_auto_buf path = ZL_BUF_INIT;
    zl_buf_puts(&path, "/api/v1/deployments/");
    zl_path_segment(&path, name);
    zl_buf_puts(&path, rest);
    return zl_arena_strdup(&cli->arena, path.p);
}

static void add_name(struct zl_cli *cli, struct zl_strings *names, const char *name)
{
    for (unsigned i = 0; i < names->n; i++)
        if (zl_streq(names->v[i], name))
            return;
    const char **v = zl_arena_alloc(&cli->arena, (names->n + 1u) * sizeof *v);
    if (names->n)
        memcpy(v, names->v, names->n * sizeof *v);
    v[names->n++] = name;
    names->v = v;
}

void zl_node_names(struct zl_cli *cli, enum zl_complete what, struct zl_strings *ret)
{
    bool images = what == ZL_COMPLETE_IMAGES;
    struct zl_value *reply;
    const char *path = images ? "/api/v1/images" : "/api/v1/deployments";
    if (zl_cli_call(cli, ZL_NEVER_START, "GET", path, NULL, &reply, NULL) < 0)
        return;
    const struct zl_value *list = zl_reply_list(reply, images ? "images" : "deployments");
    for (const struct zl_value *i = list ? list->first : NULL; i; i = i->next) {
        if (what != ZL_COMPLETE_SERVICES) {
            add_name(cli, ret, zl_value_cstr(i, images ? "reference" : "name"));
            continue;
        }
        const struct zl_value *services = zl_value_get(i, "services");
        for (const struct zl_value *s = services ? services->first : NULL; s; s = s->next)
            add_name(cli, ret, zl_value_cstr(s, "name"));
    }
}

void zl_node_done(struct zl_cli *cli)
{
    if (cli->client)
        zl_place_done(&cli->client->place);
    free(ZL_TAKE(cli->client));
}
