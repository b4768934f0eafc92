// SPDX-License-Identifier: Apache-2.0
/* link.c - one connection of a migration: frames in order over a stream */
#include "runtime/migrate/link.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A bucket this deep lets short frames through at once and keeps the rate even over a tenth of a
 * second. */
#define BUCKET_NS UINT64_C(100000000)
#define SECOND_NS UINT64_C(1000000000)
#define LAST_WORD_NS (2 * SECOND_NS) /* for an ABORT to somebody who does not read */

struct link {
    struct stream *stream;
    const struct context *ctx;
    uint64_t idle_ns, bandwidth;
    uint8_t *buffer; /* of the receiver */
    uint64_t next_in;

    pthread_mutex_t send_lock; /* guards next_out and the order of bytes on the stream */
    uint64_t next_out;
    _Atomic bool broken; /* nobody need wait for the bucket any more */

    pthread_mutex_t pay_lock; /* guards free_at_ns; held for moments, with no other */
    uint64_t free_at_ns;      /* when the bucket lets the next byte go */

    pthread_mutex_t beat_lock; /* guards stop; never taken together with send_lock held */
    pthread_cond_t beat;
    bool stop, beating;
    pthread_t heart;
    _Atomic uint64_t last_sent_ns;
    _Atomic bool expires; /* link_expire() was called */
};

uint64_t link_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SECOND_NS + (uint64_t)ts.tv_nsec;
}

struct link *link_new(struct stream *stream, uint64_t idle_ns, uint64_t bandwidth,
                      const struct context *ctx, struct error *err)
{
    struct link *link = calloc(1, sizeof(*link));
    uint8_t *buffer = malloc(WIRE_PAYLOAD_MAX);
    pthread_condattr_t attr;

    if (!link || !buffer) {
        free(link);
        free(buffer);
        stream_close(stream);
        error_oom(err);
        return NULL;
    }
    link->stream = stream;
    link->ctx = ctx;
    link->idle_ns = idle_ns ? idle_ns : LINK_IDLE_DEFAULT_NS;
    link->bandwidth = bandwidth;
    link->buffer = buffer;
    (void)pthread_mutex_init(&link->send_lock, NULL);
    (void)pthread_mutex_init(&link->pay_lock, NULL);
    (void)pthread_mutex_init(&link->beat_lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&link->beat, &attr);
    (void)pthread_condattr_destroy(&attr);
    return link;
}

void link_break(struct link *link)
{
    atomic_store(&link->broken, true);
    stream_shutdown(link->stream);
}

void link_free(struct link *link)
{
    if (!link)
        return;
    {
        lock_scope(&link->beat_lock);
        link->stop = true;
        (void)pthread_cond_signal(&link->beat);
    }
    if (link->beating) {
        stream_shutdown(link->stream); /* the heart may be in a write that nobody reads */
        (void)pthread_join(link->heart, NULL);
    }
    stream_close(link->stream);
    (void)pthread_mutex_destroy(&link->send_lock);
    (void)pthread_mutex_destroy(&link->pay_lock);
    (void)pthread_mutex_destroy(&link->beat_lock);
    (void)pthread_cond_destroy(&link->beat);
    free(link->buffer);
    free(link);
}

/* Sends a PING whenever nothing was sent for a third of the idle time. */
static void *heartbeat(void *opaque)
{
    struct link *link = opaque;
    const uint64_t period = link->idle_ns / 3;
    lock_scope(&link->beat_lock);

    while (!link->stop) {
        uint64_t due = atomic_load(&link->last_sent_ns) + period;
        if (link_now_ns() >= due) {
            (void)pthread_mutex_unlock(&link->beat_lock);
            int rc = link_send_word(link, FRAME_PING, 0, NULL);
            (void)pthread_mutex_lock(&link->beat_lock);
            if (rc < 0)
                return NULL; /* the receiver finds the link broken by itself */
            continue;
        }
        struct timespec ts = {.tv_sec = (time_t)(due / SECOND_NS),
                              .tv_nsec = (long)(due % SECOND_NS)};
        (void)pthread_cond_timedwait(&link->beat, &link->beat_lock, &ts);
    }
    return NULL;
}

int link_greet(struct link *link, const struct greeting *ours, struct greeting *ret_theirs,
               struct error *err)
{
    uint8_t out[GREETING_SIZE], in[GREETING_SIZE];
    struct iovec iov = {out, sizeof(out)};
    struct greeting theirs;

    greeting_encode(ours, out);
    if (stream_write(link->stream, &iov, 1, link->idle_ns, link->ctx, err) < 0 ||
        stream_read(link->stream, in, sizeof(in), link->idle_ns, link->ctx, err) < 0)
        return -1;
    if (greeting_decode(in, &theirs, err) < 0)
        return error_wrap(err, "%s", stream_peer(link->stream));
    if (theirs.role == ours->role)
        return error_set(err, EPROTO, "%s: greeting: it wants to %s as well",
                         stream_peer(link->stream), ours->role == WIRE_SOURCE ? "send" : "receive");
    atomic_store(&link->last_sent_ns, link_now_ns());
    int rc = pthread_create(&link->heart, NULL, heartbeat, link);
    if (rc != 0)
        return error_num(err, rc, "start the heartbeat");
    link->beating = true;
    *ret_theirs = theirs;
    return 0;
}

