#include "image/store.h"
#include "image/store_priv.h"

#include "base/fd.h"
#include "oci/manifest.h"
#include "oci/platform.h"
#include "spec/reference.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the largest config becomes, with a platform of the largest index: each of their bytes at most six (a DEL is
 * \u007f), each of their values one of the record's. Beside that there are the digests of the layers, twice, and what
 * has a small size of its own. */
enum {
    RECORD_BYTES_MAX = 2 * 6 * ZL_OCI_DOCUMENT_MAX + (1 << 20),
    RECORD_NODES_MAX = 2 * ZL_OCI_NODES_MAX + 2 * ZL_OCI_LAYERS_MAX + 100,
};

#define AT(member) offsetof(struct zl_image_record, member)
/* clang-format off */
static const struct zl_field record_fields[] = {
    { .name = "reference", .kind = ZL_K_STRING, .offset = AT(reference), .flags = ZL_F_REQUIRED },
    { .name = "digest", .kind = ZL_K_STRING, .offset = AT(digest), .flags = ZL_F_REQUIRED },
    { .name = "manifest", .kind = ZL_K_STRING, .offset = AT(manifest), .flags = ZL_F_OMIT },
    { .name = "config", .kind = ZL_K_STRING, .offset = AT(config), .flags = ZL_F_REQUIRED },
    { .name = "size_bytes", .kind = ZL_K_INT, .offset = AT(size_bytes), .min = 0, .max = INT64_MAX },
    { .name = "created_ms", .kind = ZL_K_INT, .offset = AT(created_ms), .min = 0, .max = INT64_MAX },
    { .name = "os", .kind = ZL_K_STRING, .offset = AT(os), .flags = ZL_F_OMIT },
    { .name = "architecture", .kind = ZL_K_STRING, .offset = AT(architecture), .flags = ZL_F_OMIT },
    { .name = "variant", .kind = ZL_K_STRING, .offset = AT(variant), .flags = ZL_F_OMIT },
    { .name = "os_version", .kind = ZL_K_STRING, .offset = AT(os_version), .flags = ZL_F_OMIT },
    { .name = "os_features", .kind = ZL_K_STRINGS, .offset = AT(os_features), .flags = ZL_F_OMIT },
    { .name = "artifact_type", .kind = ZL_K_STRING, .offset = AT(artifact_type), .flags = ZL_F_OMIT },
    { .name = "layers", .kind = ZL_K_STRINGS, .offset = AT(layers) },
    { .name = "chain_ids", .kind = ZL_K_STRINGS, .offset = AT(chain_ids) },
    { .name = "entrypoint", .kind = ZL_K_STRINGS, .offset = AT(entrypoint) },
    { .name = "cmd", .kind = ZL_K_STRINGS, .offset = AT(cmd) },
    { .name = "env", .kind = ZL_K_STRINGS, .offset = AT(env) },
    { .name = "ports", .kind = ZL_K_STRINGS, .offset = AT(ports) },
    { .name = "labels", .kind = ZL_K_STRINGS, .offset = AT(labels), .flags = ZL_F_OMIT },
    { .name = "workdir", .kind = ZL_K_STRING, .offset = AT(workdir), .flags = ZL_F_OMIT },
    { .name = "user", .kind = ZL_K_STRING, .offset = AT(user), .flags = ZL_F_OMIT },
    { .name = "stop_signal", .kind = ZL_K_STRING, .offset = AT(stop_signal), .flags = ZL_F_OMIT },
};
/* clang-format on */
const struct zl_type zl_type_image_record =
    ZL_TYPE("an image record", struct zl_image_record, record_fields, .open = true); /* later versions may say more */

int zl_store_open(const char *data_dir, struct zl_store *ret, struct zl_err *err)
{
    static const char *const folders[] = { "blobs", "blobs/sha256", "refs", "layers", "staging", "leases", "locks" };
    struct zl_store s = { .dir = -EBADF };
    if ((size_t)snprintf(s.path, sizeof s.path, "%s/images", data_dir) >= sizeof s.path)
        return zl_fail(err, -ENAMETOOLONG, "open the image store below %s", data_dir);
    /* Nobody else may enter: images have programs that are set-user-ID, which are not for the users of this machine. */
    int r = zl_mkdir_p(data_dir, 0711);
    r = r < 0 ? r : zl_mkdir_p(s.path, 0700);
    if (r == 0)
        r = s.dir = zl_openat(AT_FDCWD, s.path, O_RDONLY | O_DIRECTORY, 0);
    struct stat st;
    if (r >= 0 && fstat(s.dir, &st) == 0 && st.st_uid == geteuid() && (st.st_mode & 0077) && fchmod(s.dir, 0700) < 0)
        r = -errno;
    for (size_t i = 0; r >= 0 && i < ZL_ARRAY_LEN(folders); i++)
        r = zl_mkdirat(s.dir, folders[i], 0711);
    if (r < 0) {
        zl_close(s.dir);
        return zl_fail_errno(err, r == -EACCES || r == -EPERM ? ZL_E_PERMISSION : r, r, "open the image store %s",
                             s.path);
    }
    *ret = s;
    return 0;
}

