#include "runtime/native/identity.h"

#include "base/macros.h"

#include <stdio.h>
#include <string.h>

enum { ID_MAX = UINT32_MAX - 1 };

/* The n-th colon-separated field of a line. */
static struct zl_str field(struct zl_str line, int n)
{
    struct zl_str f = { NULL, 0 };
    for (int i = 0; i <= n && line.p; i++)
        f = zl_str_cut(line, ':', &line);
    return f;
}

static bool by_name_or_number(struct zl_str line, struct zl_str wanted)
{
    return zl_str_eq(field(line, 0), wanted) || zl_str_eq(field(line, 2), wanted);
}

static void add_groups(struct zl_str group, struct zl_str user, struct zl_identity *id)
{
    for (struct zl_str rest = group; rest.p && rest.n;) {
        struct zl_str line = zl_str_cut(rest, '\n', &rest), members = field(line, 3);
        uint64_t gid;
        while (members.p && members.n) {
            bool member = zl_str_eq(zl_str_cut(members, ',', &members), user);
            if (member && id->ngroups < ZL_IDENTITY_GROUPS && zl_parse_u64(field(line, 2), 0, ID_MAX, &gid) == 0)
                id->groups[id->ngroups++] = (gid_t)gid;
        }
    }
}

static bool take_home(struct zl_identity *id, struct zl_str line)
{
    struct zl_str home = field(line, 5);
    if (!home.p || !home.n || home.n >= sizeof id->home || memchr(home.p, 0, home.n))
        return false;
    snprintf(id->home, sizeof id->home, "%.*s", ZL_STR_FMT(home));
    return true;
}

void zl_identity_home(struct zl_identity *id, struct zl_str uid, struct zl_str passwd)
{
    snprintf(id->home, sizeof id->home, "/");
    for (struct zl_str rest = passwd; rest.p && rest.n;) {
        struct zl_str line = zl_str_cut(rest, '\n', &rest);
        if (zl_str_eq(field(line, 2), uid) && take_home(id, line))
            return;
    }
}

const char *zl_identity_resolve(struct zl_identity *ret, const char *spec, struct zl_str passwd, struct zl_str group)
{
    struct zl_identity id = { .home = "/" };
    struct zl_str group_name, user = zl_str_cut(zl_str(*spec ? spec : "0"), ':', &group_name);
    bool found = false;
    for (struct zl_str rest = passwd; rest.p && rest.n && !found;) {
        struct zl_str line = zl_str_cut(rest, '\n', &rest);
        uint64_t uid, gid;
        if (!by_name_or_number(line, user) || zl_parse_u64(field(line, 2), 0, ID_MAX, &uid) < 0 ||
            zl_parse_u64(field(line, 3), 0, ID_MAX, &gid) < 0)
            continue;
        found = true;
        id.uid = uid;
        id.gid = gid;
        (void)take_home(&id, line); /* without one it is "/" */
        if (!group_name.p)
            add_groups(group, field(line, 0), &id);
    }
    if (!found && zl_parse_u64(user, 0, ID_MAX, &id.uid) < 0)
        return "passwd";
    bool known = !group_name.p;
    for (struct zl_str rest = group; !known && rest.p && rest.n;) {
        struct zl_str line = zl_str_cut(rest, '\n', &rest);
        known = by_name_or_number(line, group_name) && zl_parse_u64(field(line, 2), 0, ID_MAX, &id.gid) == 0;
    }
    if (!known && zl_parse_u64(group_name, 0, ID_MAX, &id.gid) < 0)
        return "group";
    *ret = id;
    return NULL;
}
