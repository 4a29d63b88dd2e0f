/*
 * Credentials of registries, in the files that `docker login` writes: auths, credHelpers, credsStore. Read before an
 * image job confines itself, as a helper is a program. Looked through in this order, the first that knows the registry
 * counts: $ZLAYER_AUTH_FILE, or auth.json of the configuration folder; $DOCKER_CONFIG/config.json, or
 * ~/.docker/config.json; $REGISTRY_AUTH_FILE, or podman's two auth.json.
 * Thread: any. Owns: a plain value with secrets; wiped by zl_credentials_done. Fails: zl_err of the writing functions;
 * looking up never fails: what could not be read is told in `problem`, for the hint of the registry's refusal.
 */
#pragma once

#include "base/error.h"
#include "codec/fields.h"

#include <stdbool.h>

struct zl_credentials {
    char user[256], password[8192]; /* user "": none */
    char identity_token[8192];      /* a refresh token for the token server; "": none */
    char registry_token[8192];      /* sent to the registry as it is; "": none */
    char problem[256];
};

/* The folder of registries.yml and auth.json: $ZLAYER_CONFIG_DIR, /etc/zlayer for root, else
 * $XDG_CONFIG_HOME/zlayer or ~/.config/zlayer. `ret` holds 4096 bytes; false when there is none. */
bool zl_config_file(const char *name, char *ret);
/* Puts an ordinary user's folder into the environment: programs of ours that are started in a user namespace take
 * themselves for root. Before other threads run. */
void zl_config_export(void);
/* Where `login` keeps credentials when nothing else is said; as above. */
bool zl_credentials_file(char *ret);

/* `repository` chooses among entries for parts of a registry, as podman keeps them; "" for the registry alone. */
void zl_credentials_find(const char *registry, const char *repository, struct zl_credentials *ret);
bool zl_credentials_any(const struct zl_credentials *c);
void zl_credentials_done(struct zl_credentials *c);

/* "Name: value" of the headers that docker's file (HttpHeaders) adds to what registries are asked, at most 32; those
 * that requests have of themselves, and what is no header, are left out. They belong to the arena and may be secret. */
void zl_credentials_headers(struct zl_arena *arena, struct zl_strings *ret);

/* Both keep what else the file says. The helper that the file names for the registry is used, when it names one. */
int zl_credentials_keep(const char *file, const char *registry, const struct zl_credentials *c,
                        struct zl_err *err) ZL_MUST;
/* 1: they were there; 0: there were none. */
int zl_credentials_forget(const char *file, const char *registry, struct zl_err *err) ZL_MUST;