void zl_store_close(struct zl_store *s)
{
    s->dir = zl_close(s->dir);
}

int zl_store_lock(const struct zl_store *s, bool alone)
{
    zl_auto_close int fd = zl_openat(s->dir, "lock", O_RDWR | O_CREAT, 0600);
    if (fd < 0)
        return fd;
    while (flock(fd, alone ? LOCK_EX : LOCK_SH) < 0)
        if (errno != EINTR)
            return -errno;
    return ZL_TAKE_FD(fd);
}

enum { PLAIN_NAME_MAX = 245 }; /* the longest file name that leaves room for a temporary one's ending */

/* FNV-1a, of 128 bits. */
static void hash(const char *text, char ret[33])
{
    unsigned __int128 h = (unsigned __int128)UINT64_C(0x6c62272e07bb0142) << 64 | UINT64_C(0x62b821756295c58d);
    const unsigned __int128 prime = (unsigned __int128)1 << 88 | 0x13b;
    for (const char *p = text; *p; p++)
        h = (h ^ (unsigned char)*p) * prime;
    snprintf(ret, 33, "%016llx%016llx", (unsigned long long)(h >> 64), (unsigned long long)h);
}

char *zl_store_record_name(const char *reference, char ret[ZL_RECORD_NAME_SIZE])
{
    char hex[33];
    size_t n = 0;
    for (const char *p = reference; *p && n <= PLAIN_NAME_MAX; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') || *p == '-' ||
                     *p == '_' || (*p == '.' && n > 0);
        n += (size_t)snprintf(ret + n, ZL_RECORD_NAME_SIZE - n, plain ? "%c" : "%%%02X", (unsigned char)*p);
    }
    ret[n] = 0;
    if (n > PLAIN_NAME_MAX) {
        hash(reference, hex);
        snprintf(ret, ZL_RECORD_NAME_SIZE, "%%h%s", hex);
    }
    return ret;
}

static bool is_hash(const char *name)
{
    return strncmp(name, "%h", 2) == 0;
}

/* The canonical form, and the file of its record. */
static int ref_file(const char *reference, char text[ZL_REFERENCE_TEXT_SIZE], char name[ZL_RECORD_NAME_SIZE],
                    struct zl_err *err)
{
    struct zl_reference ref;
    const char *why;
    if (zl_reference_parse(zl_str(reference), &ref, &why) < 0)
        return zl_fail(err, ZL_E_INVALID, "'%.100s' is no image reference: %s", reference, why);
    zl_store_record_name(zl_reference_print(&ref, text), name);
    return 0;
}

int zl_store_read_record(int dir, const char *file, struct zl_arena *arena, struct zl_image_record **ret,
                         struct zl_err *err)
{
    static const struct zl_parse_limits limits = { .bytes = RECORD_BYTES_MAX, .depth = 4, .nodes = RECORD_NODES_MAX };
    zl_auto_buf text = ZL_BUF_INIT;
    int r = zl_read_file(dir, file, RECORD_BYTES_MAX, &text);
    if (r < 0)
        return zl_fail(err, r, "read the image record %s", file);
    struct zl_value *v;
    struct zl_parse_error pe;
    struct zl_decoder d;
    zl_decoder_init(&d, arena);
    r = zl_json_parse(arena, zl_buf_view(&text), &limits, &v, &pe);
    struct zl_image_record *record = r < 0 ? NULL : zl_decode(&d, &zl_type_image_record, v);
    unsigned problems = d.count;
    zl_decoder_done(&d);
    if (r < 0 || problems)
        return zl_fail(err, ZL_E_BAD_IMAGE, "the image record %s is damaged; pull the image again", file);
    *ret = record;
    return 0;
}

