// SPDX-License-Identifier: Apache-2.0
/* device.c - the streams of a vsock device
 *
 * Theory of operation: a connection is found by its two ports. What it has to tell the guest is a
 * set of bits (`pending`); connections with any that can be told now stand in the ready queue, and
 * device_next() takes one packet from each in turn. State that must outlive a connection (a reset
 * for ports nobody knows) stands in a queue of its own.
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
#include <string.h>
#include <sys/socket.h>

#define TABLE_SIZE 1024 /* hash chains */
#define HOST_PORT_MIN (1u << 30)
#define HOST_PORT_MAX (1u << 31)

enum conn_state {
    CONN_CONNECTING, /* the host's end is not there yet; in the timed list */
    CONN_REQUESTED,  /* the guest has not answered yet; in the timed list */
    CONN_OPEN,
    CONN_CLOSING, /* no stream any more; the guest's RST is awaited; in the timed list */
    CONN_LINGER,  /* unknown to the guest, not in the table: what is buffered goes to the host */
};

enum {
    PENDING_RST = 1u << 0, /* the last word: the connection goes with it */
    PENDING_REQUEST = 1u << 1,
    PENDING_RESPONSE = 1u << 2,
    PENDING_SHUTDOWN = 1u << 3,
    PENDING_CREDIT = 1u << 4,     /* tell ours */
    PENDING_ASK_CREDIT = 1u << 5, /* ask for theirs */
    PENDING_DATA = 1u << 6,       /* the stream can be read */
};

/* Doubly linked ring; a link that points to itself is in no list. */
struct link {
    struct link *next, *prev;
};

struct conn {
    uint32_t host_port, guest_port;
    enum conn_state state;
    void *stream; /* NULL in CONNECTING and CLOSING */
    struct conn *hash_next;
    struct link all, ready, timed;
    uint64_t deadline, retry; /* timed: when it ends; when connect is tried again */
    unsigned pending;

    /* guest to host */
    uint32_t buf_alloc; /* what we told the guest */
    uint32_t received;  /* bytes taken from the guest */
    uint32_t forwarded; /* bytes of them handed to the host; the guest's view of it is `told` */
    uint32_t told;
    uint8_t *buf; /* buf_alloc bytes once needed: a ring of buf_len bytes from buf_start */
    uint32_t buf_start, buf_len;
    bool guest_done; /* the guest sends no more */
    bool write_shut; /* the host's end has been told */
    bool host_deaf;  /* the host takes no more: what comes is thrown away */
    bool writable;

    /* host to guest */
    uint32_t sent, peer_buf_alloc, peer_fwd_cnt;
    bool host_done;  /* the host sends no more */
    bool guest_deaf; /* the guest takes no more */
    bool host_hup;   /* nobody is at the host's end */
    bool asked;      /* for credit, since the last news of it */
};

struct reset {
    uint32_t host_port, guest_port;
    uint16_t type;
};

struct device {
    uint64_t cid;
    size_t max, n;
    uint32_t next_port;
    const struct device_host *host;
    void *self;
    const struct log *log;
    struct conn *table[TABLE_SIZE];
    struct link all, ready, timed;
    struct reset resets[DEVICE_RESETS_MAX];
    size_t resets_start, n_resets;
    struct device_counters count;
};

#define OF(l, member) ((struct conn *)((char *)(l)-offsetof(struct conn, member)))

static void link_init(struct link *l)
{
    l->next = l->prev = l;
}

static bool link_in(const struct link *l)
{
    return l->next != l;
}

static void link_remove(struct link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    link_init(l);
}

static void link_append(struct link *list, struct link *l)
{
    if (link_in(l))
        return;
    l->prev = list->prev;
    l->next = list;
    list->prev->next = l;
    list->prev = l;
}

static size_t hash(uint32_t host_port, uint32_t guest_port)
{
    return (host_port * 2654435761u ^ guest_port * 2246822519u) >> 7 & (TABLE_SIZE - 1);
}

static struct conn *find(const struct device *d, uint32_t host_port, uint32_t guest_port)
{
    struct conn *c = d->table[hash(host_port, guest_port)];

    while (c && (c->host_port != host_port || c->guest_port != guest_port))
        c = c->hash_next;
    return c;
}

static void unhash(struct device *d, struct conn *c)
{
    struct conn **p = &d->table[hash(c->host_port, c->guest_port)];

    while (*p && *p != c)
        p = &(*p)->hash_next;
    if (*p)
        *p = c->hash_next;
}

