/*
 * The deployment document: its types, decoding with every problem reported, defaults, and comparison. Pure.
 * Thread: one at a time. Owns: the arena given to zl_spec_parse owns everything returned.
 * Fails: zl_spec_parse gives ZL_E_SPEC and the problems.
 */
#pragma once

#include "base/error.h"
#include "codec/fields.h"

enum zl_rtype { ZL_RTYPE_SERVICE, ZL_RTYPE_JOB, ZL_RTYPE_CRON };
enum zl_pull_policy { ZL_PULL_IF_NOT_PRESENT, ZL_PULL_ALWAYS, ZL_PULL_NEVER, ZL_PULL_NEWER };
extern const char *const zl_pull_policies[]; /* their names, NULL at the end */
enum zl_protocol { ZL_PROTOCOL_HTTP, ZL_PROTOCOL_TCP };
enum zl_expose { ZL_EXPOSE_INTERNAL, ZL_EXPOSE_PUBLIC };
enum zl_scale_mode { ZL_SCALE_ADAPTIVE, ZL_SCALE_FIXED, ZL_SCALE_MANUAL };
enum zl_check { ZL_CHECK_NONE, ZL_CHECK_TCP, ZL_CHECK_HTTP };
enum zl_condition { ZL_CONDITION_HEALTHY, ZL_CONDITION_STARTED, ZL_CONDITION_READY };
enum zl_on_timeout { ZL_ON_TIMEOUT_FAIL, ZL_ON_TIMEOUT_WARN, ZL_ON_TIMEOUT_CONTINUE };

struct zl_env {
    const char *name, *value;
};

struct zl_endpoint {
    const char *name;
    int protocol; /* enum zl_protocol */
    int64_t port, target_port;
    int expose; /* enum zl_expose */
    const struct zl_value *at;
};

struct zl_depend {
    const char *service;
    int condition, on_timeout;
    uint64_t timeout_ms;
    const struct zl_value *at;
};

struct zl_service {
    const char *name;
    int rtype;
    struct {
        const char *name;
        int policy;
    } image;
    struct {
        struct zl_strings entrypoint, args;
        const char *workdir;
        bool has_entrypoint, has_args;
    } command;
    struct zl_items env;       /* of struct zl_env */
    struct zl_items endpoints; /* of struct zl_endpoint */
    struct {
        int mode;
        int64_t min, max, replicas;
        uint64_t cooldown_ms;
        struct {
            int64_t cpu, memory, rps;
        } targets;
    } scale;
    struct {
        uint64_t start_grace_ms, interval_ms, timeout_ms;
        int64_t retries;
        struct {
            int type; /* enum zl_check; NONE: the process runs */
            int64_t port, expect_status;
            const char *url;
        } check;
    } health;
    struct {
        double cpu;            /* cores; 0: no limit */
        uint64_t memory_bytes; /* 0: no limit */
    } resources;
    struct zl_items depends; /* of struct zl_depend */
    const struct zl_value *at;
};

struct zl_spec {
    const char *version, *deployment;
    struct zl_items services; /* of struct zl_service, in document order */
};

extern const struct zl_type zl_type_spec, zl_type_service;

/* What a document decodes to, or its problems; d was initialised by the caller. err gets a summary. */
int zl_spec_parse(struct zl_decoder *d, struct zl_str text, struct zl_spec **ret, struct zl_err *err) ZL_MUST;
struct zl_service *zl_spec_service(const struct zl_spec *spec, const char *name);
/* The canonical tree, defaults filled in. */
struct zl_value *zl_spec_print(struct zl_arena *arena, const struct zl_spec *spec);
/* How many replicas a document asks for; `current` is kept by manual scaling (0: none yet). */
unsigned zl_service_replicas(const struct zl_service *s, unsigned current);
/* Equal for two documents of a service exactly when no new instances are needed to go from one to the other. */
uint64_t zl_service_fingerprint(const struct zl_service *s);
/* The services in an order in which each comes after what it depends on; document order otherwise. */
void zl_spec_order(struct zl_arena *arena, const struct zl_spec *spec, const struct zl_service ***ret);

/* Problems for people: file:line:column, the source line with a caret, the hint. */
void zl_spec_problems_print(struct zl_buf *out, const struct zl_decoder *d, struct zl_str text, const char *file,
                            bool colour);
/* === Deployment Plan === */
void zl_spec_plan_print(struct zl_buf *out, const struct zl_spec *spec);
/* The file to use when none is named (deployment-spec lookup order, current folder only). The caller frees *ret. */
int zl_spec_find(char **ret, struct zl_err *err) ZL_MUST;

bool zl_name_valid(struct zl_str s);
