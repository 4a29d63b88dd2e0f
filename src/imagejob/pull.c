/*
 * pull: what a reference names becomes a record and layers of the store. Reference → manifest (through an index) →
 * config → layers → record; nothing is visible as an image before the last step.
 */
#include "base/fd.h"
#include "base/phase.h"
#include "imagejob/confine.h"
#include "imagejob/job.h"
#include "imagejob/layers.h"
#include "imagejob/partial.h"
#include "imagejob/record.h"
#include "imagejob/registry.h"
#include "oci/platform.h"
#include "spec/reference.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

enum { LARGE = 256 << 10 }; /* documents whose trees are worth giving back */

struct pull {
    struct zl_image_job *job;
    struct zl_reference ref;
    char text[ZL_REFERENCE_TEXT_SIZE];
    int policy;                      /* enum zl_pull_policy */
    struct zl_oci_platform platform; /* what is wanted */
    char warning[200];               /* of the registry, for the user; "" */
    struct zl_registry *registry;
    atomic_bool stop;
    const char *digest;                   /* of what the reference names */
    const char *manifest_digest;          /* of the manifest, the same unless it was chosen from an index */
    const struct zl_oci_platform *chosen; /* what the index says of it; NULL: there is no index */
    struct zl_oci_manifest manifest;
    struct zl_oci_config config;
    uint64_t documents; /* bytes of manifest, index and config */
    bool lacks_blobs;   /* what is here runs, but can't be pushed or saved: it is fetched whatever the registry says */
};

/* Chooses from an index, and from one index more below it. */
static int descend(struct pull *p, unsigned depth, struct zl_registry_manifest *body, struct zl_err *err)
{
    struct zl_arena *a = &p->job->arena;
    const struct zl_oci_descriptor *d = zl_oci_platform_choose(&p->manifest, &p->platform);
    if (!d) {
        zl_auto_buf has = ZL_BUF_INIT, mine = ZL_BUF_INIT;
        for (unsigned i = 0; i < p->manifest.n && has.n < 100; i++) {
            zl_buf_puts(&has, i ? ", " : "");
            zl_oci_platform_print(&p->manifest.items[i].platform, &has);
        }
        zl_oci_platform_print(&p->platform, &mine);
        return zl_fail(err, ZL_E_BAD_IMAGE, "it has no image for %s, only for: %.150s", mine.p,
                       has.n ? has.p : "nothing");
    }
    if (depth == ZL_OCI_INDEX_DEPTH_MAX)
        return zl_fail(err, ZL_E_BAD_IMAGE, "its index names an index that names an index");
    struct zl_registry_manifest m;
    int r = zl_registry_manifest(p->registry, d->digest, false, &m, err);
    if (r < 0)
        return zl_wrap(err, r, "fetch the manifest %.19s…", d->digest);
    zl_buf_done(&body->body);
    *body = m;
    if (m.body.n != (uint64_t)d->size)
        return zl_fail(err, ZL_E_DIGEST, "the manifest %.19s… has %zu bytes, its index says %lld", d->digest, m.body.n,
                       (long long)d->size);
    p->manifest_digest = d->digest;
    p->chosen = &d->platform;
    char digest[ZL_DIGEST_SIZE];
    r = zl_oci_manifest_parse(a, zl_buf_view(&m.body), m.content_type, &p->manifest, err);
    r = r < 0 ? r : zl_image_job_put_blob(p->job, m.body.p, m.body.n, digest, err);
    p->documents += m.body.n;
    return r < 0 ? zl_wrap(err, r, "the manifest %.19s…", d->digest) : 0;
}

/* 1: what is here is what the registry has; 0: p->manifest is read. */
static int fetch_manifest(struct pull *p, const struct zl_image_record *here, struct zl_err *err)
{
    struct zl_arena *a = &p->job->arena;
    struct zl_registry_manifest m;
    char digest[ZL_DIGEST_SIZE];
    const char *name = p->ref.digest[0] ? p->ref.digest : p->ref.tag;
    if (here && !p->lacks_blobs) {
        if (zl_streq(p->ref.digest, here->digest))
            return 1;
        int r = zl_registry_manifest(p->registry, name, true, &m, err);
        if (r < 0 && r != ZL_E_REGISTRY) /* a registry that refuses HEAD may still answer GET */
            return zl_wrap(err, r, "look at the manifest");
        /* Of an index another image may fit better than the one that is here, when a platform is named. */
        bool best = !here->manifest || !p->job->request->platform ||
                    (!*p->platform.os_version &&
                     zl_image_fit(here, &p->platform) == zl_oci_platform_fit(&p->platform, &p->platform));
        if (r == 0 && best && zl_streq(m.digest, here->digest))
            return 1;
        *err = (struct zl_err){ 0 };
    }
    int r = zl_registry_manifest(p->registry, name, false, &m, err);
    if (r < 0)
        return zl_wrap(err, r, "fetch the manifest");
    zl_phase("pull.manifest");
    p->digest = p->manifest_digest = zl_arena_strdup(a, m.digest);
    p->documents = m.body.n;
    snprintf(p->warning, sizeof p->warning, "%s", m.warning);
    r = zl_oci_manifest_parse(a, zl_buf_view(&m.body), m.content_type, &p->manifest, err);
    r = r < 0 ? r : zl_image_job_put_blob(p->job, m.body.p, m.body.n, digest, err);
    for (unsigned depth = 0; r == 0 && p->manifest.kind == ZL_OCI_INDEX; depth++)
        r = descend(p, depth, &m, err);
    zl_buf_done(&m.body);
    return r;
}

