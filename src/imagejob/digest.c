#include "imagejob/digest.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/str.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <unistd.h>

/* The struct has no members of its own: it is OpenSSL's context under our name. */
static EVP_MD_CTX *context(struct zl_digest *d)
{
    return (EVP_MD_CTX *)(void *)d;
}

struct zl_digest *zl_digest_new(void)
{
    struct zl_digest *d = (struct zl_digest *)(void *)EVP_MD_CTX_new();
    zl_assert(d);
    zl_digest_restart(d);
    return d;
}

struct zl_digest *zl_digest_free(struct zl_digest *d)
{
    EVP_MD_CTX_free(context(d));
    return NULL;
}

void zl_digest_restart(struct zl_digest *d)
{
    zl_assert(EVP_DigestInit_ex(context(d), EVP_sha256(), NULL) == 1);
}

void zl_digest_add(struct zl_digest *d, const void *p, size_t n)
{
    zl_assert(EVP_DigestUpdate(context(d), p, n) == 1);
}

char *zl_digest_finish(struct zl_digest *d, char ret[ZL_DIGEST_SIZE])
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    zl_assert(EVP_DigestFinal_ex(context(d), raw, &n) == 1 && n == 32);
    snprintf(ret, ZL_DIGEST_SIZE, "sha256:");
    for (unsigned i = 0; i < n; i++)
        snprintf(ret + 7 + 2 * i, 3, "%02x", raw[i]);
    return ret;
}

char *zl_digest_of(const void *p, size_t n, char ret[ZL_DIGEST_SIZE])
{
    struct zl_digest *d = zl_digest_new();
    zl_digest_add(d, p, n);
    zl_digest_finish(d, ret);
    zl_digest_free(d);
    return ret;
}

int zl_digest_of_file(int fd, char ret[ZL_DIGEST_SIZE])
{
    enum { BLOCK = 256 << 10 };
    struct zl_digest *d = zl_digest_new();
    zl_auto_free char *block = zl_xmalloc(BLOCK);
    ssize_t n;
    for (off_t at = 0; (n = pread(fd, block, BLOCK, at)) > 0; at += n)
        zl_digest_add(d, block, (size_t)n);
    int r = n < 0 ? -errno : 0;
    zl_digest_finish(d, ret);
    zl_digest_free(d);
    return r;
}

char *zl_chain_id(const char *below, const char *diff_id, char ret[ZL_DIGEST_SIZE])
{
    char text[2 * ZL_DIGEST_SIZE + 2];
    if (!below[0]) {
        snprintf(ret, ZL_DIGEST_SIZE, "%s", diff_id);
        return ret;
    }
    int n = snprintf(text, sizeof text, "%s %s", below, diff_id);
    return zl_digest_of(text, (size_t)n, ret);
}