/* -ENOENT when there is none. */
static int find(const struct zl_store *s, struct zl_arena *arena, const char *text, const char *name,
                struct zl_image_record **ret, struct zl_err *err)
{
    char file[ZL_RECORD_NAME_SIZE + 8];
    struct zl_image_record *record;
    snprintf(file, sizeof file, "refs/%s", name);
    int r = zl_store_read_record(s->dir, file, arena, &record, err);
    if (r == 0 && is_hash(name) && !zl_streq(record->reference, text))
        r = zl_fail(err, -ENOENT, "another image has the record %s", file); /* two names of one hash */
    if (r == 0)
        *ret = record;
    return r;
}

int zl_store_find(const struct zl_store *s, struct zl_arena *arena, const char *reference, struct zl_image_record **ret,
                  struct zl_err *err)
{
    char text[ZL_REFERENCE_TEXT_SIZE], name[ZL_RECORD_NAME_SIZE];
    int r = ref_file(reference, text, name, err);
    if (r < 0)
        return r;
    r = find(s, arena, text, name, ret, err);
    if (r != -ENOENT)
        return r;
    return zl_hint(err, zl_fail(err, ZL_E_IMAGE_NOT_FOUND, "there is no image '%.200s' here", reference),
                   "`zlayer image ls` lists what is here; `zlayer pull %.100s` fetches it", reference);
}

unsigned zl_image_fit(const struct zl_image_record *r, const struct zl_oci_platform *wanted)
{
    /* Of one that was chosen from an index the version is known, also when there is none. */
    const char *version = r->os_version ? r->os_version : r->manifest ? "" : wanted->os_version;
    const struct zl_oci_platform is = { .os = r->os ? r->os : wanted->os,
                                        .architecture = r->architecture ? r->architecture : wanted->architecture,
                                        .variant = r->variant ? r->variant : "",
                                        .os_version = version,
                                        .features = r->os_features };
    return r->artifact_type ? 1 : zl_oci_platform_fit(wanted, &is);
}

static int is_for_another(const struct zl_image_record *r, const struct zl_oci_platform *wanted, struct zl_err *err)
{
    const struct zl_oci_platform is = { .os = r->os ? r->os : "",
                                        .architecture = r->architecture ? r->architecture : "",
                                        .variant = r->variant ? r->variant : "",
                                        .os_version = r->os_version,
                                        .features = r->os_features };
    zl_auto_buf has = ZL_BUF_INIT, wants = ZL_BUF_INIT;
    zl_oci_platform_print(&is, &has);
    zl_oci_platform_print(wanted, &wants);
    return zl_hint(err,
                   zl_fail(err, ZL_E_IMAGE_NOT_FOUND, "the image '%.200s' that is here is for %.80s, not for %.80s",
                           r->reference, has.p, wants.p),
                   "`zlayer pull %.100s` fetches the one for this machine", r->reference);
}

int zl_store_find_for(const struct zl_store *s, struct zl_arena *arena, const char *reference,
                      const struct zl_oci_platform *wanted, struct zl_image_record **ret, struct zl_err *err)
{
    const struct zl_oci_platform host = zl_oci_platform_host();
    struct zl_image_record *record;
    int r = zl_store_find(s, arena, reference, &record, err);
    if (r < 0)
        return r;
    if (zl_image_fit(record, wanted ? wanted : &host) == 0)
        return is_for_another(record, wanted ? wanted : &host, err);
    for (unsigned i = 0; i < record->chain_ids.n; i++)
        if (!zl_store_has_layer(s, record->chain_ids.v[i]))
            return zl_hint(err,
                           zl_fail(err, ZL_E_IMAGE_NOT_FOUND, "the image '%.200s' lacks its layer %.20s…",
                                   record->reference, record->chain_ids.v[i]),
                           "`zlayer pull %.100s` fetches it", record->reference);
    *ret = record;
    return 0;
}

