/*
 * A file that one thread writes while another reads it behind: how far it has come. Thread: any. Owns: nothing of the
 * file. Fails: zl_feed_wait, with ZL_E_CANCELLED once the writer has given up.
 */
#pragma once

#include "base/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct zl_feed {
    pthread_mutex_t lock;
    pthread_cond_t more;
    uint64_t got; /* bytes of the file that count */
    bool ended, failed;
    unsigned char *bytes; /* all of it once it has ended, when the writer has it at hand; the feed's to free; or NULL */
    bool rewound;         /* the writer began again: what was read before may not be what is there now */
};

void zl_feed_init(struct zl_feed *f);
void zl_feed_done(struct zl_feed *f);
/* The bytes, when nobody will read them any more. */
void zl_feed_forget(struct zl_feed *f);
void zl_feed_set(struct zl_feed *f, uint64_t got);
void zl_feed_end(struct zl_feed *f, bool failed);
/* The size of the file when it is whole and no larger than this; otherwise 0. */
size_t zl_feed_whole(struct zl_feed *f, size_t most);
/* Waits for bytes behind `at`: how many there are; 0: the file ends here. */
int64_t zl_feed_wait(struct zl_feed *f, uint64_t at, struct zl_err *err) ZL_MUST;