/* How many bytes the guest can take now. A guest that shrinks its buffer below what is on its way,
 * or that claims to have taken what was never sent, has no credit. */
static uint32_t credit(const struct conn *c)
{
    uint32_t in_flight = c->sent - c->peer_fwd_cnt;

    return in_flight < c->peer_buf_alloc ? c->peer_buf_alloc - in_flight : 0;
}

/* What of `pending` can be told now. */
static unsigned tellable(const struct conn *c)
{
    unsigned p = c->pending;

    if (p & PENDING_DATA && (c->state != CONN_OPEN || c->guest_deaf || c->host_done || !credit(c)))
        p &= ~(unsigned)PENDING_DATA;
    return p;
}

static void update_ready(struct device *d, struct conn *c)
{
    if (tellable(c))
        link_append(&d->ready, &c->ready);
    else
        link_remove(&c->ready);
}

static void tell(struct device *d, struct conn *c, unsigned what)
{
    c->pending |= what;
    update_ready(d, c);
}

static void conn_free(struct device *d, struct conn *c)
{
    unhash(d, c);
    link_remove(&c->all);
    link_remove(&c->ready);
    link_remove(&c->timed);
    if (c->stream)
        d->host->close(d->self, c->stream);
    free(c->buf);
    free(c);
    d->n--;
}

static struct conn *conn_new(struct device *d, uint32_t host_port, uint32_t guest_port,
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

static void push_reset(struct device *d, uint32_t host_port, uint32_t guest_port, uint16_t type)
{
    if (d->n_resets == DEVICE_RESETS_MAX)
        return; /* not with a caller that heeds device_full() */
    d->resets[(d->resets_start + d->n_resets++) % DEVICE_RESETS_MAX] =
        (struct reset){.host_port = host_port, .guest_port = guest_port, .type = type};
}

/* The guest hears RST and the connection goes; no other packet of it is owed any more. */
static void reset_conn(struct device *d, struct conn *c)
{
    if (device_full(d)) { /* then the connection itself keeps the place for the RST */
        if (c->stream)
            d->host->close(d->self, c->stream);
        c->stream = NULL;
        c->state = CONN_CLOSING;
        link_remove(&c->timed);
        c->pending = PENDING_RST;
        update_ready(d, c);
        return;
    }
    push_reset(d, c->host_port, c->guest_port, PACKET_TYPE_STREAM);
    conn_free(d, c);
}

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
    while (link_in(&d->all))
        conn_free(d, OF(d->all.next, all));
    d->n_resets = 0;
}

void device_free(struct device *d)
{
    if (!d)
        return;
    device_reset(d);
    free(d);
}

/* The guest's side of the connection is over, the host may still have to take bytes. */
static void linger(struct device *d, struct conn *c)
{
    if (c->buf_len == 0 || c->host_deaf || !c->stream) {
        conn_free(d, c);
        return;
    }
    unhash(d, c);
    link_remove(&c->timed);
    c->state = CONN_LINGER;
    c->pending = 0;
    update_ready(d, c);
    d->host->shutdown(d->self, c->stream, SHUT_RD);
}

/* Nothing will pass to or from the host: tell the guest, and forget the stream. */
static void host_gone(struct device *d, struct conn *c, uint64_t now)
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
    tell(d, c, PENDING_SHUTDOWN);
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
        tell(d, c, PENDING_CREDIT);
}

/* The host takes no more bytes; it may still send. */
static void set_host_deaf(struct device *d, struct conn *c, uint64_t now)
{
    c->host_deaf = true;
    c->forwarded += c->buf_len;
    c->buf_len = 0;
    if (c->state == CONN_LINGER || c->host_done)
        host_gone(d, c, now);
    else
        tell(d, c, PENDING_SHUTDOWN);
}

/* Hands what is buffered to the host, as far as it takes it. The connection may be gone afterwards.
 */
