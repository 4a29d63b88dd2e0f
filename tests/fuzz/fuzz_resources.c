/* The limits of an update, as they come on standard input. */
#include "base/assert.h"
#include "oci/runtime_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_throttles(const struct zl_items *list)
{
    for (unsigned i = 0; i < list->n; i++) {
        const struct zl_oci_throttle *t = list->v[i];
        zl_assert(t->major >= 0 && t->major <= UINT32_MAX && t->minor >= 0 && t->minor <= UINT32_MAX);
        zl_assert(t->weight >= 0 && t->weight <= 1000);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_arena arena;
    struct zl_decoder d;
    struct zl_err err = { 0 };
    struct zl_oci_resources *r;
    zl_arena_init(&arena);
    zl_decoder_init(&d, &arena);
    if (zl_oci_resources_parse(&d, zl_str_n((const char *)data, size), &r, &err) == 0) {
        zl_assert(r->memory_limit >= -1 && r->memory_swap >= -1 && r->cpu_quota >= -1);
        zl_assert(r->swappiness >= -1 && r->swappiness <= 100 && r->cpu_idle >= -1 && r->cpu_idle <= 1);
        for (int k = 0; k < ZL_OCI_THROTTLES; k++)
            check_throttles(&r->throttles[k]);
        check_throttles(&r->weight_devices);
        for (unsigned i = 0; i < r->devices.n; i++)
            zl_assert(((const struct zl_oci_device_rule *)r->devices.v[i])->type);
        for (unsigned i = 0; i < r->unified.n; i++) {
            const struct zl_oci_pair *p = r->unified.v[i];
            zl_assert(p->key && p->value);
        }
    } else {
        zl_assert(err.code && err.text[0]);
    }
    zl_decoder_done(&d);
    zl_arena_done(&arena);
    return 0;
}
