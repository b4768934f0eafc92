// SPDX-License-Identifier: Apache-2.0
/* device.c - the streams of a vsock device
 *
 * Theory of operation: device_receive() finds the connection of a packet and acts on it;
 * device_next() takes one packet from each connection in the ready queue (conn.h) in turn. State
 * that must outlive a connection (a reset for ports nobody knows) stands in a queue of its own.
 *
 *     guest connects:  CONNECTING --host took it--> OPEN         refused --> reset
 *     host connects:   REQUESTED --RESPONSE--> OPEN              RST, time is up --> closed
 *     host is gone:    OPEN --SHUTDOWN both--> CLOSING --RST, time is up--> closed
 *     guest is gone:   OPEN --SHUTDOWN both from it: answered by RST--> LINGER until the host has
 * taken what the guest sent before
 */
#include "runtime/vsock/device.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "runtime/vsock/conn.h"

#define HOST_PORT_MIN (1u << 30)
#define HOST_PORT_MAX (1u << 31)

struct device *device_new(uint64_t guest_cid, size_t max, uint32_t first_port,
                          const struct device_host *host, void *self, const struct log *log,
                          struct error *err)
{
    struct device *d = calloc(1, sizeof(*d));

    if (!d) {
        error_oom(err);
        return NULL;
    }
    d->cid = guest_cid;
    d->max = max;
    d->next_port = HOST_PORT_MIN + first_port % (HOST_PORT_MAX - HOST_PORT_MIN);
    d->host = host;
    d->self = self;
    d->log = log;
    link_init(&d->all);
    link_init(&d->ready);
    link_init(&d->timed);
    return d;
}

void device_reset(struct device *d)
{
    struct link *l = d->all.next, *after;

    for (; l != &d->all; l = after) {
        struct conn *c = OF(l, all);

        after = l->next;
        if (c->state == CONN_OPEN)
            conn_linger(d, c);
        else if (c->state != CONN_LINGER)
            conn_free(d, c);
    }
    d->n_resets = 0;
}

void device_drop(struct device *d)
{
    while (link_in(&d->all))
        conn_free(d, OF(d->all.next, all));
    d->n_resets = 0;
}

void device_free(struct device *d)
{
    if (!d)
        return;
    device_drop(d);
    free(d);
}

static void receive_shutdown(struct device *d, struct conn *c, uint32_t flags, uint64_t now)
{
    c->guest_done |= !!(flags & PACKET_SHUTDOWN_SEND);
    if (flags & PACKET_SHUTDOWN_RCV && !c->guest_deaf) {
        c->guest_deaf = true;
        if (c->stream && !c->guest_done)
            d->host->shutdown(d->self, c->stream, SHUT_RD);
    }
    if (c->guest_done && c->guest_deaf) {
        device_push_reset(d, c->host_port, c->guest_port, PACKET_TYPE_STREAM);
        conn_linger(d, c);
    } else if (c->state == CONN_OPEN) {
        conn_drain(d, c, now);
    }
}

/* Tries to reach the host's end of a connection the guest asked for. It may be gone afterwards. */
static void try_connect(struct device *d, struct conn *c, uint64_t now)
{
    int rc = d->host->connect(d->self, c->host_port, c, &c->stream);

    if (rc == -EAGAIN && now < c->deadline) {
        c->retry = now + DEVICE_CONNECT_RETRY_NS;
        link_append(&d->timed, &c->timed);
    } else if (rc < 0) {
        d->count.refused++;
        conn_reset(d, c);
    } else {
        link_remove(&c->timed);
        c->state = CONN_OPEN;
        c->writable = true;
        d->count.connected++;
        conn_tell(d, c, PENDING_RESPONSE);
    }
}

static void receive_request(struct device *d, const struct packet *p, uint64_t now)
{
    struct conn *c = conn_find(d, p->dst_port, p->src_port);

    if (c) { /* the guest has forgotten it */
        conn_reset(d, c);
        return;
    }
    c = conn_new(d, p->dst_port, p->src_port, CONN_CONNECTING);
    if (!c) {
        d->count.refused++;
        log_debug(d->log, "vsock: too many streams, connect refused",
                  log_uint("port", p->dst_port));
        device_push_reset(d, p->dst_port, p->src_port, p->type);
        return;
    }
    c->peer_buf_alloc = p->buf_alloc;
    c->peer_fwd_cnt = p->fwd_cnt;
    c->deadline = now + DEVICE_CONNECT_TIMEOUT_NS;
    try_connect(d, c, now);
}

static void receive_rst(struct device *d, struct conn *c)
{
    if (c->state == CONN_REQUESTED)
        d->count.refused++;
    if (c->state == CONN_OPEN && c->guest_done) /* it was done sending: that still counts */
        conn_linger(d, c);
    else
        conn_free(d, c);
}

