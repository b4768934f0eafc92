// SPDX-License-Identifier: Apache-2.0
/* stream.c - a layer blob, verified and inflated by a thread of its own
 *
 * The thread reads, hashes and inflates into a ring of chunks; the caller takes chunks out and
 * hashes what it takes. A full ring makes the thread wait, so memory is bounded by the ring. When
 * the bytes cannot be inflated the rest of the blob is hashed all the same: a blob that is not what
 * its descriptor says is reported as that, whatever else is wrong with it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "oci/layer/hasher.h"
#include "oci/layer/inflate.h"
#include "oci/layer/layer.h"
#include "runtime/base/digest.h"
#include "runtime/base/io.h"

#define RING_CHUNKS 8
#define CHUNK_SIZE (512u << 10)
#define INPUT_SIZE (256u << 10)
#define INPUTS HASHER_DEPTH /* buffers; one is being inflated, the others wait to be hashed */

struct layer_stream {
    int fd;
    struct image_layer layer;
    uint64_t max_bytes, max_ratio;
    const struct context *ctx;
    struct digest *out_digest; /* the caller's side */
    pthread_t thread;
    uint8_t *chunks[RING_CHUNKS];
    bool finished; /* the caller has seen the end */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    size_t lens[RING_CHUNKS];
    unsigned first, count; /* filled chunks; `first` belongs to the caller while `taken` */
    bool taken;
    bool stop;  /* the caller wants no more */
    bool ended; /* the thread is done: error says how */
    struct error error;
};

static int wrong_digest(const char *what, const uint8_t got[SHA256_SIZE],
                        const uint8_t want[SHA256_SIZE], struct error *err)
{
    char got_hex[SHA256_HEX_SIZE], want_hex[SHA256_HEX_SIZE];

    digest_hex(got, got_hex);
    digest_hex(want, want_hex);
    return error_set(err, EBADMSG, "%s is sha256:%s, but sha256:%s was promised", what, got_hex,
                     want_hex);
}

/* Waits for a free chunk; returns its number, -1 when the caller wants no more. */
static int free_chunk(struct layer_stream *s)
{
    lock_scope(&s->lock);
    while (!s->stop && s->count == RING_CHUNKS)
        (void)pthread_cond_wait(&s->changed, &s->lock);
    return s->stop ? -1 : (int)((s->first + s->count) % RING_CHUNKS);
}

static void push_chunk(struct layer_stream *s, int chunk, size_t len)
{
    lock_scope(&s->lock);
    s->lens[chunk] = len;
    s->count++;
    (void)pthread_cond_broadcast(&s->changed);
}

/* The thread's state while it fills chunks. */
struct filling {
    int chunk; /* -1 = none is open */
    size_t len;
    uint64_t total;
};

static int check_limits(const struct layer_stream *s, uint64_t in, uint64_t out, struct error *err)
{
    if (s->max_bytes && out > s->max_bytes)
        return error_set(err, E2BIG,
                         "inflates to more than the %llu bytes that are left of the limit "
                         "(--max-bytes)",
                         (unsigned long long)s->max_bytes);
    if (s->max_ratio && out > LAYER_RATIO_FLOOR && out / s->max_ratio > in)
        return error_set(err, E2BIG, "inflates to more than %llu times its size (--max-ratio)",
                         (unsigned long long)s->max_ratio);
    return 0;
}

/* Inflates one piece of input into as many chunks as it takes. Returns 1 when the caller stopped.
 */
static int inflate_piece(struct layer_stream *s, struct inflate *z, struct filling *f,
                         const uint8_t *in, size_t len, uint64_t in_total, struct error *err)
{
    for (;;) {
        if (f->chunk < 0) {
            f->chunk = free_chunk(s);
            f->len = 0;
            if (f->chunk < 0)
                return 1;
        }
        size_t before = f->len;
        if (inflate_run(z, &in, &len, s->chunks[f->chunk], CHUNK_SIZE, &f->len, err) < 0)
            return -1;
        f->total += f->len - before;
        if (check_limits(s, in_total, f->total, err) < 0)
            return -1;
        if (f->len < CHUNK_SIZE)
            return 0;
        push_chunk(s, f->chunk, f->len);
        f->chunk = -1;
        if (context_check(s->ctx, err) < 0)
            return -1;
    }
}

/* Reads the blob to its end. *inflated gets the first thing that went wrong with inflating. */
static int read_blob(struct layer_stream *s, struct inflate *z, struct hasher *h, uint8_t *bufs,
                     struct filling *f, struct error *inflated, struct error *err)
{
    uint64_t size = s->layer.blob.size, at = 0;
    uint8_t sum[SHA256_SIZE], extra;

