// SPDX-License-Identifier: Apache-2.0
/* conn.c - one stream of a vsock device: its state and what moves through it */
#include "runtime/vsock/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static size_t hash(uint32_t host_port, uint32_t guest_port)
{
    return (host_port * 2654435761u ^ guest_port * 2246822519u) >> 7 & (DEVICE_TABLE - 1);
}

struct conn *conn_find(const struct device *d, uint32_t host_port, uint32_t guest_port)
{
    struct conn *c = d->table[hash(host_port, guest_port)];

    while (c && (c->host_port != host_port || c->guest_port != guest_port))
        c = c->hash_next;
    return c;
}

static void conn_unhash(struct device *d, struct conn *c)
{
    struct conn **p = &d->table[hash(c->host_port, c->guest_port)];

    while (*p && *p != c)
        p = &(*p)->hash_next;
    if (*p)
        *p = c->hash_next;
}

/* How many bytes the guest can take now. A guest that shrinks its buffer below what is on its way,
 * or that claims to have taken what was never sent, has no credit. */
uint32_t conn_credit(const struct conn *c)
{
    uint32_t in_flight = c->sent - c->peer_fwd_cnt;

    return in_flight < c->peer_buf_alloc ? c->peer_buf_alloc - in_flight : 0;
}

/* What of `pending` can be told now. */
unsigned conn_tellable(const struct conn *c)
{
    unsigned p = c->pending;

    if (p & PENDING_DATA &&
        (c->state != CONN_OPEN || c->guest_deaf || c->host_done || !conn_credit(c)))
        p &= ~(unsigned)PENDING_DATA;
    return p;
}

void conn_update(struct device *d, struct conn *c)
{
    if (conn_tellable(c))
        link_append(&d->ready, &c->ready);
    else
        link_remove(&c->ready);
}

void conn_tell(struct device *d, struct conn *c, unsigned what)
{
    c->pending |= what;
    conn_update(d, c);
}

void conn_free(struct device *d, struct conn *c)
{
    conn_unhash(d, c);
    link_remove(&c->all);
    link_remove(&c->ready);
    link_remove(&c->timed);
    if (c->stream)
        d->host->close(d->self, c->stream);
    free(c->buf);
    free(c);
    d->n--;
}

struct conn *conn_new(struct device *d, uint32_t host_port, uint32_t guest_port,
                      enum conn_state state)
{
    struct conn *c = d->n < d->max ? calloc(1, sizeof(*c)) : NULL;

    if (!c)
        return NULL;
    c->host_port = host_port;
    c->guest_port = guest_port;
    c->state = state;
    /* A big buffer is given only while there are fewer streams than may have one, so never to more.
     */
    c->buf_alloc = d->n < DEVICE_BIG_STREAMS ? DEVICE_BUFFER_BIG : DEVICE_BUFFER_SMALL;
    link_init(&c->ready);
    link_init(&c->timed);
    link_init(&c->all);
    link_append(&d->all, &c->all);
    c->hash_next = d->table[hash(host_port, guest_port)];
    d->table[hash(host_port, guest_port)] = c;
    d->n++;
    return c;
}

void device_push_reset(struct device *d, uint32_t host_port, uint32_t guest_port, uint16_t type)
{
    if (d->n_resets == DEVICE_RESETS_MAX)
        return; /* not with a caller that heeds device_full() */
    d->resets[(d->resets_start + d->n_resets++) % DEVICE_RESETS_MAX] =
        (struct reset){.host_port = host_port, .guest_port = guest_port, .type = type};
}

/* The guest hears RST and the connection goes; no other packet of it is owed any more. */
void conn_reset(struct device *d, struct conn *c)
{
    if (device_full(d)) { /* then the connection itself keeps the place for the RST */
        if (c->stream)
            d->host->close(d->self, c->stream);
        c->stream = NULL;
        c->state = CONN_CLOSING;
        link_remove(&c->timed);
        c->pending = PENDING_RST;
        conn_update(d, c);
        return;
    }
    device_push_reset(d, c->host_port, c->guest_port, PACKET_TYPE_STREAM);
    conn_free(d, c);
}

/* The guest's side of the connection is over, the host may still have to take bytes. */
void conn_linger(struct device *d, struct conn *c)
{
    if (c->buf_len == 0 || c->host_deaf || !c->stream) {
        conn_free(d, c);
        return;
    }
    conn_unhash(d, c);
    link_remove(&c->timed);
    c->state = CONN_LINGER;
    c->pending = 0;
    conn_update(d, c);
    d->host->shutdown(d->self, c->stream, SHUT_RD);
}

