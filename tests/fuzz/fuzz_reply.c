/* What answers on the agent's socket: head, body of each framing, and the events in it. */
#include "base/assert.h"
#include "base/fd.h"
#include "client/client_priv.h"

#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zl_exchange x = ZL_EXCHANGE_INIT;
    struct zl_err err = { 0 };
    int ends[2];
    if (size > 32 * 1024) /* fits the socket's buffer */
        return 0;
    zl_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    zl_assert(zl_write_full(ends[1], data, size) == 0);
    zl_close(ends[1]);
    x.fd = ends[0];
    if (zl_exchange_head(&x, 0, &err) < 0) {
        zl_assert(err.code < 0 && err.text[0]);
        zl_exchange_done(&x);
        return 0;
    }
    zl_assert(x.status >= 200 && x.status <= 599);
    struct zl_stream *s = zl_stream_of(&x);
    struct zl_str name, text;
    size_t total = 0;
    int r;
    while ((r = zl_stream_event(s, 0, &name, &text, &err)) > 0)
        total += text.n;
    zl_assert(total <= size);
    zl_stream_free(s);
    return 0;
}
