// SPDX-License-Identifier: Apache-2.0
/* fuzz_vsock.c - a hostile guest: rings, memory table and packets made of the input
 *
 * The input is a list of acts: write bytes anywhere into the rings, put a packet into the transmit
 * ring the proper way, offer receive buffers, let the host's ends act, let time pass. A broken ring
 * is reset and taken up again, as a guest's driver would after a reset.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "runtime/base/parse.h"
#include "tests/lib/vsock_guest.h"

#define STREAMS 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct stream {
    struct conn *conn;
    bool used;
};

struct host {
    struct stream streams[STREAMS];
    uint64_t dice;
};

static unsigned roll(struct host *h, unsigned n)
{
    h->dice = h->dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(h->dice >> 33) % n;
}

static struct stream *free_stream(struct host *h)
{
    for (int i = 0; i < STREAMS; i++)
        if (!h->streams[i].used)
            return &h->streams[i];
    return NULL;
}

static int do_connect(void *self, uint32_t port, struct conn *conn, void **ret_stream)
{
    struct host *h = self;
    struct stream *s = free_stream(h);

    if (!s || port % 7 == 6)
        return -ECONNREFUSED;
    if (roll(h, 8) == 0)
        return -EAGAIN;
    *s = (struct stream){.conn = conn, .used = true};
    *ret_stream = s;
    return 0;
}

static void do_established(void *self, void *stream, uint32_t port)
{
    (void)self;
    (void)port;
    if (!((struct stream *)stream)->used)
        abort();
}

static ssize_t do_read(void *self, void *stream, void *buf, size_t len)
{
    struct host *h = self;
    unsigned n = roll(h, 10);

    if (!((struct stream *)stream)->used || len == 0)
        abort();
    if (n < 2)
        return n == 0 ? 0 : -ECONNRESET;
    if (n < 5)
        return -EAGAIN;
    len = len < 300 ? len : 300;
    memset(buf, 'x', len);
    return (ssize_t)len;
}

static ssize_t do_write(void *self, void *stream, const void *buf, size_t len)
{
    struct host *h = self;
    volatile uint8_t sum = 0;
    unsigned n = roll(h, 10);

    if (!((struct stream *)stream)->used || len == 0)
        abort();
    for (size_t i = 0; i < len; i++) /* every byte is readable */
        sum = sum ^ ((const uint8_t *)buf)[i];
    (void)sum;
    return n == 0 ? -EPIPE : n < 4 ? -EAGAIN : (ssize_t)(n < 7 ? (len + 1) / 2 : len);
}

static void do_shutdown(void *self, void *stream, int how)
{
    (void)self;
    (void)how;
    if (!((struct stream *)stream)->used)
        abort();
}

static void do_close(void *self, void *stream)
{
    struct stream *s = stream;

    (void)self;
    if (!s->used)
        abort(); /* closed twice */
    s->used = false;
}

static const struct device_host host_ops = {
    .connect = do_connect,
    .established = do_established,
    .read = do_read,
    .write = do_write,
    .shutdown = do_shutdown,
    .close = do_close,
};

/* Offers slot n of a ring as one descriptor. */
static void offer(struct guest *g, unsigned ring, unsigned slot, uint32_t len)
{
    slot %= g->num;
    guest_desc(g, ring, slot, GUEST_HEAP + 0x2000u * (ring * 8 + slot % 8), len % 0x2000,
               ring == QUEUES_RX ? RING_DESC_WRITE : 0, 0);
    guest_avail(g, ring, (uint16_t)slot);
}

