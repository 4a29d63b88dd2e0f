#include "cli/commands.h"
#include "cli/imagework.h"
#include "cli/output.h"
#include "cli/secret.h"
#include "image/credentials.h"
#include "spec/reference.h"
#include "sys/process.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

struct login_options {
    const char *registry, *username, *authfile;
    bool password_stdin;
};

/* The registry in its one spelling; docker.io when none is named. */
static int host_of(const char *text, char ret[256], struct zl_err *err)
{
    struct zl_str s = zl_str(text ? text : "docker.io");
    if (!zl_reference_host_valid(s))
        return zl_hint(err, zl_fail(err, ZL_E_USAGE, "'%.100s' is no host with an optional port", text),
                       "write the registry as image references begin, without https://");
    zl_reference_host(s, ret);
    return 0;
}

/* The file that is written, absolute. */
static int file_of(const char *named, char ret[PATH_MAX], struct zl_err *err)
{
    char here[PATH_MAX];
    if (!named) {
        if (!zl_credentials_file(ret))
            return zl_hint(err, zl_fail(err, ZL_E_INVALID, "there is no folder to keep credentials in"),
                           "name a file with --authfile");
        return 0;
    }
    if (named[0] != '/' && named == getenv("ZLAYER_AUTH_FILE"))
        return zl_hint(err, zl_fail(err, ZL_E_USAGE, "ZLAYER_AUTH_FILE is '%.200s', not an absolute path", named),
                       "pulls, in whatever folder, and the agent would not find it: write the whole path");
    if (named[0] != '/' && !getcwd(here, sizeof here))
        return zl_fail(err, -errno, "find the current folder");
    if (snprintf(ret, PATH_MAX, "%s%s%s", named[0] == '/' ? "" : here, named[0] == '/' ? "" : "/", named) >= PATH_MAX)
        return zl_fail(err, ZL_E_INVALID, "the path of the file is too long");
    return 0;
}

/* From the option, the pipe, or the user. */
static int ask(const struct login_options *o, const char *host, struct zl_credentials *c, struct zl_err *err)
{
    if (o->username && (!*o->username || strlen(o->username) >= sizeof c->user))
        return zl_fail(err, ZL_E_USAGE, "--username is empty or too long");
    snprintf(c->user, sizeof c->user, "%s", o->username ? o->username : "");
    if (o->password_stdin && !o->username)
        return zl_fail(err, ZL_E_USAGE, "--password-stdin needs --username");
    char prompt[400];
    snprintf(prompt, sizeof prompt, "User name for %s: ", host);
    int e = o->username ? 0 : zl_secret_ask(prompt, false, c->user, sizeof c->user, err);
    if (e >= 0 && strchr(c->user, ':'))
        return zl_fail(err, ZL_E_USAGE, "a user name has no ':'"); /* RFC 7617 */
    snprintf(prompt, sizeof prompt, "Password of %s: ", c->user);
    if (e >= 0)
        e = o->password_stdin ? zl_secret_from_stdin(c->password, sizeof c->password, err)
                              : zl_secret_ask(prompt, true, c->password, sizeof c->password, err);
    if (e == ZL_E_USAGE)
        return zl_hint(err, e, "`zlayer login --username NAME --password-stdin` reads the password from a pipe");
    if (e >= 0 && (!c->user[0] || !c->password[0]))
        return zl_fail(err, ZL_E_USAGE, "the %s is empty", c->user[0] ? "password" : "user name");
    return e;
}

static int verify_and_keep(struct zl_cli *cli, const struct login_options *o, struct zl_credentials *c,
                           struct zl_err *err)
{
    char host[256], file[PATH_MAX];
    int e = host_of(o->registry, host, err);
    if (e < 0 || (e = file_of(o->authfile, file, err)) < 0 || (e = ask(o, host, c, err)) < 0)
        return e;
    struct zl_image_request request = {
        .verb = ZL_IMAGE_LOGIN, .reference = host, .username = c->user, .password = c->password
    };
    e = zl_image_remote(cli, &request, NULL, err);
    e = e < 0 ? e : zl_credentials_keep(file, host, c, err);
    if (e >= 0)
        zl_note(cli, "logged in to %s as %s; kept in %s", host, c->user, file);
    return e;
}

static int run_login(struct zl_cli *cli, void *options, struct zl_err *err)
{
    struct zl_credentials c = { 0 };
    int e = zl_process_private();
    if (e < 0)
        return zl_fail(err, e, "keep other programs out");
    e = verify_and_keep(cli, options, &c, err);
    zl_credentials_done(&c);
    return e;
}

static int run_logout(struct zl_cli *cli, void *options, struct zl_err *err)
{
    const struct login_options *o = options;
    char host[256], file[PATH_MAX];
    int e = host_of(o->registry, host, err);
    if (e < 0 || (e = file_of(o->authfile, file, err)) < 0 || (e = zl_credentials_forget(file, host, err)) < 0)
        return e;
    if (e > 0)
        zl_note(cli, "forgot the credentials for %s in %s", host, file);
    else
        zl_note(cli, "there are no credentials for %s in %s", host, file);
    struct zl_credentials other;
    zl_credentials_find(host, "", &other);
    if (zl_credentials_any(&other))
        zl_warn(cli, "another file still has credentials for %s: docker's or podman's", host);
    zl_credentials_done(&other);
    return 0;
}

#define AT(field) offsetof(struct login_options, field)
#define AUTHFILE                                                                                                    \
    {                                                                                                               \
        "authfile", 0, ZL_OPT_STRING, AT(authfile), "FILE",                                                         \
            "the file, as docker has it; else auth.json of the configuration folder", .env = "ZLAYER_AUTH_FILE",    \
                                                                                      .complete = ZL_COMPLETE_FILES \
    }
static const struct zl_opt login_options[] = {
    { "username", 'u', ZL_OPT_STRING, AT(username), "NAME", "who; asked for on the terminal when it is not given" },
    { "password-stdin", 0, ZL_OPT_FLAG, AT(password_stdin), NULL, "the password is the first line of standard input" },
    AUTHFILE,
};
static const struct zl_opt logout_options[] = { AUTHFILE };
static const struct zl_arg registry_args[] = {
    { "REGISTRY", AT(registry), ZL_ARG_OPTIONAL, "a host with an optional port; docker.io when none is named" },
};
static const struct zl_example login_examples[] = {
    { "zlayer login registry.example.com", "asks for name and password" },
    { "zlayer login -u ci --password-stdin registry.example.com < token", "in a script" },
};
const struct zl_cmd zl_cmd_login = {
    .name = "login",
    .summary = "Keep the credentials of a registry, once it has taken them",
    .details = "They are kept as docker keeps them, readable by their owner only. Pulls and pushes also look in the "
               "files of docker and podman.",
    .group = ZL_GROUP_IMAGES,
    ZL_CMD_EXAMPLES(login_examples),
    ZL_CMD_OPTIONS(login_options),
    ZL_CMD_ARGS(registry_args),
    .size = sizeof(struct login_options),
    .run = run_login,
};

static const struct zl_example logout_examples[] = { { "zlayer logout registry.example.com", "forgets them" } };
const struct zl_cmd zl_cmd_logout = {
    .name = "logout",
    .summary = "Forget the credentials of a registry",
    .group = ZL_GROUP_IMAGES,
    ZL_CMD_EXAMPLES(logout_examples),
    ZL_CMD_OPTIONS(logout_options),
    ZL_CMD_ARGS(registry_args),
    .size = sizeof(struct login_options),
    .run = run_logout,
};