/* Takes n bytes out of the bucket, and waits for its turn. Not under the send lock: a block that is
 * worth minutes must not keep signs of life, and the last word, from the wire. What has no payload
 * is paid for, and does not wait. */
static int pay(struct link *link, const struct frame *f, struct error *err)
{
    if (!link->bandwidth)
        return 0;
    uint64_t n = FRAME_HEADER_SIZE + f->length, now = link_now_ns(), turn;
    {
        lock_scope(&link->pay_lock);
        if (link->free_at_ns + BUCKET_NS < now)
            link->free_at_ns = now - BUCKET_NS;
        turn = link->free_at_ns;
        link->free_at_ns += (uint64_t)((__uint128_t)n * SECOND_NS / link->bandwidth);
    }
    for (; f->length && turn > now; now = link_now_ns()) {
        uint64_t left = turn - now < BUCKET_NS ? turn - now : BUCKET_NS;
        struct timespec nap = {.tv_nsec = (long)left};
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        if (context_check(link->ctx, err) < 0)
            return -1;
        if (atomic_load(&link->broken))
            return error_set(err, EPIPE, "%s: the connection was closed",
                             stream_peer(link->stream));
    }
    return 0;
}

/* ctx NULL: a last word, which neither a cancellation nor the rate holds back. */
static int send_frame(struct link *link, struct frame *f, const void *payload, uint64_t idle_ns,
                      const struct context *ctx, struct error *err)
{
    uint8_t header[FRAME_HEADER_SIZE];
    struct iovec iov[2] = {{header, sizeof(header)}, {(void *)payload, f->length}};

    frame_seal(f, payload);
    if (ctx && pay(link, f, err) < 0)
        return -1;
    lock_scope(&link->send_lock);
    f->sequence = link->next_out++;
    frame_encode(f, header);
    if (stream_write(link->stream, iov, 2, idle_ns, ctx, err) < 0) {
        /* Half a frame may be out: nothing sensible can follow it. */
        link_break(link);
        return error_wrap(err, "send %s", frame_name(f->type));
    }
    atomic_store_explicit(&link->last_sent_ns, link_now_ns(), memory_order_relaxed);
    return 0;
}

int link_send(struct link *link, struct frame *f, const void *payload, struct error *err)
{
    static const struct context none;

    return send_frame(link, f, payload, link->idle_ns, link->ctx ? link->ctx : &none, err);
}

int link_send_word(struct link *link, uint8_t type, uint64_t offset, struct error *err)
{
    struct frame f = {.type = type, .offset = offset};

    return link_send(link, &f, NULL, err);
}

void link_send_abort(struct link *link, uint64_t offset, const char *reason)
{
    size_t len = strlen(reason);
    struct frame f = {.type = FRAME_ABORT,
                      .offset = offset,
                      .length = (uint32_t)(len > WIRE_REASON_MAX ? WIRE_REASON_MAX : len)};

    /* Also whoever is in the middle of a frame, which the peer takes byte by byte, must come to an
     * end: a machine may stand still until this returns. */
    uint64_t idle_ns = link->idle_ns < LAST_WORD_NS ? link->idle_ns : LAST_WORD_NS;
    link_expire(link, idle_ns);
    (void)send_frame(link, &f, reason, idle_ns, NULL, NULL);
}

static int receive_one(struct link *link, struct frame *f, struct error *err)
{
    const struct context *ctx = atomic_load(&link->expires) ? NULL : link->ctx;
    uint8_t header[FRAME_HEADER_SIZE];

    if (stream_read(link->stream, header, sizeof(header), link->idle_ns, ctx, err) < 0)
        return -1;
    if (frame_decode(header, link->next_in, f, err) < 0)
        return error_wrap(err, "%s", stream_peer(link->stream));
    link->next_in++;
    if (f->length &&
        stream_read(link->stream, link->buffer, f->length, link->idle_ns, ctx, err) < 0) {
        /* An end right behind a header is in the middle of a frame all the same. */
        if (err && err->code == EPIPE)
            err->code = EBADMSG;
        return -1;
    }
    if (frame_check_payload(f, link->buffer, err) < 0)
        return error_wrap(err, "%s", stream_peer(link->stream));
    return 0;
}

int link_receive(struct link *link, struct frame *ret, const uint8_t **ret_payload,
                 struct error *err)
{
    for (;;) {
        struct frame f;
        if (receive_one(link, &f, err) < 0)
            return -1;
        if (f.type == FRAME_PING) {
            if (link_send_word(link, FRAME_PONG, f.offset, err) < 0)
                return -1;
        } else if (f.type != FRAME_PONG) {
            *ret = f;
            *ret_payload = link->buffer;
            return 0;
        }
    }
}

void link_expire(struct link *link, uint64_t ns)
{
    atomic_store(&link->expires, true);
    stream_expire(link->stream, ns);
}

void link_counters(const struct link *link, uint64_t *ret_received, uint64_t *ret_sent)
{
    stream_counters(link->stream, ret_received, ret_sent);
}

const char *link_peer(const struct link *link)
{
    return stream_peer(link->stream);
}
