/* Jobs on a registry alone, without a store: login, whether it takes credentials (keeping them is the caller's), and
 * what refers to an image there. */
#include "base/fd.h"
#include "imagejob/confine.h"
#include "imagejob/job.h"
#include "imagejob/referrers.h"

#include <curl/curl.h>
#include <stdio.h>

/* `work` with the registry, once the job is confined. */
static int with_registry(struct zl_image_job *job, const struct zl_reference *ref,
                         int (*work)(struct zl_image_job *, struct zl_registry *, const struct zl_reference *,
                                     struct zl_err *),
                         struct zl_err *err)
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
        r = work(job, registry, ref, err);
        zl_registry_free(registry);
        curl_global_cleanup();
    }
    zl_hosts_done(&hosts);
    return r;
}

static int check(struct zl_image_job *job, struct zl_registry *registry, const struct zl_reference *ref,
                 struct zl_err *err)
{
    int r = zl_registry_check(registry, err);
    if (r == ZL_E_UNAUTHORIZED) {
        err->hint[0] = 0; /* it speaks of images, and of logging in */
        (void)zl_hint(err, r, "user name or password is wrong; some registries want a token made for this");
    }
    return r < 0 ? zl_wrap(err, r, "log in to %.100s", ref->registry) : 0;
}

int zl_login(struct zl_image_job *job, struct zl_err *err)
{
    struct zl_reference ref = { 0 };
    const char *host = job->request->reference;
    if (!zl_reference_host_valid(zl_str(host)))
        return zl_hint(err, zl_fail(err, ZL_E_INVALID, "'%.100s' is no host with an optional port", host),
                       "write the registry as image references begin, without https://");
    zl_reference_host(zl_str(host), ref.registry);
    int r = with_registry(job, &ref, check, err);
    if (r == 0)
        dprintf(job->events, "{\"event\":\"done\"}\n");
    return r;
}

/* The digest of what the reference names; a registry need not say it for a HEAD. */
static int digest_of(struct zl_registry *registry, const struct zl_reference *ref, char ret[ZL_DIGEST_SIZE],
                     struct zl_err *err)
{
    struct zl_registry_manifest m = { 0 };
    int r = 0;
    if (ref->digest[0]) {
        snprintf(ret, ZL_DIGEST_SIZE, "%.71s", ref->digest);
        return 0;
    }
    r = zl_registry_manifest(registry, ref->tag, true, &m, err);
    if (r == 0 && !m.digest[0])
        r = zl_registry_manifest(registry, ref->tag, false, &m, err);
    if (r < 0)
        return zl_wrap(err, r, "look at the manifest");
    snprintf(ret, ZL_DIGEST_SIZE, "%.71s", m.digest);
    zl_buf_done(&m.body);
    return 0;
}

static int list(struct zl_image_job *job, struct zl_registry *registry, const struct zl_reference *ref,
                struct zl_err *err)
{
    char digest[ZL_DIGEST_SIZE];
    struct zl_value *all;
    int r = digest_of(registry, ref, digest, err);
    r = r < 0 ? r : zl_registry_referrers(registry, digest, &job->arena, &all, err);
    for (const struct zl_value *i = r < 0 ? NULL : all->first; i; i = i->next) {
        zl_auto_buf line = ZL_BUF_INIT;
        zl_json_print(&line, i, 0); /* an object: its brace makes room for what kind of event it is */
        dprintf(job->events, "{\"event\":\"referrer\",%s\n", line.p + 1);
    }
    if (r == 0)
        dprintf(job->events, "{\"event\":\"done\",\"digest\":\"%s\"}\n", digest);
    return r;
}

int zl_referrers(struct zl_image_job *job, struct zl_err *err)
{
    struct zl_reference ref;
    char text[ZL_REFERENCE_TEXT_SIZE];
    const char *why, *name = job->request->reference;
    if (zl_reference_parse(zl_str(name), &ref, &why) < 0)
        return zl_fail(err, ZL_E_INVALID, "'%.100s' is no image reference: %s", name, why);
    if (ref.digest[0] && !zl_oci_digest_valid(zl_str(ref.digest)))
        return zl_fail(err, ZL_E_UNSUPPORTED, "'%.100s': only sha256 digests are supported", name);
    int r = with_registry(job, &ref, list, err);
    return r < 0 ? zl_wrap(err, r, "referrers of %.200s", zl_reference_print(&ref, text)) : 0;
}