static void receive_response(struct device *d, struct conn *c)
{
    if (c->state != CONN_REQUESTED) {
        conn_reset(d, c);
        return;
    }
    link_remove(&c->timed);
    c->state = CONN_OPEN;
    c->writable = true;
    d->count.accepted++;
    d->host->established(d->self, c->stream, c->host_port);
    conn_tell(d, c, PENDING_DATA); /* bytes may have come before */
}

static void drop(struct device *d, const char *why, const struct packet *p)
{
    d->count.dropped++;
    log_debug(d->log, "vsock: packet dropped", log_str("why", why), log_uint("op", p ? p->op : 0),
              log_uint("port", p ? p->dst_port : 0), log_uint("guest-port", p ? p->src_port : 0));
}

void device_receive(struct device *d, const uint8_t *data, size_t len, uint64_t now)
{
    struct packet p;
    struct conn *c;

    if (len < PACKET_HEADER_SIZE) {
        drop(d, "shorter than a header", NULL);
        return;
    }
    packet_decode(data, &p);
    if (p.src_cid != d->cid || p.dst_cid != PACKET_HOST_CID) {
        drop(d, "wrong context id", &p);
        return;
    }
    if (p.op == PACKET_RW && p.len > len - PACKET_HEADER_SIZE) {
        drop(d, "longer than its buffers", &p);
        return;
    }
    if (p.type != PACKET_TYPE_STREAM) {
        drop(d, "not of type stream", &p);
        if (p.op != PACKET_RST)
            device_push_reset(d, p.dst_port, p.src_port, p.type);
        return;
    }
    if (p.op == PACKET_REQUEST) {
        receive_request(d, &p, now);
        return;
    }
    c = conn_find(d, p.dst_port, p.src_port);
    if (!c) {
        if (p.op != PACKET_RST)
            device_push_reset(d, p.dst_port, p.src_port, p.type);
        return;
    }
    c->peer_buf_alloc = p.buf_alloc;
    c->peer_fwd_cnt = p.fwd_cnt;
    c->asked = false;
    switch (p.op) {
    case PACKET_RESPONSE:
        receive_response(d, c);
        return;
    case PACKET_RST:
        receive_rst(d, c);
        return;
    case PACKET_SHUTDOWN:
        receive_shutdown(d, c, p.flags, now);
        return;
    case PACKET_RW:
        if (c->state == CONN_OPEN && !c->guest_done)
            conn_take(d, c, data + PACKET_HEADER_SIZE, p.len, now);
        else if (c->state != CONN_CLOSING) /* nobody takes it then, and the guest has been told */
            conn_reset(d, c);
        return;
    case PACKET_CREDIT_UPDATE:
        conn_update(d, c);
        return;
    case PACKET_CREDIT_REQUEST:
        conn_tell(d, c, PENDING_CREDIT);
        return;
    default:
        drop(d, "unknown operation", &p);
        conn_reset(d, c);
    }
}

bool device_full(const struct device *d)
{
    return d->n_resets == DEVICE_RESETS_MAX;
}

bool device_pending(const struct device *d)
{
    return d->n_resets > 0 || link_in(&d->ready);
}

/* Reads from the stream behind the header. Returns the bytes read, 0 when there is no packet to
 * make of it now. */
static uint32_t read_data(struct device *d, struct conn *c, uint8_t *buf, size_t size, uint64_t now)
{
    size_t want = conn_credit(c);
    ssize_t n;

    if (want > size)
        want = size;
    if (want > DEVICE_PAYLOAD_MAX)
        want = DEVICE_PAYLOAD_MAX;
    n = d->host->read(d->self, c->stream, buf, want);
    if (n > 0) {
        c->sent += (uint32_t)n;
        d->count.bytes_to_guest += (uint64_t)n;
        if (conn_credit(c) == 0 && !c->asked) {
            c->asked = true;
            c->pending |= PENDING_ASK_CREDIT;
        }
        return (uint32_t)n;
    }
    c->pending &= ~(unsigned)PENDING_DATA;
    if (n == -EAGAIN)
        return 0;
    if (n < 0) { /* the other end went away without taking what it was sent */
        c->pending = PENDING_RST;
        return 0;
    }
    c->host_done = true;
    if (c->host_hup || c->host_deaf)
        conn_host_gone(d, c, now);
    else
        conn_tell(d, c, PENDING_SHUTDOWN);
    return 0;
}

