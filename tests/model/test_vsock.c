// SPDX-License-Identifier: Apache-2.0
/* test_vsock.c - random streams through the rings, against counters
 *
 * A well-behaved guest and well-behaved programs on the host do random things; what the model knows
 * of a stream is how many bytes each side has put in, whether it ended its side, and whether
 * anybody broke it off. Every byte is checked against a pattern of stream, direction and position,
 * and credit in both directions against the rules of virtio 1.2, section 5.10.6.3. At the end
 * everybody closes in peace: then all bytes must have arrived, in order, before the end, and no
 * stream may be left.
 */
#include <stdio.h>
#include <sys/socket.h>

#include "tests/lib/unit.h"
#include "tests/lib/vsock_guest.h"

#define NUM 16
#define SLOTS (NUM / 2)
#define SLOT_SIZE 0x2000u
#define STREAMS 40
#define FIRST_PORT 20000u
#define STEPS 20000
#define GUEST_BUFFER 20000u

enum { UNUSED, ASKED, OPEN, CLOSED };

struct side {
    uint64_t put, got; /* bytes this side has sent, and received */
    bool ended;        /* sends no more */
    bool saw_end;
};

struct stream { /* its index + FIRST_PORT is the guest's port */
    int state;
    bool from_guest;
    bool broken; /* somebody broke it off: bytes may be lost at the end */
    uint32_t host_port;
    struct conn *conn;
    bool host_open; /* the host's end is there */
    struct side guest, host;
    uint64_t written; /* by the host's program, of which host.put were read by the device */
    bool host_ended;  /* the program has ended its side */
    uint64_t space;   /* what the host's program takes now */
    uint32_t buf_alloc, fwd_cnt; /* the device's, as told */
    uint32_t unread, forwarded;  /* the guest's */
    bool said_end;               /* the guest's SHUTDOWN */
};

struct world {
    struct guest g;
    struct queues q;
    struct stream s[STREAMS];
    uint64_t dice, now;
    bool tx_busy[SLOTS], rx_busy[SLOTS];
    int busy_connects;
    bool peace; /* the end: nobody refuses anything */
};

static unsigned roll(struct world *w, unsigned n)
{
    return (unsigned)(unit_random(&w->dice) % n);
}

static uint8_t pattern(const struct world *w, const struct stream *s, bool to_guest, uint64_t at)
{
    return (uint8_t)((uint64_t)(s - w->s) * 31 + (to_guest ? 101 : 0) + at * 7 + (at >> 8) * 13);
}

/* The host */

static int do_connect(void *self, uint32_t port, struct conn *conn, void **ret_stream)
{
    struct world *w = self;
    struct stream *s = NULL;

    for (int i = 0; i < STREAMS; i++)
        if (w->s[i].state == ASKED && w->s[i].from_guest && w->s[i].host_port == port &&
            !w->s[i].host_open)
            s = &w->s[i];
    ck_assert_ptr_nonnull(s);
    if (port % 4 == 3)
        return -ECONNREFUSED;
    if (port % 4 == 2 && roll(w, 3) != 0)
        return -EAGAIN;
    s->conn = conn;
    s->host_open = true;
    *ret_stream = s;
    return 0;
}

static void do_established(void *self, void *stream, uint32_t port)
{
    struct stream *s = stream;

    (void)self;
    ck_assert_int_eq(s->host_port, port);
    ck_assert_int_eq(s->state, OPEN);
}

static ssize_t do_read(void *self, void *stream, void *buf, size_t len)
{
    struct world *w = self;
    struct stream *s = stream;
    uint64_t n = s->written - s->host.put;

    ck_assert(s->host_open);
    ck_assert_uint_gt(len, 0);
    if (n == 0)
        return s->host_ended ? 0 : -EAGAIN;
    n = n < len ? n : len;
    n = 1 + roll(w, (unsigned)n);
    for (uint64_t i = 0; i < n; i++)
        ((uint8_t *)buf)[i] = pattern(w, s, true, s->host.put + i);
    s->host.put += n;
    return (ssize_t)n;
}

