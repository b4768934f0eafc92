// SPDX-License-Identifier: Apache-2.0
/* workers.c - a few threads that do independent pieces of work */
#include "runtime/base/workers.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>

struct job {
    int (*work)(void *job, struct error *err);
    void (*drop)(void *job);
    void *opaque;
};

struct workers {
    pthread_mutex_t lock; /* guards all below; no other lock is taken under it */
    pthread_cond_t more;  /* a job was queued, or the pool is closing */
    pthread_cond_t less;  /* a job was taken or finished */
    struct job *queue;    /* ring of `depth` places */
    unsigned depth, head, queued, running;
    bool closing, failed;
    struct error error; /* the first failure, when failed */
    unsigned n_threads;
    pthread_t *threads;
};

static unsigned processors(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
        return (unsigned)CPU_COUNT(&set);
    return 1;
}

/* Empties the queue; the lock is held. */
static void drop_queued(struct workers *w)
{
    while (w->queued) {
        struct job j = w->queue[w->head];
        w->head = (w->head + 1) % w->depth;
        w->queued--;
        if (j.drop)
            j.drop(j.opaque);
    }
}

static void *worker(void *opaque)
{
    struct workers *w = opaque;
    lock_scope(&w->lock);

    for (;;) {
        while (!w->queued && !w->closing)
            pthread_cond_wait(&w->more, &w->lock);
        if (!w->queued)
            return NULL;
        struct job j = w->queue[w->head];
        w->head = (w->head + 1) % w->depth;
        w->queued--;
        w->running++;
        pthread_cond_broadcast(&w->less);
        pthread_mutex_unlock(&w->lock);
        struct error err = ERROR_INIT;
        int rc = j.work(j.opaque, &err);
        pthread_mutex_lock(&w->lock);
        w->running--;
        if (rc < 0 && !w->failed) {
            w->failed = true;
            w->error = err;
            drop_queued(w);
        }
        pthread_cond_broadcast(&w->less);
    }
}

struct workers *workers_new(unsigned count, unsigned depth, struct error *err)
{
    struct workers *w = calloc(1, sizeof(*w));

    if (!w) {
        error_oom(err);
        return NULL;
    }
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    pthread_cond_init(&w->less, NULL);
    if (count == 0)
        count = processors();
    w->depth = depth ? depth : 1;
    w->queue = calloc(w->depth, sizeof(*w->queue));
    w->threads = calloc(count, sizeof(*w->threads));
    if (!w->queue || !w->threads) {
        error_oom(err);
        workers_free(w);
        return NULL;
    }
    while (w->n_threads < count) {
        int rc = pthread_create(&w->threads[w->n_threads], NULL, worker, w);
        if (rc != 0) {
            error_num(err, rc, "start a worker thread");
            workers_free(w);
            return NULL;
        }
        w->n_threads++;
    }
    return w;
}

int workers_submit(struct workers *w, int (*work)(void *job, struct error *err),
                   void (*drop)(void *job), void *job, struct error *err)
{
    bool failed;
    {
        lock_scope(&w->lock);
        while (w->queued == w->depth && !w->failed)
            pthread_cond_wait(&w->less, &w->lock);
        failed = w->failed;
        if (failed) {
            if (err)
                *err = w->error;
        } else {
            w->queue[(w->head + w->queued) % w->depth] =
                (struct job){.work = work, .drop = drop, .opaque = job};
            w->queued++;
            pthread_cond_signal(&w->more);
        }
    }
    if (failed && drop)
        drop(job);
    return failed ? -1 : 0;
}

int workers_finish(struct workers *w, struct error *err)
{
    lock_scope(&w->lock);

    while (w->queued || w->running)
        pthread_cond_wait(&w->less, &w->lock);
    if (w->failed) {
        if (err)
            *err = w->error;
        return -1;
    }
    return 0;
}

void workers_free(struct workers *w)
{
    if (!w)
        return;
    {
        lock_scope(&w->lock);
        w->closing = true;
        if (w->queue)
            drop_queued(w);
        pthread_cond_broadcast(&w->more);
    }
    for (unsigned i = 0; i < w->n_threads; i++)
        pthread_join(w->threads[i], NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->more);
    pthread_cond_destroy(&w->less);
    free(w->queue);
    free(w->threads);
    free(w);
}
