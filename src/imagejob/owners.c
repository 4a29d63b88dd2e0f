#include "imagejob/owners.h"

#include "sys/idmap.h"

#include <stdatomic.h>
#include <stddef.h>

/* Of the process: what its user namespace is does not change. */
static bool own_id_only;
static atomic_bool changed;

void zl_owners_look(void)
{
    own_id_only = zl_idmap_inside() && !zl_idmap_has("uid_map", 1);
}

void zl_owners_map(uid_t *uid, gid_t *gid)
{
    if (!own_id_only || (*uid == 0 && *gid == 0))
        return;
    atomic_store(&changed, true);
    *uid = *gid = 0;
}

const char *zl_owners_warning(void)
{
    return atomic_load(&changed)
               ? "its files are other users', and all belong to its root here, as this user has no ids "
                 "to give (/etc/subuid, /etc/subgid)"
               : NULL;
}