static ssize_t do_write(void *self, void *stream, const void *buf, size_t len)
{
    struct world *w = self;
    struct stream *s = stream;
    uint64_t n = len < s->space ? len : s->space;

    ck_assert(s->host_open);
    ck_assert(!s->host.saw_end);
    if (n == 0)
        return -EAGAIN;
    for (uint64_t i = 0; i < n; i++)
        ck_assert_uint_eq(((const uint8_t *)buf)[i], pattern(w, s, false, s->host.got + i));
    s->host.got += n;
    s->space -= n;
    return (ssize_t)n;
}

static void all_arrived_at_host(const struct stream *s)
{
    if (!s->broken)
        ck_assert_uint_eq(s->host.got, s->guest.put);
}

static void do_shutdown(void *self, void *stream, int how)
{
    struct stream *s = stream;

    (void)self;
    ck_assert(s->host_open);
    if (how == SHUT_WR) {
        ck_assert(s->said_end);
        all_arrived_at_host(s);
        s->host.saw_end = true;
    }
}

static void do_close(void *self, void *stream)
{
    struct world *w = self;
    struct stream *s = stream;

    ck_assert(s->host_open);
    s->host_open = false;
    if (w->peace && s->said_end)
        all_arrived_at_host(s);
}

static const struct device_host host_ops = {
    .connect = do_connect,
    .established = do_established,
    .read = do_read,
    .write = do_write,
    .shutdown = do_shutdown,
    .close = do_close,
};

/* The guest */

static uint32_t rx_at(unsigned slot) /* in ram; the receive buffers are in high memory */
{
    return GUEST_LOW + slot * SLOT_SIZE;
}

static uint32_t tx_at(unsigned slot)
{
    return GUEST_HEAP + slot * SLOT_SIZE;
}

/* The place of indirect tables. */
static uint32_t table_at(unsigned ring, unsigned slot)
{
    return GUEST_HEAP + SLOTS * SLOT_SIZE + (ring * SLOTS + slot) * 64;
}

/* Offers [addr, addr + len) in one descriptor, two, or an indirect table of two. */
static void offer(struct world *w, unsigned ring, unsigned slot, uint64_t addr, uint32_t len)
{
    struct guest *g = &w->g;
    uint16_t flags = ring == QUEUES_RX ? RING_DESC_WRITE : 0, first = (uint16_t)(2 * slot);
    uint32_t cut = 1 + roll(w, len - 1);

    switch (roll(w, 3)) {
    case 0:
        guest_desc(g, ring, first, addr, len, flags, 0);
        break;
    case 1:
        guest_desc(g, ring, first, addr, cut, flags | RING_DESC_NEXT, first + 1);
        guest_desc(g, ring, first + 1u, addr + cut, len - cut, flags, 0);
        break;
    default: {
        uint8_t *t = g->ram + table_at(ring, slot);

        put_le64(t, addr);
        put_le32(t + 8, cut);
        put_le16(t + 12, flags | RING_DESC_NEXT);
        put_le16(t + 14, 1);
        put_le64(t + 16, addr + cut);
        put_le32(t + 24, len - cut);
        put_le16(t + 28, flags);
        put_le16(t + 30, 0);
        guest_desc(g, ring, first, table_at(ring, slot), 32, RING_DESC_INDIRECT, 0);
    }
    }
    guest_avail(g, ring, first);
}

static void pump(struct world *w);