static int fetch_config(struct pull *p, struct zl_err *err)
{
    const struct zl_oci_descriptor *d = &p->manifest.config;
    char digest[ZL_DIGEST_SIZE];
    zl_auto_buf text = ZL_BUF_INIT;
    zl_auto_close int fd = zl_openat(p->job->staging, "config", O_RDWR | O_CREAT | O_TRUNC, 0644);
    int r =
        fd < 0 ? zl_fail(err, fd, "make a staging file") : zl_registry_blob(p->registry, d, fd, NULL, NULL, NULL, err);
    if (r == 0 && (r = zl_read_file(p->job->staging, "config", ZL_OCI_DOCUMENT_MAX, &text)) < 0)
        zl_fail(err, r, "read the config");
    r = r < 0 ? r : zl_oci_config_parse(&p->job->arena, zl_buf_view(&text), &p->config, err);
    r = r < 0 ? r : zl_image_job_put_blob(p->job, text.p ? text.p : "", text.n, digest, err);
    if (r < 0)
        return zl_wrap(err, r, "fetch the config %.19s…", d->digest);
    p->documents += text.n;
    r = zl_image_check_config(&p->manifest, &p->platform, p->job->request->platform != NULL, &p->config, err);
    if (r == 0 && p->chosen) {
        p->config.platform.os_version = p->chosen->os_version;
        p->config.platform.features = p->chosen->features;
    }
    return r;
}

/* Of an artifact: a blob of any type, as it is. */
static int fetch_blob(struct pull *p, const struct zl_oci_descriptor *d, struct zl_err *err)
{
    char file[ZL_PARTIAL_NAME_SIZE];
    int r = zl_image_job_keep(p->job, &d->digest, 1, err);
    if (r < 0)
        return r;
    zl_auto_close int stored = zl_image_job_stored_blob(p->job, d->digest, d->size);
    if (stored >= 0)
        return 0;
    zl_auto_close int fd = zl_image_job_stage_blob(p->job, d->digest, err);
    if (fd < 0)
        return fd;
    r = zl_registry_blob(p->registry, d, fd, NULL, NULL, NULL, err);
    if (r == 0 && fdatasync(fd) < 0)
        r = zl_fail_errno(err, errno == ENOSPC ? ZL_E_DISK_FULL : -errno, -errno, "write the blob to the disk");
    r = r < 0 ? r : zl_image_job_keep_blob(p->job, zl_partial_name(d->digest, file), d->digest, err);
    p->job->disk_full |= r == ZL_E_DISK_FULL;
    return r < 0 ? zl_wrap(err, r, "fetch the blob %.19s…", d->digest) : 0;
}

static int fetch_artifact(struct pull *p, struct zl_err *err)
{
    int r = fetch_blob(p, &p->manifest.config, err);
    p->documents += (uint64_t)p->manifest.config.size;
    for (unsigned i = 0; r == 0 && i < p->manifest.n; i++) {
        const struct zl_oci_descriptor *d = &p->manifest.items[i];
        char name[16];
        snprintf(name, sizeof name, "%.12s", d->digest + 7);
        zl_image_job_progress(p->job, name, 0, (uint64_t)d->size);
        r = fetch_blob(p, d, err);
        if (r == 0)
            zl_image_job_progress(p->job, name, (uint64_t)d->size, (uint64_t)d->size);
    }
    return r;
}

static int commit(struct pull *p, const struct zl_strings *chains, struct zl_err *err)
{
    const struct zl_new_image image = { .reference = p->text,
                                        .digest = p->digest,
                                        .manifest_digest = p->manifest_digest,
                                        .manifest = &p->manifest,
                                        .config = &p->config,
                                        .documents = p->documents };
    struct zl_image_record record;
    int r = zl_image_commit(p->job, &image, chains, &record, err);
    if (r == 0)
        zl_image_job_done(p->job, &record, p->warning[0] ? p->warning : NULL);
    return r;
}

/* Under `newer`, an image that is here is better than none when the registry can't be asked. What it says, and that it
 * is not who it should be, is an error as ever. */
