/*
 * How registries are reached: registries.yml of the configuration folder (docs/IMAGES.md), and certificates in the
 * folders that docker and podman look in. Thread: any. Owns: what is read belongs to the arena.
 * Fails: ZL_E_PARSE, ZL_E_INVALID with file, line and column of the first problem.
 */
#pragma once

#include "base/error.h"
#include "codec/fields.h"

/* What is not said is verified, or, on loopback without a `ca`, plain HTTP. */
enum zl_registry_tls { ZL_TLS_NOT_SAID, ZL_TLS_VERIFY, ZL_TLS_UNVERIFIED, ZL_TLS_NONE };

struct zl_registry_settings {
    const char *host;          /* as references name it */
    struct zl_strings mirrors; /* host[:port][/prefix], asked in this order before the registry itself */
    int tls;                   /* enum zl_registry_tls */
    const char *ca;            /* files with PEM, absolute paths; NULL: not said */
    const char *client_certificate, *client_key;
    struct zl_strings authorities; /* `ca`, else those of the folder; by zl_registries_of */
};

struct zl_registries {
    const char *version;
    struct zl_items list; /* of struct zl_registry_settings */
};

/* `file` is for messages. */
int zl_registries_parse(struct zl_arena *arena, struct zl_str text, const char *file, struct zl_registries **ret,
                        struct zl_err *err) ZL_MUST;
/* The node's file; an empty table when there is none. */
int zl_registries_load(struct zl_arena *arena, struct zl_registries **ret, struct zl_err *err) ZL_MUST;
/* Of one host, with what /etc/docker/certs.d/<host> and /etc/containers/certs.d/<host> hold where the file says
 * nothing; never NULL. */
const struct zl_registry_settings *zl_registries_of(struct zl_arena *arena, const struct zl_registries *r,
                                                    const char *host);
/* Splits a mirror: "host:5000/prefix". */
void zl_registry_mirror_split(const char *mirror, char host[256], char prefix[256]);