static void guest_send(struct world *w, struct stream *s, uint16_t op, uint32_t flags, uint32_t len)
{
    struct packet p = {.src_cid = 3,
                       .dst_cid = 2,
                       .src_port = FIRST_PORT + (uint32_t)(s - w->s),
                       .dst_port = s->host_port,
                       .len = len,
                       .type = 1,
                       .op = op,
                       .flags = flags,
                       .buf_alloc = GUEST_BUFFER,
                       .fwd_cnt = s->forwarded};
    struct error err = ERROR_INIT;
    unsigned slot = 0;
    uint8_t *ram;

    while (slot < SLOTS && w->tx_busy[slot])
        slot++;
    if (slot == SLOTS) {
        uint32_t head, used;

        /* A device that is not full always takes all of them. */
        for (int i = 0; !guest_used(&w->g, QUEUES_TX, &head, &used); i++) {
            bool more;

            ck_assert_int_lt(i, 3);
            ck_assert_int_eq(queues_kick(&w->q, QUEUES_TX, &err), 0);
            ck_assert_msg(queues_pump(&w->q, w->now, &more, &err) == 0, "%s", err.text);
        }
        ck_assert_uint_eq(used, 0);
        slot = head / 2;
    }
    w->tx_busy[slot] = true;
    ram = w->g.ram + tx_at(slot);
    packet_encode(&p, ram);
    for (uint32_t i = 0; i < len; i++)
        ram[PACKET_HEADER_SIZE + i] = pattern(w, s, false, s->guest.put + i);
    s->guest.put += len;
    offer(w, QUEUES_TX, slot, tx_at(slot), PACKET_HEADER_SIZE + len);
}

static void guest_receive(struct world *w, const uint8_t *raw, uint32_t len)
{
    struct packet p;
    struct stream *s;

    ck_assert_uint_ge(len, PACKET_HEADER_SIZE);
    packet_decode(raw, &p);
    ck_assert_uint_eq(p.src_cid, 2);
    ck_assert_uint_eq(p.dst_cid, 3);
    ck_assert_uint_eq(p.type, 1);
    ck_assert_uint_eq(p.len, len - PACKET_HEADER_SIZE);
    ck_assert(p.dst_port >= FIRST_PORT && p.dst_port < FIRST_PORT + STREAMS);
    s = &w->s[p.dst_port - FIRST_PORT];
    if (s->state == CLOSED) /* of before the guest's RST arrived */
        return;
    if (p.op == PACKET_REQUEST) {
        ck_assert(!s->from_guest);
        ck_assert_int_eq(s->state, ASKED);
        s->host_port = p.src_port;
        s->buf_alloc = p.buf_alloc;
        if (!w->peace && roll(w, 5) == 0) {
            guest_send(w, s, PACKET_RST, 0, 0);
            s->state = CLOSED;
            s->broken = true;
            return;
        }
        s->state = OPEN;
        guest_send(w, s, PACKET_RESPONSE, 0, 0);
        return;
    }
    ck_assert_uint_eq(p.src_port, s->host_port);
    if (p.op != PACKET_RST) { /* which tells of no credit */
        s->buf_alloc = p.buf_alloc;
        s->fwd_cnt = p.fwd_cnt;
        ck_assert_uint_le((uint32_t)(s->guest.put - s->fwd_cnt), s->buf_alloc);
    }
    switch (p.op) {
    case PACKET_RESPONSE:
        ck_assert(s->from_guest);
        ck_assert_int_eq(s->state, ASKED);
        s->state = OPEN;
        break;
    case PACKET_RW:
        ck_assert_int_eq(s->state, OPEN);
        ck_assert(!s->guest.saw_end);
        ck_assert_uint_le(s->unread + p.len, GUEST_BUFFER);
        for (uint32_t i = 0; i < p.len; i++)
            ck_assert_uint_eq(raw[PACKET_HEADER_SIZE + i], pattern(w, s, true, s->guest.got + i));
        s->guest.got += p.len;
        s->unread += p.len;
        break;
    case PACKET_SHUTDOWN:
        if (p.flags & PACKET_SHUTDOWN_SEND) {
            ck_assert(s->host_ended);
            ck_assert_uint_eq(s->guest.got, s->written);
            s->guest.saw_end = true;
        }
        if (p.flags == PACKET_SHUTDOWN_BOTH) {
            guest_send(w, s, PACKET_RST, 0, 0);
            s->state = CLOSED;
        }
        break;
    case PACKET_RST:
        if (s->state == ASKED)
            ck_assert_uint_eq(s->host_port % 4 == 3 || s->broken || s->host_port % 4 == 2, 1);
        else
            ck_assert(s->broken || (s->said_end && s->guest.ended));
        s->state = CLOSED;
        break;
    case PACKET_CREDIT_REQUEST:
        guest_send(w, s, PACKET_CREDIT_UPDATE, 0, 0);
        break;
    default:
        ck_assert_int_eq(p.op, PACKET_CREDIT_UPDATE);
    }
}