static void offer_packet(struct guest *g, struct cursor *c)
{
    uint8_t *ram = g->ram + GUEST_HEAP + 0x2000u * 8;
    struct packet p = {.src_cid = 3, .dst_cid = 2, .type = 1, .buf_alloc = 4096};
    uint8_t op, src, dst, len, flags, credit;

    if (cursor_u8(c, &op) < 0 || cursor_u8(c, &src) < 0 || cursor_u8(c, &dst) < 0 ||
        cursor_u8(c, &len) < 0 || cursor_u8(c, &flags) < 0 || cursor_u8(c, &credit) < 0)
        return;
    p.op = op & 15;
    if (op >> 4 == 15)
        p.type = 2;
    p.src_port = src;
    p.dst_port = dst;
    p.len = len * 32u;
    p.flags = flags;
    p.buf_alloc = credit * 64u;
    p.fwd_cnt = flags >> 2;
    packet_encode(&p, ram);
    guest_desc(g, QUEUES_TX, 0, GUEST_HEAP + 0x2000u * 8, PACKET_HEADER_SIZE + len * 32u, 0, 0);
    guest_avail(g, QUEUES_TX, 0);
}

static void act(struct guest *g, struct queues *q, struct host *h, struct cursor *c, uint64_t *now)
{
    struct error err = ERROR_INIT;
    const uint8_t *bytes;
    uint8_t what, n, k;
    uint16_t at;
    bool more;

    if (cursor_u8(c, &what) < 0 || cursor_u8(c, &n) < 0) {
        c->left = 0;
        return;
    }
    switch (what % 8) {
    case 0: /* anything, anywhere in the rings and a little behind them */
        if (cursor_u16(c, &at) == 0 && cursor_bytes(c, n % 32, &bytes) == 0)
            memcpy(g->ram + at % 0xa000, bytes, n % 32);
        break;
    case 1:
        offer_packet(g, c);
        break;
    case 2:
        for (k = 0; k < n % 16; k++)
            offer(g, QUEUES_RX, n + k, 64u * n + 45);
        break;
    case 3:
        if (cursor_u16(c, &at) == 0)
            offer(g, n & 1, n, at);
        break;
    case 4: {
        struct stream *s = &h->streams[n % STREAMS];

        if (s->used)
            device_ready(q->device, s->conn, n & 16, n & 32, n & 64, *now);
        break;
    }
    case 5: {
        struct stream *s = free_stream(h);

        if (s) {
            s->used = true;
            s->conn = device_open(q->device, n, s, 1000, *now, NULL);
            if (!s->conn)
                s->used = false;
        }
        break;
    }
    case 6:
        *now += UINT64_C(1) << n % 40;
        (void)device_tick(q->device, *now);
        break;
    default:
        for (unsigned i = 0; i < QUEUES; i++)
            if (queues_kick(q, i, &err) < 0)
                goto broken;
        if (queues_pump(q, *now, &more, &err) < 0)
            goto broken;
    }
    return;
broken:
    if (err.code == 0 || err.text[0] == 0)
        abort();
    device_reset(q->device);
    /* A guest's driver would now set up everything anew. */
    memset(g->ram, 0, GUEST_HEAP);
    for (unsigned i = 0; i < QUEUES; i++)
        g->avail[i] = q->rings[i].last_avail = 0;
    if (queues_start(q, n & 1, n & 2, &err) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct guest g;
    struct host h = {.dice = size};
    struct queues q = {0};
    struct error err = ERROR_INIT;
    struct cursor c = {.p = data, .left = size};
    uint8_t setup = 0;
    uint64_t now = 1;

    memset(&g, 0, offsetof(struct guest, ram) + 0xa000);
    memset(&g.num, 0, sizeof(g) - offsetof(struct guest, num));
    if (cursor_u8(&c, &setup) < 0)
        return 0;
    q.device = device_new(3, 12, setup, &host_ops, &h, NULL, &err);
    if (!q.device || guest_setup(&g, &q, 2u << setup % 7, &err) < 0 ||
        queues_start(&q, setup & 8, setup & 16, &err) < 0)
        abort();
    while (c.left > 0)
        act(&g, &q, &h, &c, &now);
    device_free(q.device);
    for (int i = 0; i < STREAMS; i++)
        if (h.streams[i].used)
            abort(); /* not closed */
    queues_destroy(&q);
    return 0;
}