static int each_record(const struct zl_store *s, struct zl_arena *arena,
                       int (*fn)(void *arg, struct zl_image_record *r), void *arg, struct zl_err *err)
{
    int fd = zl_openat(s->dir, "refs", O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        zl_close(fd);
        return zl_fail(err, fd < 0 ? fd : -ENOMEM, "list the images");
    }
    int r = 0;
    struct dirent *e;
    while (r == 0 && (e = readdir(d)) != NULL) {
        char file[300];
        struct zl_image_record *record;
        if (e->d_name[0] == '.')
            continue;
        snprintf(file, sizeof file, "refs/%s", e->d_name);
        struct zl_err why = { 0 };
        int got = zl_store_read_record(s->dir, file, arena, &record, &why);
        if (got == 0)
            r = fn(arg, record);
        else if (got != ZL_E_BAD_IMAGE && got != -ENOENT &&
                 got != -EFBIG) /* else it may be good, and name what is needed */
            r = zl_wrap(&why, got, "list the images"), *err = why;
    }
    closedir(d);
    return r;
}

static int collect_item(void *arg, struct zl_image_record *r)
{
    struct zl_items *items = arg;
    size_t cap = items->n;
    if ((items->n & (items->n - 1)) == 0)
        items->v = zl_xrealloc(items->v, cap ? cap * 2 : 1, sizeof *items->v);
    items->v[items->n++] = r;
    return 0;
}

static int by_reference(const void *a, const void *b)
{
    const struct zl_image_record *x = *(void *const *)a, *y = *(void *const *)b;
    return strcmp(x->reference, y->reference);
}

int zl_store_list(const struct zl_store *s, struct zl_arena *arena, struct zl_items *ret, struct zl_err *err)
{
    struct zl_items items = { 0 };
    int r = each_record(s, arena, collect_item, &items, err);
    if (r == 0) {
        if (items.n)
            qsort(items.v, items.n, sizeof *items.v, by_reference);
        ret->n = items.n;
        ret->v = zl_arena_alloc(arena, (items.n + 1) * sizeof *ret->v);
        if (items.n)
            memcpy(ret->v, items.v, items.n * sizeof *ret->v);
    }
    free(items.v);
    return r;
}

/* What is written can be read again. */
static int check_limits(const struct zl_image_record *record, size_t bytes, struct zl_err *err)
{
    uint64_t nodes = 1;
    for (size_t i = 0; i < ZL_ARRAY_LEN(record_fields); i++) {
        const struct zl_field *f = &record_fields[i];
        const void *at = (const char *)record + f->offset;
        nodes += 1 + (f->kind == ZL_K_STRINGS ? ((const struct zl_strings *)at)->n : 0);
    }
    if (bytes <= RECORD_BYTES_MAX && nodes <= RECORD_NODES_MAX)
        return 0;
    return zl_fail(err, ZL_E_LIMIT, "the image record of %.200s would have %zu bytes and %llu values; %d and %d may be",
                   record->reference, bytes, (unsigned long long)nodes, RECORD_BYTES_MAX, RECORD_NODES_MAX);
}

/* The record's file holds another image's: only with a hash as its name can it be. */
static bool is_taken(const struct zl_store *s, struct zl_arena *arena, const char *text, const char *name)
{
    char file[ZL_RECORD_NAME_SIZE + 8];
    struct zl_image_record *record;
    snprintf(file, sizeof file, "refs/%s", name);
    return is_hash(name) && zl_store_read_record(s->dir, file, arena, &record, NULL) == 0 &&
           !zl_streq(record->reference, text);
}

int zl_store_put(const struct zl_store *s, const struct zl_image_record *record, struct zl_err *err)
{
    char canonical[ZL_REFERENCE_TEXT_SIZE], name[ZL_RECORD_NAME_SIZE];
    struct zl_arena arena;
    zl_auto_buf text = ZL_BUF_INIT;
    int r = ref_file(record->reference, canonical, name, err);
    if (r < 0)
        return r;
    zl_arena_init(&arena);
    zl_json_print(&text, zl_print(&arena, &zl_type_image_record, record), 1);
    bool taken = is_taken(s, &arena, canonical, name);
    zl_arena_done(&arena);
    if (taken)
        return zl_fail(err, ZL_E_CONFLICT, "the name of another image has the hash of '%.100s…'", record->reference);
    r = check_limits(record, text.n, err);
    if (r < 0)
        return r;
    zl_auto_close int lock = zl_store_lock(s, false); /* the collector takes half-written files for leftovers */
    zl_auto_close int refs = zl_openat(s->dir, "refs", O_RDONLY | O_DIRECTORY, 0);
    r = lock < 0 ? lock : refs < 0 ? refs : zl_write_file_atomic(refs, name, text.p, text.n, 0644, ZL_POWER_PROOF);
    return r < 0 ? zl_fail_errno(err, r == -ENOSPC ? ZL_E_DISK_FULL : r, r, "keep the image record of %.200s",
                                 record->reference)
                 : 0;
}