static void give_buffers(struct world *w)
{
    for (unsigned slot = 0; slot < SLOTS; slot++)
        if (!w->rx_busy[slot] && roll(w, 2)) {
            w->rx_busy[slot] = true;
            offer(w, QUEUES_RX, slot, GUEST_HIGH + slot * SLOT_SIZE, 46 + roll(w, 5000));
        }
}

static void pump(struct world *w)
{
    struct error err = ERROR_INIT;
    uint32_t head, len;
    bool more = true;

    ck_assert_int_eq(queues_kick(&w->q, QUEUES_TX, &err), 0);
    ck_assert_int_eq(queues_kick(&w->q, QUEUES_RX, &err), 0);
    while (more)
        ck_assert_msg(queues_pump(&w->q, w->now, &more, &err) == 0, "%s", err.text);
    while (guest_used(&w->g, QUEUES_TX, &head, &len))
        w->tx_busy[head / 2] = false;
    while (guest_used(&w->g, QUEUES_RX, &head, &len)) {
        w->rx_busy[head / 2] = false;
        guest_receive(w, w->g.ram + rx_at(head / 2), len);
    }
}

static struct stream *fresh(struct world *w)
{
    for (int i = 0; i < STREAMS; i++)
        if (w->s[i].state == UNUSED)
            return &w->s[i];
    return NULL;
}

static void open_one(struct world *w)
{
    struct stream *s = fresh(w);
    struct error err = ERROR_INIT;

    if (!s)
        return;
    s->state = ASKED;
    if (roll(w, 2)) {
        s->from_guest = true;
        s->host_port = 1000 + (uint32_t)(s - w->s) * 4 + roll(w, 4);
        guest_send(w, s, PACKET_REQUEST, 0, 0);
    } else {
        s->host_open = true;
        s->conn = device_open(w->q.device, FIRST_PORT + (uint32_t)(s - w->s), s, UINT64_MAX / 2,
                              w->now, &err);
        ck_assert_ptr_nonnull(s->conn);
    }
}

static void guest_writes(struct world *w, struct stream *s)
{
    uint32_t credit = s->buf_alloc - (uint32_t)(s->guest.put - s->fwd_cnt), n = roll(w, 8000);

    if (s->said_end || s->state != OPEN)
        return;
    n = n < credit ? n : credit;
    if (n > 0)
        guest_send(w, s, PACKET_RW, 0, n);
}

static void guest_reads(struct world *w, struct stream *s)
{
    uint32_t n = s->unread ? 1 + roll(w, s->unread) : 0;

    s->unread -= n;
    s->forwarded += n;
    if (n && s->state == OPEN)
        guest_send(w, s, PACKET_CREDIT_UPDATE, 0, 0);
}

static void host_ready(struct world *w, struct stream *s, bool hup)
{
    if (s->host_open && s->conn)
        device_ready(w->q.device, s->conn, true, s->space > 0, hup, w->now);
}

