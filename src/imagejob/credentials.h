/*
 * What `docker login` has kept for a registry: $DOCKER_CONFIG/config.json or ~/.docker/config.json, its "auths" only;
 * credential helpers are programs and are not run here. Thread: any. Owns: a plain value; wiped by _done.
 * Fails: never; no file, or none that can be read, means no credentials.
 */
#pragma once

#include <stdbool.h>

struct zl_credentials {
    char user[256], password[4096]; /* user "": anonymous */
};

void zl_credentials_load(const char *registry, struct zl_credentials *ret);
void zl_credentials_done(struct zl_credentials *c);
/* The folder that holds config.json, as the environment says; false when it says nothing. */
bool zl_credentials_folder(char *ret, unsigned size);
