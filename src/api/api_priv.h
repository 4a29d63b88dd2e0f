/* What the handlers share. Thread: the loop's. */
#pragma once

#include "api/api.h"
#include "apidef/routes.h"
#include "http/server.h"

struct zl_api {
    struct zl_agent *agent;
    struct zl_http_server *server;
    uint64_t started_ms;
};

/* One request: its exchange, the path's parameter decoded, the body as its route's struct (NULL: it takes none), an
 * arena. A handler that answers at once uses api_reply or api_fail; one that answers later keeps the request. */
struct api_request {
    struct zl_api *api;
    struct zl_http_exchange *x; /* NULL once the client is gone */
    struct zl_arena arena;
    const char *param;
    void *body;
    struct zl_value *plan; /* of a deploy */
    bool created;          /* of a deploy: there was none of that name */
    const char *owner;     /* of a lease */
};

void api_reply(struct api_request *q, unsigned status, const struct zl_value *v);
void api_fail(struct api_request *q, const struct zl_err *err);
/* With problems of a document; d may be NULL. */
void api_fail_problems(struct api_request *q, const struct zl_err *err, const struct zl_decoder *d);
void api_error_body(struct zl_buf *out, const struct zl_err *err, const struct zl_decoder *d);
void api_request_free(struct api_request *q);
/* A query parameter as a string of the arena, or NULL. */
const char *api_query(struct api_request *q, const char *name);
/* x becomes NULL when the client goes. */
void api_watch_gone(struct api_request *q);

/* A handler owns the request: it ends in exactly one api_reply, api_fail or a stream's end, then api_request_free. */
typedef void (*api_handler)(struct api_request *q);
void api_deployment_put(struct api_request *q);
void api_deployment_delete(struct api_request *q);
void api_deployment_stop(struct api_request *q);
void api_deployment_events(struct api_request *q);
void api_deployment_lease(struct api_request *q);
void api_deployment_logs(struct api_request *q);
void api_deployment_exec(struct api_request *q);
void api_image_list(struct api_request *q);
void api_image_get(struct api_request *q);
void api_image_delete(struct api_request *q);
void api_image_work(struct api_request *q);
void api_image_history(struct api_request *q);
void api_image_df(struct api_request *q);