static void drain(struct device *d, struct conn *c, uint64_t now)
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
static void receive_data(struct device *d, struct conn *c, const uint8_t *data, uint32_t len,
                         uint64_t now)
{
    if (len > c->buf_alloc - (c->received - c->forwarded)) {
        log_debug(d->log, "vsock: the guest sent more than its credit, stream reset",
                  log_uint("port", c->host_port), log_uint("guest-port", c->guest_port));
        d->count.dropped++;
        reset_conn(d, c);
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
            reset_conn(d, c);
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

static void receive_shutdown(struct device *d, struct conn *c, uint32_t flags, uint64_t now)
{
    c->guest_done |= !!(flags & PACKET_SHUTDOWN_SEND);
    if (flags & PACKET_SHUTDOWN_RCV && !c->guest_deaf) {
        c->guest_deaf = true;
        if (c->stream && !c->guest_done)
            d->host->shutdown(d->self, c->stream, SHUT_RD);
    }
    if (c->guest_done && c->guest_deaf) {
        push_reset(d, c->host_port, c->guest_port, PACKET_TYPE_STREAM);
        linger(d, c);
    } else if (c->state == CONN_OPEN) {
        drain(d, c, now);
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
        reset_conn(d, c);
    } else {
        link_remove(&c->timed);
        c->state = CONN_OPEN;
        c->writable = true;
        d->count.connected++;
        tell(d, c, PENDING_RESPONSE);
    }
}

static void receive_request(struct device *d, const struct packet *p, uint64_t now)
{
    struct conn *c = find(d, p->dst_port, p->src_port);

    if (c) { /* the guest has forgotten it */
        reset_conn(d, c);
        return;
    }
    c = conn_new(d, p->dst_port, p->src_port, CONN_CONNECTING);
    if (!c) {
        d->count.refused++;
        log_debug(d->log, "vsock: too many streams, connect refused",
                  log_uint("port", p->dst_port));
        push_reset(d, p->dst_port, p->src_port, p->type);
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
        linger(d, c);
    else
        conn_free(d, c);
}

static void receive_response(struct device *d, struct conn *c)
{
    if (c->state != CONN_REQUESTED) {
        reset_conn(d, c);
        return;
    }
    link_remove(&c->timed);
    c->state = CONN_OPEN;
    c->writable = true;
    d->count.accepted++;
    d->host->established(d->self, c->stream, c->host_port);
    tell(d, c, PENDING_DATA); /* bytes may have come before */
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
            push_reset(d, p.dst_port, p.src_port, p.type);
        return;
    }
    if (p.op == PACKET_REQUEST) {
        receive_request(d, &p, now);
        return;
    }
    c = find(d, p.dst_port, p.src_port);
    if (!c) {
        if (p.op != PACKET_RST)
            push_reset(d, p.dst_port, p.src_port, p.type);
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
            receive_data(d, c, data + PACKET_HEADER_SIZE, p.len, now);
        else if (c->state != CONN_CLOSING) /* nobody takes it then, and the guest has been told */
            reset_conn(d, c);
        return;
    case PACKET_CREDIT_UPDATE:
        update_ready(d, c);
        return;
    case PACKET_CREDIT_REQUEST:
        tell(d, c, PENDING_CREDIT);
        return;
    default:
        drop(d, "unknown operation", &p);
        reset_conn(d, c);
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
    size_t want = credit(c);
    ssize_t n;

    if (want > size)
        want = size;
    if (want > DEVICE_PAYLOAD_MAX)
        want = DEVICE_PAYLOAD_MAX;
    n = d->host->read(d->self, c->stream, buf, want);
    if (n > 0) {
        c->sent += (uint32_t)n;
        d->count.bytes_to_guest += (uint64_t)n;
        if (credit(c) == 0 && !c->asked) {
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
        host_gone(d, c, now);
    else
        tell(d, c, PENDING_SHUTDOWN);
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
        tellable(c) & PENDING_DATA) {
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
            update_ready(d, c);
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
            update_ready(d, c);
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
    } while (find(d, host_port, port));
    c = conn_new(d, host_port, port, CONN_REQUESTED);
    if (!c) {
        error_set(err, EMFILE, "vsock: more than %zu streams at once", d->max);
        return NULL;
    }
    c->stream = stream;
    c->deadline = now + timeout_ns;
    c->retry = UINT64_MAX;
    link_append(&d->timed, &c->timed);
    tell(d, c, PENDING_REQUEST);
    return c;
}

void device_ready(struct device *d, struct conn *c, bool readable, bool writable, bool hup,
                  uint64_t now)
{
    c->host_hup |= hup;
    if (c->state == CONN_REQUESTED) {
        if (hup) /* nobody waits for the answer; a guest that answers all the same hears RST */
            tell(d, c, PENDING_RST);
        return;
    }
    if (hup && (c->host_done || c->guest_deaf) && c->state == CONN_OPEN) {
        host_gone(d, c, now);
        return;
    }
    /* With nobody there the end of the data shows in a read. */
    if (readable || hup)
        tell(d, c, PENDING_DATA);
    if (writable && !c->writable) {
        c->writable = true;
        drain(d, c, now);
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
            update_ready(d, c);
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