static int stale(struct pull *p, const struct zl_image_record *here, int r, struct zl_err *err)
{
    bool refused = r != ZL_E_PULL_FAILED && r != ZL_E_REGISTRY && r != ZL_E_RATE_LIMITED;
    if (p->policy != ZL_PULL_NEWER || !here || refused || !zl_registry_away(p->registry))
        return r;
    char warning[sizeof err->text + 100];
    snprintf(warning, sizeof warning, "the image that is here is used; whether it is the newest is not known: %s",
             err->text);
    p->job->stale = true;
    zl_image_job_done(p->job, here, warning);
    return 0;
}

static int from_registry(struct pull *p, const struct zl_image_record *here, struct zl_err *err)
{
    int r = fetch_manifest(p, here, err);
    if (r < 0)
        return stale(p, here, r, err);
    if (r == 1) {
        zl_image_job_done(p->job, here, NULL);
        return 0;
    }
    if (p->manifest.artifact) {
        static const struct zl_strings none;
        r = fetch_artifact(p, err);
        return r < 0 ? r : commit(p, &none, err);
    }
    r = fetch_config(p, err);
    if (r < 0)
        return r;
    if (p->documents > LARGE)
        (void)malloc_trim(0); /* their trees lie below what was kept of them */
    struct zl_strings chains = zl_image_chain_ids(p->job, &p->config);
    r = zl_image_keep(p->job, &p->manifest, &chains, err);
    r = r < 0 ? r : zl_layers_fetch(p->job, p->registry, &p->manifest, &chains, &p->config.diff_ids, &p->stop, err);
    return r < 0 ? r : commit(p, &chains, err);
}

static int go(struct pull *p, const struct zl_image_record *here, struct zl_err *err)
{
    struct zl_hosts hosts;
    struct zl_credentials given;
    struct zl_registry_options o = { .hosts = &hosts, .stop = &p->stop, .stall_s = (unsigned)p->job->request->stall_s };
    zl_image_job_credentials(p->job, &given);
    int r = zl_hosts_load(&hosts, &p->ref, &given, false, err);
    zl_credentials_done(&given);
    if (r < 0)
        return r;
    r = zl_confine(&p->job->store, NULL, err);
    if (r == 0 && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        r = zl_fail(err, ZL_E_INTERNAL, "libcurl does not start");
    if (r < 0) {
        zl_hosts_done(&hosts);
        return r;
    }
    p->registry = zl_registry_new(&p->ref, &o);
    r = from_registry(p, here, err);
    p->registry = zl_registry_free(p->registry);
    curl_global_cleanup();
    zl_hosts_done(&hosts);
    if (r >= 0)
        return 0;
    zl_wrap(err, r, "pull %.200s", p->text);
    if (r == ZL_E_IMAGE_NOT_FOUND)
        return zl_hint(err, r, "is the name '%.80s' right, and was it pushed to %.80s?", p->ref.repository,
                       p->ref.registry);
    if (r == ZL_E_DIGEST || r == ZL_E_REGISTRY)
        return zl_hint(err, r, "the registry or something in between is at fault; nothing was kept");
    if (r == ZL_E_DISK_FULL)
        return zl_hint(err, r, "make room below %.150s; blobs and layers that are whole stay for the next attempt",
                       p->job->store.path);
    return r;
}

int zl_pull(struct zl_image_job *job, struct zl_err *err)
{
    struct pull p = { .job = job, .policy = job->request->policy };
    const char *why, *name = job->request->reference;
    if (zl_reference_parse(zl_str(name), &p.ref, &why) < 0)
        return zl_fail(err, ZL_E_INVALID, "'%.100s' is no image reference: %s", name, why);
    if (p.ref.digest[0] && !zl_oci_digest_valid(zl_str(p.ref.digest)))
        return zl_fail(err, ZL_E_UNSUPPORTED, "'%.100s': only sha256 digests are supported", name);
    zl_reference_print(&p.ref, p.text);
    p.platform = zl_oci_platform_host();
    if (job->request->platform && zl_oci_platform_parse(&job->arena, zl_str(job->request->platform), &p.platform) < 0)
        return zl_hint(err, zl_fail(err, ZL_E_INVALID, "'%.80s' is no platform", job->request->platform),
                       "write os/architecture or os/architecture/variant: linux/arm64, linux/arm/v7");
    struct zl_image_record *here = NULL;
    struct zl_err absent = { 0 };
    if (zl_store_find_for(&job->store, &job->arena, p.text, &p.platform, &here, &absent) < 0 &&
        p.policy == ZL_PULL_NEVER)
        return zl_hint(err, zl_fail(err, ZL_E_IMAGE_NOT_FOUND, "%.300s, and the policy is never", absent.text),
                       "`zlayer pull %.100s` fetches it", p.text);
    p.lacks_blobs = here && !zl_store_has_blobs(&job->store, here);
    if (here && (p.policy == ZL_PULL_NEVER || (p.policy == ZL_PULL_IF_NOT_PRESENT && !p.lacks_blobs))) {
        zl_image_job_done(job, here, NULL);
        return 0;
    }
    return go(&p, here, err);
}
