// SPDX-License-Identifier: Apache-2.0
/* hasher.c - SHA-256 in a thread of its own */
#include "oci/layer/hasher.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct hasher {
    struct digest *digest; /* the thread's while pieces are queued */
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct {
        const void *data;
        size_t len;
    } pieces[HASHER_DEPTH];
    unsigned first, count; /* `first` is being hashed */
    bool stop, failed;
    struct error error;
};

static void *run(void *opaque)
{
    struct hasher *h = opaque;

    (void)pthread_mutex_lock(&h->lock);
    for (;;) {
        struct error err = ERROR_INIT;
        while (!h->stop && h->count == 0)
            (void)pthread_cond_wait(&h->changed, &h->lock);
        if (h->stop)
            break;
        const void *data = h->pieces[h->first].data;
        size_t len = h->pieces[h->first].len;
        (void)pthread_mutex_unlock(&h->lock);
        int rc = digest_update(h->digest, data, len, &err);
        (void)pthread_mutex_lock(&h->lock);
        if (rc < 0 && !h->failed) {
            h->failed = true;
            h->error = err;
        }
        h->first = (h->first + 1) % HASHER_DEPTH;
        h->count--;
        (void)pthread_cond_broadcast(&h->changed);
    }
    (void)pthread_mutex_unlock(&h->lock);
    return NULL;
}

static void destroy(struct hasher *h)
{
    digest_free(h->digest);
    (void)pthread_cond_destroy(&h->changed);
    (void)pthread_mutex_destroy(&h->lock);
    free(h);
}

struct hasher *hasher_new(struct error *err)
{
    struct hasher *h = calloc(1, sizeof(*h));

    if (!h) {
        error_oom(err);
        return NULL;
    }
    (void)pthread_mutex_init(&h->lock, NULL);
    (void)pthread_cond_init(&h->changed, NULL);
    h->digest = digest_new(err);
    int rc = h->digest ? pthread_create(&h->thread, NULL, run, h) : 0;
    if (rc != 0)
        error_num(err, rc, "start a thread");
    if (rc != 0 || !h->digest) {
        destroy(h);
        return NULL;
    }
    return h;
}

void hasher_free(struct hasher *h)
{
    if (!h)
        return;
    {
        lock_scope(&h->lock);
        h->stop = true;
        (void)pthread_cond_broadcast(&h->changed);
    }
    (void)pthread_join(h->thread, NULL);
    destroy(h);
}

void hasher_add(struct hasher *h, const void *data, size_t len)
{
    lock_scope(&h->lock);
    while (h->count == HASHER_DEPTH)
        (void)pthread_cond_wait(&h->changed, &h->lock);
    unsigned at = (h->first + h->count) % HASHER_DEPTH;
    h->pieces[at].data = data;
    h->pieces[at].len = len;
    h->count++;
    (void)pthread_cond_broadcast(&h->changed);
}

void hasher_wait(struct hasher *h, unsigned pieces)
{
    lock_scope(&h->lock);
    while (h->count > pieces)
        (void)pthread_cond_wait(&h->changed, &h->lock);
}

int hasher_final(struct hasher *h, uint8_t ret_sum[SHA256_SIZE], struct error *err)
{
    hasher_wait(h, 0);
    if (h->failed) {
        if (err)
            *err = h->error;
        return -1;
    }
    return digest_final(h->digest, ret_sum, err);
}
