// SPDX-License-Identifier: Apache-2.0
/* chunks.c - a file's content passing through in pieces, hashed (and written) by threads */
#include "blueprint/pack/chunks.h"

#include <stdbool.h>
#include <string.h>

#include "blueprint/pack/pack.h"
#include "runtime/base/io.h"
#include "runtime/base/workers.h"

#define RING 16u
#define PAGE 4096u

struct chunk {
    struct chunks *owner;
    uint8_t *data;
    uint64_t offset;
    size_t len;
    bool used, busy; /* holds a sum that is not taken yet; a job works on it */
    uint8_t sum[SHA256_SIZE];
};

struct chunks {
    struct workers *workers;
    struct digest *outer;
    uint8_t *memory;
    uint8_t zero_sum[SHA256_SIZE]; /* of a whole chunk of zeros */
    struct chunk ring[RING];
    unsigned next; /* the chunk that is taken next */
    uint64_t offset;
    int fd;
    const char *what;

    pthread_mutex_t lock; /* guards busy of all chunks, and failed */
    pthread_cond_t done;
    bool failed;
};

struct chunks *chunks_new(unsigned threads, struct error *err)
{
    struct chunks *c = calloc(1, sizeof(*c));

    if (!c) {
        (void)error_oom(err);
        return NULL;
    }
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->done, NULL);
    c->fd = -1;
    c->memory = aligned_alloc(PAGE, (size_t)RING * PACK_CHUNK);
    if (!c->memory) {
        (void)error_oom(err);
        goto fail;
    }
    memset(c->memory, 0, PACK_CHUNK);
    if (digest_of(c->memory, PACK_CHUNK, c->zero_sum, err) < 0 || !(c->outer = digest_new(err)) ||
        !(c->workers = workers_new(threads, RING, err)))
        goto fail;
    for (unsigned i = 0; i < RING; i++) {
        c->ring[i].owner = c;
        c->ring[i].data = c->memory + (size_t)i * PACK_CHUNK;
    }
    return c;
fail:
    chunks_free(c);
    return NULL;
}

void chunks_free(struct chunks *c)
{
    if (!c)
        return;
    workers_free(c->workers);
    digest_free(c->outer);
    free(c->memory);
    pthread_cond_destroy(&c->done);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void chunks_begin(struct chunks *c, int fd, const char *what)
{
    c->fd = fd;
    c->what = what;
    c->offset = 0;
}

static void finish_job(struct chunk *k, bool failed)
{
    struct chunks *c = k->owner;
    lock_scope(&c->lock);

    k->busy = false;
    c->failed = c->failed || failed;
    (void)pthread_cond_signal(&c->done);
}

/* Runs of pages that are not zero. */
static int write_data(const struct chunk *k, struct error *err)
{
    const struct chunks *c = k->owner;
    size_t at = 0;

    while (at < k->len) {
        size_t n = k->len - at < PAGE ? k->len - at : PAGE;
        if (io_is_zero(k->data + at, n)) {
            at += n;
            continue;
        }
        size_t start = at;
        while (at < k->len) {
            n = k->len - at < PAGE ? k->len - at : PAGE;
            if (io_is_zero(k->data + at, n))
                break;
            at += n;
        }
        if (io_pwrite(c->fd, k->data + start, at - start, k->offset + start, c->what, err) < 0)
            return -1;
    }
    return 0;
}

static int work(void *job, struct error *err)
{
    struct chunk *k = job;
    const struct chunks *c = k->owner;
    int rc;

    if (k->len == PACK_CHUNK && io_is_zero(k->data, k->len)) {
        memcpy(k->sum, c->zero_sum, SHA256_SIZE);
        rc = 0;
    } else {
        rc = digest_of(k->data, k->len, k->sum, err);
        if (rc == 0 && c->fd >= 0)
            rc = write_data(k, err);
    }
    finish_job(k, rc < 0);
    return rc;
}

static void drop(void *job)
{
    finish_job(job, true);
}

/* Takes the sum of a chunk that is used. */
static int retire(struct chunks *c, struct chunk *k, struct error *err)
{
    if (!k->used)
        return 0;
    (void)pthread_mutex_lock(&c->lock);
    while (k->busy)
        (void)pthread_cond_wait(&c->done, &c->lock);
    bool failed = c->failed;
    (void)pthread_mutex_unlock(&c->lock);
    k->used = false;
    if (failed) /* The pool has the reason. */
        return workers_finish(c->workers, err);
    return digest_update(c->outer, k->sum, SHA256_SIZE, err);
}

uint8_t *chunks_get(struct chunks *c, struct error *err)
{
    struct chunk *k = &c->ring[c->next];
    return retire(c, k, err) < 0 ? NULL : k->data;
}

static struct chunk *take(struct chunks *c, size_t len)
{
    struct chunk *k = &c->ring[c->next];

    c->next = (c->next + 1) % RING;
    k->offset = c->offset;
    k->len = len;
    k->used = true;
    c->offset += len;
    return k;
}

int chunks_put(struct chunks *c, size_t len, struct error *err)
{
    struct chunk *k = take(c, len);

    k->busy = true; /* No job knows it yet. */
    return workers_submit(c->workers, work, drop, k, err);
}

int chunks_put_zero(struct chunks *c, size_t len, struct error *err)
{
    uint8_t *data = chunks_get(c, err);

    if (!data)
        return -1;
    if (len < PACK_CHUNK) {
        memset(data, 0, len);
        return chunks_put(c, len, err);
    }
    memcpy(take(c, len)->sum, c->zero_sum, SHA256_SIZE);
    return 0;
}

int chunks_end(struct chunks *c, uint8_t ret_sum[SHA256_SIZE], struct error *err)
{
    int rc = 0;

    for (unsigned i = 0; i < RING; i++)
        if (retire(c, &c->ring[(c->next + i) % RING], rc < 0 ? NULL : err) < 0)
            rc = -1;
    return rc < 0 ? -1 : digest_final(c->outer, ret_sum, err);
}
