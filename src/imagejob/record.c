#include "imagejob/record.h"

#include "base/clock.h"
#include "base/phase.h"
#include "oci/platform.h"

int zl_image_check_config(const struct zl_oci_manifest *m, const struct zl_oci_platform *wanted, bool named,
                          struct zl_oci_config *config, struct zl_err *err)
{
    struct zl_oci_platform *is = &config->platform;
    if (config->diff_ids.n != m->n)
        return zl_fail(err, ZL_E_BAD_IMAGE, "its manifest has %u layers, its config %u", m->n, config->diff_ids.n);
    if (!*is->os)
        is->os = wanted->os;
    if (!*is->architecture)
        is->architecture = wanted->architecture;
    is->os_version = wanted->os_version; /* the index has chosen by it */
    unsigned fit = zl_oci_platform_fit(wanted, is);
    is->os_version = NULL;
    if (fit > 0)
        return 0;
    zl_auto_buf offers = ZL_BUF_INIT, mine = ZL_BUF_INIT;
    zl_oci_platform_print(is, &offers);
    zl_oci_platform_print(wanted, &mine);
    return zl_fail(err, ZL_E_BAD_IMAGE, "it is for %.60s, %s is %.80s", offers.p, named ? "wanted" : "this machine",
                   mine.p);
}

struct zl_strings zl_image_chain_ids(struct zl_image_job *job, const struct zl_oci_config *config)
{
    struct zl_strings s = { .v = zl_arena_alloc(&job->arena, (config->diff_ids.n + 1) * sizeof(char *)) };
    for (; s.n < config->diff_ids.n; s.n++) {
        char id[ZL_DIGEST_SIZE];
        s.v[s.n] = zl_arena_strdup(&job->arena, zl_chain_id(s.n ? s.v[s.n - 1] : "", config->diff_ids.v[s.n], id));
    }
    return s;
}

int zl_image_keep(struct zl_image_job *job, const struct zl_oci_manifest *m, const struct zl_strings *chains,
                  struct zl_err *err)
{
    unsigned n = 0;
    const char **all = zl_arena_alloc(&job->arena, (2 * m->n + 1) * sizeof *all);
    for (unsigned i = 0; i < m->n; i++) {
        all[n++] = m->items[i].digest;
        if (i < chains->n) /* an artifact has none */
            all[n++] = chains->v[i];
    }
    return zl_image_job_keep(job, all, n, err);
}

int zl_image_commit(struct zl_image_job *job, const struct zl_new_image *image, const struct zl_strings *chains,
                    struct zl_image_record *ret, struct zl_err *err)
{
    const struct zl_oci_config *c = image->config;
    const struct zl_oci_manifest *m = image->manifest;
    struct zl_strings blobs = { .v = zl_arena_alloc(&job->arena, (m->n + 1) * sizeof(char *)) };
    uint64_t size = image->documents;
    for (; blobs.n < m->n; blobs.n++) {
        blobs.v[blobs.n] = m->items[blobs.n].digest;
        size += (uint64_t)m->items[blobs.n].size;
    }
    *ret = (struct zl_image_record){
        .reference = image->reference,
        .digest = image->digest,
        .manifest = zl_streq(image->digest, image->manifest_digest) ? NULL : image->manifest_digest,
        .config = m->config.digest,
        .size_bytes = (int64_t)size,
        .created_ms = (int64_t)zl_clock_wall_ms(),
        .os = c->platform.os,
        .architecture = c->platform.architecture,
        .variant = c->platform.variant && *c->platform.variant ? c->platform.variant : NULL,
        .os_version = c->platform.os_version && *c->platform.os_version ? c->platform.os_version : NULL,
        .os_features = c->platform.features,
        .artifact_type = !m->artifact        ? NULL
                         : *m->artifact_type ? m->artifact_type
                                             : m->config.media_type,
        .layers = blobs,
        .chain_ids = *chains,
        .entrypoint = c->entrypoint,
        .cmd = c->cmd,
        .env = c->env,
        .ports = c->ports,
        .labels = c->labels,
        .workdir = c->workdir,
        .user = c->user,
        .stop_signal = c->stop_signal,
    };
    int r = zl_image_job_sync(job, err);
    zl_phase("pull.commit");
    return r < 0 ? r : zl_store_put(&job->store, ret, err);
}