static void step(struct world *w)
{
    struct stream *s = &w->s[roll(w, STREAMS)];

    switch (roll(w, 14)) {
    case 0:
        if (roll(w, 4) == 0)
            open_one(w);
        break;
    case 1:
    case 2:
        guest_writes(w, s);
        break;
    case 3:
        guest_reads(w, s);
        break;
    case 4:
    case 5:
        if (s->host_open && !s->host_ended) {
            s->written += roll(w, 9000);
            host_ready(w, s, false);
        }
        break;
    case 6:
    case 7:
        s->space += s->host_open ? roll(w, 9000) : 0;
        host_ready(w, s, false);
        break;
    case 8:
        if (s->state == OPEN && !s->said_end && roll(w, 20) == 0) {
            s->said_end = true;
            guest_send(w, s, PACKET_SHUTDOWN, PACKET_SHUTDOWN_SEND, 0);
        }
        break;
    case 9:
        if (s->host_open && s->state == OPEN && !s->host_ended && roll(w, 20) == 0) {
            s->host_ended = true;
            host_ready(w, s, false);
        }
        break;
    case 10: /* somebody goes away */
        if (s->state != OPEN || roll(w, 40))
            break;
        s->broken = true;
        guest_send(w, s, PACKET_RST, 0, 0);
        s->state = CLOSED;
        break;
    case 11:
        give_buffers(w);
        break;
    case 12:
        w->now += roll(w, 3000000);
        (void)device_tick(w->q.device, w->now);
        break;
    default:
        pump(w);
    }
}

/* Everybody takes what there is, ends its side, and the guest closes what has ended both ways. */
static void make_peace(struct world *w)
{
    w->peace = true;
    for (int round = 0; round < 400; round++) {
        for (int i = 0; i < STREAMS; i++) {
            struct stream *s = &w->s[i];

            s->space = UINT64_MAX / 2;
            if (s->host_open && s->state != ASKED)
                s->host_ended = true;
            host_ready(w, s, false);
            guest_reads(w, s);
            if (s->state == OPEN && !s->said_end) {
                s->said_end = true;
                guest_send(w, s, PACKET_SHUTDOWN, PACKET_SHUTDOWN_SEND, 0);
            }
            if (s->state == OPEN && s->guest.saw_end && !s->guest.ended) {
                s->guest.ended = true;
                guest_send(w, s, PACKET_SHUTDOWN, PACKET_SHUTDOWN_BOTH, 0);
            }
        }
        w->now += 10000000;
        (void)device_tick(w->q.device, w->now);
        give_buffers(w);
        pump(w);
    }
}

UNIT_TEST(streams_arrive_whole)
{
    static struct world w;
    struct error err = ERROR_INIT;
    uint64_t bytes = 0;

    w.dice = unit_seed() | 1;
    w.now = 1;
    w.q.device = device_new(3, STREAMS, (uint32_t)w.dice, &host_ops, &w, NULL, &err);
    ck_assert_ptr_nonnull(w.q.device);
    ck_assert_int_eq(guest_setup(&w.g, &w.q, NUM, &err), 0);
    ck_assert_int_eq(queues_start(&w.q, roll(&w, 2), true, &err), 0);
    for (int i = 0; i < STEPS; i++)
        step(&w);
    make_peace(&w);
    for (int i = 0; i < STREAMS; i++) {
        const struct stream *s = &w.s[i];

        ck_assert_msg(s->state == CLOSED || s->state == UNUSED, "stream %d: state %d", i, s->state);
        ck_assert(!s->host_open);
        if (!s->broken) {
            ck_assert_uint_eq(s->guest.put, s->host.got);
            ck_assert_uint_eq(s->guest.got, s->written);
        }
        bytes += s->guest.put + s->written;
    }
    ck_assert_uint_eq(device_streams(w.q.device), 0);
    ck_assert_uint_eq(device_count(w.q.device)->dropped, 0);
    ck_assert_uint_gt(bytes, 100000); /* the test did test something */
    device_free(w.q.device);
    queues_destroy(&w.q);
}
END_TEST