    for (unsigned turn = 0; at < size; turn = (turn + 1) % INPUTS) {
        uint8_t *buf = bufs + (size_t)turn * INPUT_SIZE;
        size_t want = size - at < INPUT_SIZE ? (size_t)(size - at) : INPUT_SIZE;
        if (context_check(s->ctx, err) < 0)
            return -1;
        hasher_wait(h, INPUTS - 1);
        ssize_t n = io_pread(s->fd, buf, want, at, "blob", err);
        if (n < 0)
            return -1;
        if ((size_t)n < want)
            return error_set(err, EBADMSG,
                             "the blob ends after %llu bytes, its descriptor says %llu",
                             (unsigned long long)(at + (uint64_t)n), (unsigned long long)size);
        at += (uint64_t)n;
        hasher_add(h, buf, (size_t)n);
        if (inflated->code)
            continue;
        int rc = inflate_piece(s, z, f, buf, (size_t)n, at, inflated);
        if (rc > 0)
            return error_set(err, ECANCELED, "interrupted");
        /* A limit is no damage: a bomb is not read to its end. */
        if (rc < 0 && inflated->code != EBADMSG) {
            *err = *inflated;
            return -1;
        }
    }
    ssize_t more = io_pread(s->fd, &extra, 1, size, "blob", err);
    if (more < 0)
        return -1;
    if (more > 0)
        return error_set(err, EBADMSG, "the blob is longer than the %llu bytes of its descriptor",
                         (unsigned long long)size);
    if (hasher_final(h, sum, err) < 0)
        return -1;
    if (memcmp(sum, s->layer.blob.digest, SHA256_SIZE) != 0)
        return wrong_digest("the blob", sum, s->layer.blob.digest, err);
    if (!inflated->code)
        (void)inflate_end(z, inflated);
    if (inflated->code) {
        *err = *inflated;
        return -1;
    }
    if (f->chunk >= 0 && f->len)
        push_chunk(s, f->chunk, f->len);
    return 0;
}

static void *run(void *opaque)
{
    struct layer_stream *s = opaque;
    struct error err = ERROR_INIT, inflated = ERROR_INIT;
    struct filling f = {.chunk = -1};
    cleanup_inflate struct inflate *z = inflate_new(s->layer.compression, &err);
    cleanup_free uint8_t *bufs = malloc((size_t)INPUTS * INPUT_SIZE);
    /* Last, so that it goes first: its thread reads from the buffers. */
    cleanup_hasher struct hasher *h = z ? hasher_new(&err) : NULL;

    if (!bufs)
        error_oom(&err);
    else if (h)
        (void)read_blob(s, z, h, bufs, &f, &inflated, &err);
    lock_scope(&s->lock);
    s->error = err;
    s->ended = true;
    (void)pthread_cond_broadcast(&s->changed);
    return NULL;
}

static void free_stream(struct layer_stream *s)
{
    for (unsigned i = 0; i < RING_CHUNKS; i++)
        free(s->chunks[i]);
    digest_free(s->out_digest);
    (void)pthread_cond_destroy(&s->changed);
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
}

struct layer_stream *layer_stream_open(int fd, const struct image_layer *layer, uint64_t max_bytes,
                                       uint64_t max_ratio, const struct context *ctx,
                                       struct error *err)
{
    struct layer_stream *s = calloc(1, sizeof(*s));

    if (!s) {
        error_oom(err);
        return NULL;
    }
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->changed, NULL);
    s->fd = fd;
    s->layer = *layer;
    s->max_bytes = max_bytes;
    s->max_ratio = max_ratio;
    s->ctx = ctx;
    s->out_digest = digest_new(err);
    if (!s->out_digest)
        goto fail;
    for (unsigned i = 0; i < RING_CHUNKS; i++) {
        s->chunks[i] = malloc(CHUNK_SIZE);
        if (!s->chunks[i]) {
            error_oom(err);
            goto fail;
        }
    }
    int rc = pthread_create(&s->thread, NULL, run, s);
    if (rc != 0) {
        error_num(err, rc, "start a thread");
        goto fail;
    }
    return s;
fail:
    free_stream(s);
    return NULL;
}

int layer_stream_next(struct layer_stream *s, const uint8_t **ret_data, size_t *ret_len,
                      struct error *err)
{
    uint8_t sum[SHA256_SIZE];
    unsigned chunk = 0;
    bool got = false;

    if (s->finished) {
        *ret_len = 0;
        return 0;
    }
    if (context_check(s->ctx, err) < 0)
        return -1;
    {
        lock_scope(&s->lock);
        if (s->taken) {
            s->first = (s->first + 1) % RING_CHUNKS;
            s->count--;
            s->taken = false;
            (void)pthread_cond_broadcast(&s->changed);
        }
        while (s->count == 0 && !s->ended)
            (void)pthread_cond_wait(&s->changed, &s->lock);
        if (s->count) {
            got = s->taken = true;
            chunk = s->first;
        } else if (s->error.code) {
            if (err)
                *err = s->error;
            return -1;
        }
    }
    if (got) {
        if (digest_update(s->out_digest, s->chunks[chunk], s->lens[chunk], err) < 0)
            return -1;
        *ret_data = s->chunks[chunk];
        *ret_len = s->lens[chunk];
        return 0;
    }
    if (digest_final(s->out_digest, sum, err) < 0)
        return -1;
    if (memcmp(sum, s->layer.diff_id, SHA256_SIZE) != 0)
        return wrong_digest("the uncompressed layer (its diff_id)", sum, s->layer.diff_id, err);
    s->finished = true;
    *ret_len = 0;
    return 0;
}

void layer_stream_close(struct layer_stream *s)
{
    if (!s)
        return;
    {
        lock_scope(&s->lock);
        s->stop = true;
        (void)pthread_cond_broadcast(&s->changed);
    }
    (void)pthread_join(s->thread, NULL);
    free_stream(s);
}