/* Nothing will pass to or from the host: tell the guest, and forget the stream. */
void conn_host_gone(struct device *d, struct conn *c, uint64_t now)
{
    if (c->state == CONN_LINGER) {
        conn_free(d, c);
        return;
    }
    c->host_done = c->host_deaf = true;
    if (c->stream)
        d->host->close(d->self, c->stream);
    c->stream = NULL;
    c->buf_len = 0;
    c->pending &= ~(unsigned)PENDING_DATA;
    c->state = CONN_CLOSING;
    c->deadline = now + DEVICE_CLOSE_TIMEOUT_NS;
    link_append(&d->timed, &c->timed);
    conn_tell(d, c, PENDING_SHUTDOWN);
}

/* Credit is news to the guest when it has become worth a packet: half of what it lets be on its
 * way. That is at most its own buffer, even if ours is larger: Linux has been limiting itself so
 * since 2026 ("vsock/virtio: cap TX credit to local buffer size"), and would wait for ever. */
static void forwarded(struct device *d, struct conn *c, uint32_t n)
{
    uint32_t window = c->buf_alloc < c->peer_buf_alloc ? c->buf_alloc : c->peer_buf_alloc;

    c->forwarded += n;
    d->count.bytes_from_guest += n;
    if (c->state == CONN_OPEN && c->forwarded - c->told >= window / 2)
        conn_tell(d, c, PENDING_CREDIT);
}

/* The host takes no more bytes; it may still send. */
static void set_host_deaf(struct device *d, struct conn *c, uint64_t now)
{
    c->host_deaf = true;
    c->forwarded += c->buf_len;
    c->buf_len = 0;
    if (c->state == CONN_LINGER || c->host_done)
        conn_host_gone(d, c, now);
    else
        conn_tell(d, c, PENDING_SHUTDOWN);
}

/* Hands what is buffered to the host, as far as it takes it. The connection may be gone afterwards.
 */
void conn_drain(struct device *d, struct conn *c, uint64_t now)
{
    while (c->buf_len > 0 && c->writable) {
        uint32_t run = c->buf_alloc - c->buf_start;
        ssize_t n = d->host->write(d->self, c->stream, c->buf + c->buf_start,
                                   run < c->buf_len ? run : c->buf_len);

        if (n == -EAGAIN || n == 0) {
            c->writable = false;
            return;
        }
        if (n < 0) {
            set_host_deaf(d, c, now);
            return;
        }
        c->buf_start = (c->buf_start + (uint32_t)n) % c->buf_alloc;
        c->buf_len -= (uint32_t)n;
        forwarded(d, c, (uint32_t)n);
    }
    if (c->buf_len > 0)
        return;
    if (c->state == CONN_LINGER) {
        conn_free(d, c);
    } else if (c->guest_done && !c->write_shut && c->stream) {
        c->write_shut = true;
        d->host->shutdown(d->self, c->stream, SHUT_WR);
    }
}

/* Payload of a stream that is open. */
void conn_take(struct device *d, struct conn *c, const uint8_t *data, uint32_t len, uint64_t now)
{
    if (len > c->buf_alloc - (c->received - c->forwarded)) {
        log_debug(d->log, "vsock: the guest sent more than its credit, stream reset",
                  log_uint("port", c->host_port), log_uint("guest-port", c->guest_port));
        d->count.dropped++;
        conn_reset(d, c);
        return;
    }
    c->received += len;
    if (c->host_deaf) {
        forwarded(d, c, len);
        return;
    }
    while (c->buf_len == 0 && c->writable && len > 0) {
        ssize_t n = d->host->write(d->self, c->stream, data, len);

        if (n == -EAGAIN || n == 0) {
            c->writable = false;
        } else if (n < 0) {
            c->forwarded += len;
            set_host_deaf(d, c, now);
            return;
        } else {
            data += n;
            len -= (uint32_t)n;
            forwarded(d, c, (uint32_t)n);
        }
    }
    if (len > 0 && !c->buf) {
        c->buf = malloc(c->buf_alloc);
        c->buf_start = 0;
        if (!c->buf) {
            log_warn(d->log, "vsock: out of memory, stream reset", log_uint("port", c->host_port));
            conn_reset(d, c);
            return;
        }
    }
    while (len > 0) { /* fits: buf_len is received less forwarded */
        uint32_t at = (c->buf_start + c->buf_len) % c->buf_alloc;
        uint32_t run = c->buf_alloc - at < len ? c->buf_alloc - at : len;

        memcpy(c->buf + at, data, run);
        c->buf_len += run;
        data += run;
        len -= run;
    }
}