/* Chooses what to say for this connection. Returns the operation, 0 for nothing. */
static uint16_t choose(struct device *d, struct conn *c, uint8_t *buf, size_t size, uint64_t now,
                       uint32_t *len)
{
    static const struct {
        unsigned bit;
        uint16_t op;
    } words[] = {
        {PENDING_RST, PACKET_RST},
        {PENDING_REQUEST, PACKET_REQUEST},
        {PENDING_RESPONSE, PACKET_RESPONSE},
        {PENDING_CREDIT, PACKET_CREDIT_UPDATE},
        {PENDING_ASK_CREDIT, PACKET_CREDIT_REQUEST},
        {PENDING_SHUTDOWN, PACKET_SHUTDOWN},
    };

    /* Data first among the rest: it carries the credit along, and it comes before the end. */
    if (!(c->pending & (PENDING_RST | PENDING_REQUEST | PENDING_RESPONSE)) &&
        conn_tellable(c) & PENDING_DATA) {
        *len = read_data(d, c, buf, size, now);
        if (*len > 0)
            return PACKET_RW;
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (c->pending & words[i].bit) {
            c->pending &= ~words[i].bit;
            return words[i].op;
        }
    return 0;
}

size_t device_next(struct device *d, uint8_t *buf, size_t size, uint64_t now)
{
    struct packet p = {.src_cid = PACKET_HOST_CID, .dst_cid = d->cid, .type = PACKET_TYPE_STREAM};

    if (d->n_resets > 0) {
        const struct reset *r = &d->resets[d->resets_start];

        p.op = PACKET_RST;
        p.type = r->type;
        p.src_port = r->host_port;
        p.dst_port = r->guest_port;
        d->resets_start = (d->resets_start + 1) % DEVICE_RESETS_MAX;
        d->n_resets--;
        packet_encode(&p, buf);
        return PACKET_HEADER_SIZE;
    }
    while (link_in(&d->ready)) {
        struct conn *c = OF(d->ready.next, ready);

        link_remove(&c->ready); /* to the end of the queue, if it has more to say */
        p.op = choose(d, c, buf + PACKET_HEADER_SIZE, size - PACKET_HEADER_SIZE, now, &p.len);
        if (p.op == 0) {
            conn_update(d, c);
            continue;
        }
        if (p.op == PACKET_SHUTDOWN)
            p.flags = (c->host_done ? PACKET_SHUTDOWN_SEND : 0) |
                      (c->host_deaf ? PACKET_SHUTDOWN_RCV : 0);
        p.src_port = c->host_port;
        p.dst_port = c->guest_port;
        p.buf_alloc = c->buf_alloc;
        p.fwd_cnt = c->told = c->forwarded;
        c->pending &= ~(unsigned)PENDING_CREDIT;
        packet_encode(&p, buf);
        if (p.op == PACKET_RST)
            conn_free(d, c);
        else
            conn_update(d, c);
        return PACKET_HEADER_SIZE + p.len;
    }
    return 0;
}

struct conn *device_open(struct device *d, uint32_t port, void *stream, uint64_t timeout_ns,
                         uint64_t now, struct error *err)
{
    struct conn *c;
    uint32_t host_port;

    do { /* ends: there are more ports than streams */
        host_port = d->next_port;
        d->next_port = host_port + 1 < HOST_PORT_MAX ? host_port + 1 : HOST_PORT_MIN;
    } while (conn_find(d, host_port, port));
    c = conn_new(d, host_port, port, CONN_REQUESTED);
    if (!c) {
        error_set(err, EMFILE, "vsock: more than %zu streams at once", d->max);
        return NULL;
    }
    c->stream = stream;
    c->deadline = now + timeout_ns;
    c->retry = UINT64_MAX;
    link_append(&d->timed, &c->timed);
    conn_tell(d, c, PENDING_REQUEST);
    return c;
}

void device_ready(struct device *d, struct conn *c, bool readable, bool writable, bool hup,
                  uint64_t now)
{
    c->host_hup |= hup;
    if (c->state == CONN_REQUESTED) {
        if (hup) /* nobody waits for the answer; a guest that answers all the same hears RST */
            conn_tell(d, c, PENDING_RST);
        return;
    }
    if (hup && (c->host_done || c->guest_deaf) && c->state == CONN_OPEN) {
        conn_host_gone(d, c, now);
        return;
    }
    /* With nobody there the end of the data shows in a read. */
    if (readable || hup)
        conn_tell(d, c, PENDING_DATA);
    if (writable && !c->writable) {
        c->writable = true;
        conn_drain(d, c, now);
    }
}

uint64_t device_tick(struct device *d, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    struct link *l = d->timed.next, *after;

    for (; l != &d->timed; l = after) {
        struct conn *c = OF(l, timed);

        after = l->next;
        if (c->state == CONN_CONNECTING ? now >= c->retry : now >= c->deadline) {
            if (c->state == CONN_CONNECTING) {
                uint64_t at = now + DEVICE_CONNECT_RETRY_NS;

                try_connect(d, c, now); /* may free it */
                next = at < next ? at : next;
                continue;
            }
            if (c->state == CONN_REQUESTED)
                d->count.refused++;
            link_remove(&c->timed);
            c->pending = PENDING_RST;
            if (c->stream)
                d->host->close(d->self, c->stream);
            c->stream = NULL;
            c->state = CONN_CLOSING;
            conn_update(d, c);
            continue;
        }
        if (c->state == CONN_CONNECTING && c->retry < next)
            next = c->retry;
        if (c->state != CONN_CONNECTING && c->deadline < next)
            next = c->deadline;
    }
    return next;
}

size_t device_streams(const struct device *d)
{
    return d->n;
}

const struct device_counters *device_count(const struct device *d)
{
    return &d->count;
}
