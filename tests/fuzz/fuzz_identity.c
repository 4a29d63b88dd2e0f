/* "user[:group]", an empty line, an image's passwd, a line "--", its group. Who is found is nobody that is not there.
 */
#include "base/alloc.h"
#include "base/assert.h"
#include "runtime/native/identity.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_str group, passwd, spec = zl_str_cut(zl_str_n((const char *)data, size), '\n', &passwd);
    const char *cut = passwd.p ? memmem(passwd.p, passwd.n, "\n--\n", 4) : NULL;
    group = cut ? zl_str_n(cut + 4, passwd.n - (size_t)(cut + 4 - passwd.p)) : ZL_STR("");
    if (cut)
        passwd.n = (size_t)(cut - passwd.p);
    if (!passwd.p)
        passwd = ZL_STR("");
    if (memchr(spec.p ? spec.p : "", 0, spec.n))
        return 0;
    zl_auto_free char *text = zl_xasprintf("%.*s", (int)spec.n, spec.p ? spec.p : "");
    struct zl_identity id = { .uid = 77 };
    const char *unknown = zl_identity_resolve(&id, text, passwd, group);
    if (unknown) {
        zl_assert(strcmp(unknown, "passwd") == 0 || strcmp(unknown, "group") == 0);
        zl_assert(id.uid == 77);
    } else {
        zl_assert(id.uid < UINT32_MAX && id.gid < UINT32_MAX && id.ngroups <= ZL_IDENTITY_GROUPS);
        zl_assert(id.home[0] && strlen(id.home) < sizeof id.home);
        zl_assert(!strchr(text, ':') || id.ngroups == 0);
    }
    zl_identity_home(&id, spec, passwd);
    zl_assert(id.home[0]);
    return 0;
}
