#include "net/overlay/nft_priv.h"
#include "net/overlay/rules_priv.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/*
 * An accept in a table of ours does not help against a drop in another one: every base chain of a hook has its say. So
 * where a firewall (docker, ufw, firewalld) drops what is forwarded, our rule must stand in its chain. It is written
 * with the matches that iptables itself uses, so that `iptables -S` shows it and goes on working. Both directions are
 * accepted without conntrack: what comes in unasked is dropped at the namespace's own end of the link.
 */
struct chain {
    const char *family, *table, *name;
};

static const char *str(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* What nft reads back as a name; anything else could not be addressed, and must not end up in a command. */
static bool is_name(const char *s)
{
    static const char ok[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./";
    return *s && strspn(s, ok) == strlen(s);
}

static bool in_chain(const json_t *rule, const struct chain *c)
{
    return strcmp(str(rule, "family"), c->family) == 0 && strcmp(str(rule, "table"), c->table) == 0 &&
           strcmp(str(rule, "chain"), c->name) == 0;
}

static bool drops(const json_t *rule)
{
    size_t i;
    const json_t *expr;
    json_array_foreach(json_object_get(rule, "expr"), i,
                       expr) if (json_object_get(expr, "drop") || json_object_get(expr, "reject")) return true;
    return false;
}

static void plan_chain(const json_t *items, const json_t *chain, const char *tag, const char *link, bool accept,
                       struct zl_buf *ret)
{
    struct chain c = { str(chain, "family"), str(chain, "table"), str(chain, "name") };
    bool v4 = strcmp(c.family, "ip") == 0 || strcmp(c.family, "inet") == 0;
    if (!v4 || strncmp(c.table, "zlayer", 6) == 0 || !is_name(c.table) || !is_name(c.name))
        return;
    char mark[64];
    snprintf(mark, sizeof mark, "zlayer_%s", tag);
    bool needed = strcmp(str(chain, "policy"), "drop") == 0;
    unsigned ours = 0;
    size_t i;
    const json_t *item;
    json_array_foreach(items, i, item)
    {
        const json_t *rule = json_object_get(item, "rule");
        if (!rule || !in_chain(rule, &c))
            continue;
        if (strcmp(str(rule, "comment"), mark) == 0)
            ours++;
        else
            needed = needed || drops(rule);
    }
    needed = needed && accept;
    if (needed && ours == 2)
        return;
    json_array_foreach(items, i, item)
    {
        const json_t *rule = json_object_get(item, "rule");
        if (rule && in_chain(rule, &c) && strcmp(str(rule, "comment"), mark) == 0)
            zl_buf_printf(ret, "delete rule %s %s %s handle %lld\n", c.family, c.table, c.name,
                          (long long)json_integer_value(json_object_get(rule, "handle")));
    }
    static const char *const sides[] = { "iifname", "oifname" };
    for (i = 0; needed && i < ZL_ARRAY_LEN(sides); i++)
        zl_buf_printf(ret, "insert rule %s %s %s %s \"%s\" counter accept comment \"%s\"\n", c.family, c.table, c.name,
                      sides[i], link, mark);
}

int zl_foreign_plan(struct zl_str json, const char *tag, const char *link, bool accept, struct zl_buf *ret)
{
    json_t *root = json_loadb(json.p, json.n, 0, NULL);
    const json_t *items = json_object_get(root, "nftables");
    if (!json_is_array(items)) {
        json_decref(root);
        return -EPROTO;
    }
    size_t i;
    const json_t *item;
    json_array_foreach(items, i, item)
    {
        const json_t *chain = json_object_get(item, "chain");
        if (chain && strcmp(str(chain, "hook"), "forward") == 0)
            plan_chain(items, chain, tag, link, accept, ret);
    }
    json_decref(root);
    return 0;
}

static int change(const char *tag, const char *link, bool accept, struct zl_err *err)
{
    zl_auto_buf json = ZL_BUF_INIT, commands = ZL_BUF_INIT;
    int r = zl_nft_run(-1, "list ruleset", &json, err);
    if (r < 0)
        return r;
    if (zl_foreign_plan(zl_buf_view(&json), tag, link, accept, &commands) < 0)
        return zl_fail(err, ZL_E_NETWORK, "read the host's firewall rules: nft's output is not understood");
    return commands.n ? zl_nft_run(-1, commands.p, NULL, err) : 0;
}

int zl_foreign_accept(const char *tag, const struct zl_uplink *uplink, struct zl_err *err)
{
    return change(tag, uplink->name, true, err);
}

int zl_foreign_forget(const char *tag, struct zl_err *err)
{
    return change(tag, "", false, err);
}
