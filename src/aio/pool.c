#include "aio/pool.h"

#include "aio/loop_priv.h"
#include "base/alloc.h"
#include "base/assert.h"

#include <errno.h>
#include <pthread.h>

struct job {
    struct job *next;
    void (*work)(void *arg);
    void (*done)(void *arg, bool cancelled);
    void *arg;
};

struct queue {
    struct job *first, **tail;
};

struct zl_pool {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct queue waiting, finished; /* under lock */
    unsigned queued, queue_max, busy;
    bool stopping;
    uv_async_t async;
    pthread_t *threads;
    unsigned nthreads, started;
};

static void push(struct queue *q, struct job *j)
{
    j->next = NULL;
    *q->tail = j;
    q->tail = &j->next;
}

static struct job *pop(struct queue *q)
{
    struct job *j = q->first;
    if (j && !(q->first = j->next))
        q->tail = &q->first;
    return j;
}

static void *worker(void *arg)
{
    struct zl_pool *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        struct job *j;
        while (!(j = pop(&p->waiting)) && !p->stopping)
            pthread_cond_wait(&p->more, &p->lock);
        if (!j)
            break;
        p->queued--;
        pthread_mutex_unlock(&p->lock);
        j->work(j->arg);
        pthread_mutex_lock(&p->lock);
        push(&p->finished, j);
        uv_async_send(&p->async);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void complete(uv_async_t *async)
{
    struct zl_pool *p = async->data;
    for (;;) {
        pthread_mutex_lock(&p->lock);
        struct job *j = pop(&p->finished);
        pthread_mutex_unlock(&p->lock);
        if (!j)
            return;
        if (--p->busy == 0)
            uv_unref((uv_handle_t *)&p->async);
        j->done(j->arg, false);
        free(j);
    }
}

struct zl_pool *zl_pool_new(struct zl_loop *loop, unsigned threads, unsigned queue_max)
{
    struct zl_pool *p = zl_xcalloc(1, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->more, NULL);
    p->waiting.tail = &p->waiting.first;
    p->finished.tail = &p->finished.first;
    p->queue_max = queue_max;
    p->nthreads = threads;
    p->threads = zl_xcalloc(threads, sizeof *p->threads);
    zl_assert(uv_async_init(&loop->uv, &p->async, complete) == 0);
    p->async.data = p;
    uv_unref((uv_handle_t *)&p->async);
    return p;
}

static void release(uv_handle_t *h)
{
    struct zl_pool *p = h->data;
    free(p->threads);
    free(p);
}

struct zl_pool *zl_pool_free(struct zl_pool *p)
{
    if (!p)
        return NULL;
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    struct queue cancelled = p->waiting;
    p->waiting.first = NULL;
    p->waiting.tail = &p->waiting.first;
    pthread_cond_broadcast(&p->more);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->started; i++)
        pthread_join(p->threads[i], NULL);
    complete(&p->async);
    for (struct job *j = cancelled.first; j;) {
        struct job *next = j->next;
        j->done(j->arg, true);
        free(j);
        j = next;
    }
    pthread_cond_destroy(&p->more);
    pthread_mutex_destroy(&p->lock);
    uv_close((uv_handle_t *)&p->async, release);
    return NULL;
}

int zl_pool_submit(struct zl_pool *p, void (*work)(void *arg), void (*done)(void *arg, bool cancelled), void *arg)
{
    pthread_mutex_lock(&p->lock);
    if (p->queued >= p->queue_max) {
        pthread_mutex_unlock(&p->lock);
        return -EAGAIN;
    }
    struct job *j = zl_xcalloc(1, sizeof *j);
    j->work = work;
    j->done = done;
    j->arg = arg;
    push(&p->waiting, j);
    p->queued++;
    if (p->busy++ == 0)
        uv_ref((uv_handle_t *)&p->async);
    /* Threads are made when they are first needed: an idle agent has none. */
    if (p->started < p->nthreads && p->started < p->busy &&
        pthread_create(&p->threads[p->started], NULL, worker, p) == 0)
        p->started++;
    pthread_cond_signal(&p->more);
    pthread_mutex_unlock(&p->lock);
    return 0;
}