int zl_store_tag(const struct zl_store *s, const char *source, const char *target, struct zl_err *err)
{
    struct zl_arena arena;
    struct zl_image_record *record;
    struct zl_reference ref;
    char text[ZL_REFERENCE_TEXT_SIZE];
    const char *why;
    if (zl_reference_parse(zl_str(target), &ref, &why) < 0 || ref.digest[0])
        return zl_fail(err, ZL_E_INVALID, "'%.100s' is no name for an image: %s", target,
                       ref.digest[0] ? "it has a digest" : why);
    zl_arena_init(&arena);
    zl_auto_close int lock = zl_store_lock(s, false); /* no collector between reading and writing */
    int r = lock < 0 ? zl_fail(err, lock, "lock the image store") : zl_store_find(s, &arena, source, &record, err);
    if (r == 0) {
        record->reference = zl_reference_print(&ref, text);
        r = zl_store_put(s, record, err);
    }
    zl_arena_done(&arena);
    return r;
}

char *zl_store_layer_path(const struct zl_store *s, const char *chain_id, char ret[ZL_LAYER_PATH_SIZE])
{
    const char *colon = strchr(chain_id, ':');
    snprintf(ret, ZL_LAYER_PATH_SIZE, "%s/layers/%.64s", s->path, colon ? colon + 1 : chain_id);
    return ret;
}

bool zl_store_has_layer(const struct zl_store *s, const char *chain_id)
{
    char path[ZL_LAYER_PATH_SIZE];
    struct stat st;
    return lstat(zl_store_layer_path(s, chain_id, path), &st) == 0 && S_ISDIR(st.st_mode);
}

static bool has_blob(const struct zl_store *s, const char *digest)
{
    char path[100];
    struct stat st;
    snprintf(path, sizeof path, "blobs/sha256/%.64s", digest + 7);
    return zl_oci_digest_valid(zl_str(digest)) && fstatat(s->dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISREG(st.st_mode);
}

bool zl_store_has_blobs(const struct zl_store *s, const struct zl_image_record *r)
{
    bool all = has_blob(s, r->digest) && (!r->manifest || has_blob(s, r->manifest)) && has_blob(s, r->config);
    for (unsigned i = 0; all && i < r->layers.n; i++)
        all = has_blob(s, r->layers.v[i]);
    return all;
}

int zl_store_lease(const struct zl_store *s, const char *holder, const struct zl_strings *chain_ids, struct zl_err *err)
{
    zl_auto_buf text = ZL_BUF_INIT;
    for (unsigned i = 0; i < chain_ids->n; i++)
        zl_buf_printf(&text, "%s\n", chain_ids->v[i]);
    zl_auto_close int lock = zl_store_lock(s, false);
    zl_auto_close int leases = zl_openat(s->dir, "leases", O_RDONLY | O_DIRECTORY, 0);
    int r = lock < 0 ? lock : leases;
    if (r >= 0)
        r = zl_write_file_atomic(leases, holder, text.p ? text.p : "", text.n, 0600, ZL_KILL_PROOF);
    if (r < 0)
        return zl_fail_errno(err, r == -ENOSPC ? ZL_E_DISK_FULL : r, r, "lease the image's layers for %s", holder);
    for (unsigned i = 0; i < chain_ids->n; i++)
        if (!zl_store_has_layer(s, chain_ids->v[i])) {
            zl_store_release(s, holder);
            return zl_fail(err, ZL_E_BAD_IMAGE, "the layer %.20s… is gone from the store; pull the image again",
                           chain_ids->v[i]);
        }
    return 0;
}

void zl_store_release(const struct zl_store *s, const char *holder)
{
    char file[80];
    snprintf(file, sizeof file, "leases/%.60s", holder);
    (void)unlinkat(s->dir, file, 0);
}

struct others {
    const struct zl_store *store;
    bool (*lives)(void *arg, const char *holder);
    void *arg;
};

static int release_other(void *arg, int dir, const char *name)
{
    const struct others *o = arg;
    if (!o->lives(o->arg, name))
        zl_store_release(o->store, name);
    return 0;
}

int zl_store_release_others(const struct zl_store *s, bool (*lives)(void *arg, const char *holder), void *arg)
{
    return zl_store_each(s, "leases", release_other, &(struct others){ s, lives, arg });
}
