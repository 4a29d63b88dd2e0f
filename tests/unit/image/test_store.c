#include "../testing.h"

#include "base/fd.h"
#include "image/store.h"
#include "oci/platform.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define HEX(c) c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c
#define A      "sha256:" HEX("aa")
#define B      "sha256:" HEX("bb")
#define C      "sha256:" HEX("cc")
#define D      "sha256:" HEX("dd")
#define E      "sha256:" HEX("ee")

struct fixture {
    char folder[64];
    struct zl_store store;
    struct zl_arena arena;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct zl_err err;
    snprintf(f->folder, sizeof f->folder, "/tmp/zl-store-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    assert_int_equal(zl_store_open(f->folder, &f->store, &err), 0);
    zl_arena_init(&f->arena);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    zl_store_close(&f->store);
    zl_arena_done(&f->arena);
    ZL_IGNORE(zl_remove_tree(AT_FDCWD, f->folder));
    free(f);
    return 0;
}

static void make_blob(struct fixture *f, const char *digest)
{
    char file[120];
    snprintf(file, sizeof file, "blobs/sha256/%s", digest + 7);
    int fd = zl_openat(f->store.dir, file, O_CREAT | O_WRONLY, 0644);
    assert_true(fd >= 0);
    assert_int_equal(zl_write_full(fd, "12345678", 8), 0);
    zl_close(fd);
}

static void make_layer(struct fixture *f, const char *chain)
{
    char path[ZL_LAYER_PATH_SIZE], file[ZL_LAYER_PATH_SIZE + 8];
    assert_int_equal(mkdir(zl_store_layer_path(&f->store, chain, path), 0755), 0);
    snprintf(file, sizeof file, "%s/file", path);
    close(open(file, O_CREAT | O_WRONLY, 0644));
}

static bool has_blob(struct fixture *f, const char *digest)
{
    char file[120];
    snprintf(file, sizeof file, "blobs/sha256/%s", digest + 7);
    return faccessat(f->store.dir, file, F_OK, 0) == 0;
}

static void put(struct fixture *f, const char *reference, const char *manifest, const char *chain)
{
    struct zl_err err;
    const char *chains[] = { chain }, *blobs[] = { B }, *cmd[] = { "/a", "b c" }, *labels[] = { "k=v" };
    struct zl_image_record r = { .reference = reference,
                                 .digest = manifest,
                                 .config = C,
                                 .size_bytes = 5,
                                 .created_ms = 7,
                                 .os = "linux",
                                 .architecture = "amd64",
                                 .layers = { blobs, 1 },
                                 .chain_ids = { chains, 1 },
                                 .cmd = { cmd, 2 },
                                 .labels = { labels, 1 },
                                 .workdir = "/w" };
    assert_int_equal(zl_store_put(&f->store, &r, &err), 0);
}

static void test_round_trip(void **state)
{
    struct fixture *f = *state;
    struct zl_image_record *r;
    struct zl_err err;
    put(f, "docker.io/library/nginx:latest", A, D);
    static const char *const spellings[] = { "nginx", "nginx:latest", "library/nginx", "docker.io/nginx",
                                             "index.docker.io/library/nginx:latest" };
    for (size_t i = 0; i < ZL_ARRAY_LEN(spellings); i++) {
        assert_int_equal(zl_store_find(&f->store, &f->arena, spellings[i], &r, &err), 0);
        assert_string_equal(r->reference, "docker.io/library/nginx:latest");
    }
    assert_string_equal(r->digest, A);
    assert_null(r->manifest);
    assert_string_equal(r->cmd.v[1], "b c");
    assert_string_equal(r->labels.v[0], "k=v");
    assert_string_equal(r->workdir, "/w");
    assert_null(r->user);
    assert_int_equal(r->created_ms, 7);
}

static void test_for_a_platform(void **state)
{
    struct fixture *f = *state;
    struct zl_image_record *r = NULL;
    struct zl_err err;
    const struct zl_oci_platform amd64 = { .os = "linux", .architecture = "amd64", .variant = "" };
    const struct zl_oci_platform arm = { .os = "linux", .architecture = "arm", .variant = "v7" };
    put(f, "docker.io/library/nginx:latest", A, D);
    assert_int_equal(zl_store_find_for(&f->store, &f->arena, "nginx", &amd64, &r, &err), ZL_E_IMAGE_NOT_FOUND);
    assert_non_null(strstr(err.text, "lacks its layer sha256:dd"));
    make_layer(f, D);
    assert_int_equal(zl_store_find_for(&f->store, &f->arena, "nginx", &amd64, &r, &err), 0);
    assert_string_equal(r->digest, A);
    assert_int_equal(zl_store_find_for(&f->store, &f->arena, "nginx", &arm, &r, &err), ZL_E_IMAGE_NOT_FOUND);
    assert_non_null(strstr(err.text, "is for linux/amd64, not for linux/arm/v7"));
    assert_int_equal(zl_store_find_for(&f->store, &f->arena, "other", &arm, &r, &err), ZL_E_IMAGE_NOT_FOUND);
    /* What a record does not say fits. */
    const struct zl_image_record silent = { .reference = "x" }, chart = { .artifact_type = "a/b", .os = "none" };
    assert_true(zl_image_fit(&silent, &arm) > 0 && zl_image_fit(&chart, &arm) > 0);
    const char *features[] = { "win32k" };
    struct zl_oci_platform wanted = { .os = "windows", .architecture = "amd64", .variant = "", .os_version = "10.0" };
    struct zl_image_record windows = { .os = "windows", .architecture = "amd64", .os_version = "10.0.17763" };
    assert_true(zl_image_fit(&windows, &wanted) > 0);
    windows.os_features = (struct zl_strings){ features, 1 };
    assert_int_equal(zl_image_fit(&windows, &wanted), 0);
    wanted.features = windows.os_features;
    assert_true(zl_image_fit(&windows, &wanted) > 0);
    wanted.os_version = "11.0";
    assert_int_equal(zl_image_fit(&windows, &wanted), 0);
}

/* What is kept can be read, and what could not be is not kept. */
static void test_large_records(void **state)
{
    struct fixture *f = *state;
    struct zl_image_record *back;
    struct zl_err err;
    enum { MANY = 210000, LONG = 50 << 20 };
    static const char *many[MANY], *one[1];
    char *text = malloc(LONG + 1);
    for (int i = 0; i < MANY; i++)
        many[i] = "k=v";
    memset(text, 'x', LONG);
    text[LONG] = 0;
    one[0] = text;
    struct zl_image_record r = {
        .reference = "docker.io/library/a:1", .digest = A, .config = C, .labels = { many, 200000 }
    };
    assert_int_equal(zl_store_put(&f->store, &r, &err), 0);
    assert_int_equal(zl_store_find(&f->store, &f->arena, "a:1", &back, &err), 0);
    assert_int_equal(back->labels.n, 200000);
    r.labels.n = MANY;
    assert_int_equal(zl_store_put(&f->store, &r, &err), ZL_E_LIMIT);
    r.labels = (struct zl_strings){ one, 1 };
    assert_int_equal(zl_store_put(&f->store, &r, &err), ZL_E_LIMIT);
    text[48 << 20] = 0; /* what 8 MiB become at worst */
    assert_int_equal(zl_store_put(&f->store, &r, &err), 0);
    assert_int_equal(zl_store_find(&f->store, &f->arena, "a:1", &back, &err), 0);
    assert_string_equal(back->labels.v[0], text);
    free(text);
}

/* The longest that a file can be called by, and one byte more. */
static void test_long_names(void **state)
{
    struct fixture *f = *state;
    struct zl_image_record *r;
    struct zl_err err;
    struct zl_items all;
    char name[2][400];
    for (int i = 0; i < 2; i++) {
        memset(name[i], 'a', sizeof name[i]);
        memcpy(name[i], "h.io/", 5);
        snprintf(name[i] + 5 + 225, 20, ":%.*s", 10 + i, "ttttttttttttttttt"); /* 245 and 246 bytes, when escaped */
        put(f, name[i], i ? A : B, D);
    }
    assert_int_equal(zl_store_list(&f->store, &f->arena, &all, &err), 0);
    assert_int_equal(all.n, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(zl_store_find(&f->store, &f->arena, name[i], &r, &err), 0);
        assert_string_equal(r->reference, name[i]);
        assert_string_equal(r->digest, i ? A : B);
    }
    assert_int_equal(zl_store_remove(&f->store, name[1], false, NULL, &err), 0);
    assert_int_equal(zl_store_find(&f->store, &f->arena, name[1], &r, &err), ZL_E_IMAGE_NOT_FOUND);
    assert_int_equal(zl_store_find(&f->store, &f->arena, name[0], &r, &err), 0);
}

static void test_only_equal_names_match(void **state)
{
    struct fixture *f = *state;
    struct zl_image_record *r;
    struct zl_err err;
    put(f, "docker.io/library/svc:latest", A, D);
    assert_int_equal(zl_store_find(&f->store, &f->arena, "ghcr.io/team/svc", &r, &err), ZL_E_IMAGE_NOT_FOUND);
    assert_non_null(strstr(err.hint, "zlayer pull"));
    assert_int_equal(zl_store_find(&f->store, &f->arena, "svc:v2", &r, &err), ZL_E_IMAGE_NOT_FOUND);
    assert_int_equal(zl_store_find(&f->store, &f->arena, "Upper/x", &r, &err), ZL_E_INVALID);
    /* Names that a careless escape would make the same. */
    put(f, "docker.io/a/b:latest", A, D);
    assert_int_equal(zl_store_find(&f->store, &f->arena, "a_b", &r, &err), ZL_E_IMAGE_NOT_FOUND);
}

static void test_list(void **state)
{
    struct fixture *f = *state;
    struct zl_items items;
    struct zl_err err;
    assert_int_equal(zl_store_list(&f->store, &f->arena, &items, &err), 0);
    assert_int_equal(items.n, 0);
    put(f, "docker.io/library/b:1", A, D);
    put(f, "docker.io/library/a:1", A, D);
    int fd = zl_openat(f->store.dir, "refs/damaged", O_CREAT | O_WRONLY, 0644);
    assert_int_equal(zl_write_full(fd, "{", 1), 0);
    zl_close(fd);
    assert_int_equal(zl_store_list(&f->store, &f->arena, &items, &err), 0);
    assert_int_equal(items.n, 2);
    assert_string_equal(((struct zl_image_record *)items.v[0])->reference, "docker.io/library/a:1");
}

static void test_collect_keeps_what_is_needed(void **state)
{
    struct fixture *f = *state;
    struct zl_err err;
    uint64_t freed;
    put(f, "docker.io/library/a:1", A, D);
    make_blob(f, A), make_blob(f, B), make_blob(f, C), make_blob(f, D), make_blob(f, E);
    make_layer(f, D), make_layer(f, E);
    /* A job at work needs the blob E, and the layer of the same name with it. */
    assert_int_equal(mkdirat(f->store.dir, "staging/job", 0700), 0);
    int fd = zl_openat(f->store.dir, "staging/job/keep", O_CREAT | O_WRONLY, 0600);
    assert_int_equal(zl_write_full(fd, E "\n", strlen(E) + 1), 0);
    zl_close(fd);
    assert_int_equal(zl_store_collect(&f->store, &freed, &err), 0);
    assert_true(freed > 0); /* the blob D */
    assert_true(has_blob(f, A) && has_blob(f, B) && has_blob(f, C) && !has_blob(f, D) && has_blob(f, E));
    assert_true(zl_store_has_layer(&f->store, D) && zl_store_has_layer(&f->store, E));
    assert_int_equal(zl_remove_tree(f->store.dir, "staging/job"), 0);
    assert_int_equal(zl_store_collect(&f->store, &freed, &err), 0);
    assert_true(!has_blob(f, E) && !zl_store_has_layer(&f->store, E) && zl_store_has_layer(&f->store, D));
}

static void test_lease(void **state)
{
    struct fixture *f = *state;
    struct zl_err err;
    struct zl_image_record *r;
    const char *chains[] = { D }, *gone[] = { D, E };
    put(f, "docker.io/library/a:1", A, D);
    make_layer(f, D);
    assert_int_equal(zl_store_lease(&f->store, "two", &(struct zl_strings){ gone, 2 }, &err), ZL_E_BAD_IMAGE);
    assert_int_equal(zl_store_lease(&f->store, "one", &(struct zl_strings){ chains, 1 }, &err), 0);
    assert_int_equal(zl_store_remove(&f->store, "a:1", false, NULL, &err), ZL_E_CONFLICT);
    assert_int_equal(zl_store_remove(&f->store, "a:1", true, NULL, &err), 0);
    assert_int_equal(zl_store_find(&f->store, &f->arena, "a:1", &r, &err), ZL_E_IMAGE_NOT_FOUND);
    assert_true(zl_store_has_layer(&f->store, D)); /* the container has it still */
    zl_store_release(&f->store, "one");
    assert_int_equal(zl_store_collect(&f->store, NULL, &err), 0);
    assert_false(zl_store_has_layer(&f->store, D));
}

static void test_leftovers_of_killed_writers_go(void **state)
{
    struct fixture *f = *state;
    struct zl_err err;
    zl_close(zl_openat(f->store.dir, "refs/.half.1234", O_CREAT | O_WRONLY, 0600));
    zl_close(zl_openat(f->store.dir, "blobs/sha256/.half.1234", O_CREAT | O_WRONLY, 0600));
    assert_int_equal(zl_store_collect(&f->store, NULL, &err), 0);
    assert_int_equal(faccessat(f->store.dir, "refs/.half.1234", F_OK, 0), -1);
    assert_int_equal(faccessat(f->store.dir, "blobs/sha256/.half.1234", F_OK, 0), -1);
}

static void test_collect_waits_for_those_who_add(void **state)
{
    struct fixture *f = *state;
    int lock = zl_store_lock(&f->store, false);
    assert_true(lock >= 0);
    int fd = zl_openat(f->store.dir, "lock", O_RDWR, 0);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
    assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), 0);
    zl_close(fd);
    zl_close(lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_for_a_platform, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_long_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_large_records, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_only_equal_names_match, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_list, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_collect_keeps_what_is_needed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lease, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_leftovers_of_killed_writers_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_collect_waits_for_those_who_add, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
