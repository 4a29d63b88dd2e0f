#include "net/overlay/nft_priv.h"

#include "sys/ns.h"

#include <errno.h>
#include <malloc.h>
#include <nftables/libnftables.h>
#include <string.h>

const struct zl_parse_limits zl_nft_limits = { 64 << 20, 64, 4000000 };

struct job {
    const char *commands;
    struct zl_buf *ret;
    struct zl_err *err;
};

static int run(void *arg)
{
    struct job *j = arg;
    struct nft_ctx *ctx = nft_ctx_new(NFT_CTX_DEFAULT);
    if (!ctx)
        return zl_fail(j->err, -ENOMEM, "set up nftables");
    int r = 0;
    if (nft_ctx_buffer_output(ctx) || nft_ctx_buffer_error(ctx)) {
        r = zl_fail(j->err, -ENOMEM, "set up nftables");
    } else {
        if (j->ret)
            nft_ctx_output_set_flags(ctx, NFT_CTX_OUTPUT_JSON | NFT_CTX_OUTPUT_HANDLE | NFT_CTX_OUTPUT_NUMERIC_ALL);
        errno = 0;
        if (nft_run_cmd_from_buffer(ctx, j->commands) != 0) {
            const char *text = nft_ctx_get_error_buffer(ctx);
            /* "…Error: Could not process rule: Operation not permitted" and then a drawing of the place. */
            bool denied = text && strstr(text, "Operation not permitted");
            r = zl_fail(j->err, denied ? ZL_E_PERMISSION : ZL_E_NETWORK, "change firewall rules: %.*s",
                        (int)strcspn(text ? text : "", "\n"), text ? text : "");
        } else if (j->ret) {
            zl_buf_clear(j->ret);
            zl_buf_puts(j->ret, nft_ctx_get_output_buffer(ctx));
        }
    }
    nft_ctx_free(ctx);
    /* The library's small pieces would else stay with the process: half a megabyte a call in an agent that idles. */
    (void)malloc_trim(0);
    return r;
}

int zl_nft_run(int netns, const char *commands, struct zl_buf *ret, struct zl_err *err)
{
    struct job j = { commands, ret, err };
    if (netns < 0)
        return run(&j);
    int r = zl_netns_run(netns, run, &j);
    /* Errors of our own have been reported inside; an errno is the thread's or the namespace's. */
    return r < 0 && r > -4096 && !(err && err->code == r) ? zl_fail(err, r, "enter the node's network") : r;
}
