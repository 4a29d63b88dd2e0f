/* login: whether a registry takes credentials. No store, and nothing is kept: that is the caller's. */
#include "base/fd.h"
#include "imagejob/confine.h"
#include "imagejob/job.h"
#include "imagejob/registry.h"

#include <curl/curl.h>
#include <stdio.h>

static int check(struct zl_image_job *job, const struct zl_reference *ref, struct zl_err *err)
{
    struct zl_hosts hosts;
    struct zl_credentials given;
    zl_image_job_credentials(job, &given);
    int r = zl_hosts_load(&hosts, ref, &given, true, err);
    zl_credentials_done(&given);
    if (r < 0)
        return r;
    r = zl_confine(NULL, NULL, err);
    if (r == 0 && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        r = zl_fail(err, ZL_E_INTERNAL, "libcurl does not start");
    if (r == 0) {
        struct zl_registry_options o = { .hosts = &hosts, .stall_s = (unsigned)job->request->stall_s };
        struct zl_registry *registry = zl_registry_new(ref, &o);
        r = zl_registry_check(registry, err);
        zl_registry_free(registry);
        curl_global_cleanup();
    }
    zl_hosts_done(&hosts);
    return r;
}

int zl_login(struct zl_image_job *job, struct zl_err *err)
{
    struct zl_reference ref = { 0 };
    const char *host = job->request->reference;
    if (!zl_reference_host_valid(zl_str(host)))
        return zl_hint(err, zl_fail(err, ZL_E_INVALID, "'%.100s' is no host with an optional port", host),
                       "write the registry as image references begin, without https://");
    zl_reference_host(zl_str(host), ref.registry);
    int r = check(job, &ref, err);
    if (r < 0)
        return zl_wrap(err, r, "log in to %.100s", ref.registry);
    dprintf(job->events, "{\"event\":\"done\"}\n");
    return 0;
}
