// SPDX-License-Identifier: Apache-2.0
/* test_device.c - when a guest is told of credit, and of packets that are done */
#include "tests/lib/unit.h"
#include "tests/lib/vsock_guest.h"

#define NUM 64
#define GUEST_PORT 1234u
#define HOST_PORT 60u
#define AT GUEST_HEAP /* the guest's packets and its buffers */
#define SIZE 0x1000u

static struct guest g;
static struct queues q;
static uint64_t taken; /* by the host */

static int do_connect(void *self, uint32_t port, struct conn *conn, void **ret_stream)
{
    ck_assert_uint_eq(port, HOST_PORT);
    (void)conn;
    *ret_stream = self;
    return 0;
}

static ssize_t do_read(void *self, void *stream, void *buf, size_t len)
{
    (void)self, (void)stream, (void)buf, (void)len;
    return -EAGAIN;
}

static ssize_t do_write(void *self, void *stream, const void *buf, size_t len)
{
    (void)self, (void)stream, (void)buf;
    taken += len;
    return (ssize_t)len;
}

static void do_shutdown(void *self, void *stream, int how)
{
    (void)self, (void)stream, (void)how;
}

static void do_close(void *self, void *stream)
{
    (void)self, (void)stream;
}

static const struct device_host host_ops = {
    .connect = do_connect,
    .read = do_read,
    .write = do_write,
    .shutdown = do_shutdown,
    .close = do_close,
};

static void guest_says(uint16_t op, uint32_t len, uint32_t buf_alloc)
{
    struct packet p = {.src_cid = 3,
                       .dst_cid = PACKET_HOST_CID,
                       .src_port = GUEST_PORT,
                       .dst_port = HOST_PORT,
                       .type = PACKET_TYPE_STREAM,
                       .op = op,
                       .len = len,
                       .buf_alloc = buf_alloc};

    packet_encode(&p, g.ram + AT);
    guest_desc(&g, QUEUES_TX, 0, AT, PACKET_HEADER_SIZE + len, 0, 0);
    guest_avail(&g, QUEUES_TX, 0);
}

static void pump(uint64_t now)
{
    struct error err = ERROR_INIT;
    bool more;

    ck_assert_int_eq(queues_kick(&q, QUEUES_TX, &err), 0);
    ck_assert_msg(queues_pump(&q, now, &more, &err) == 0, "%s", err.text);
}

/* The next packet for the guest, 0 = none. */
static unsigned guest_hears(void)
{
    struct packet p;
    uint32_t head, len;

    if (!guest_used(&g, QUEUES_RX, &head, &len))
        return 0;
    packet_decode(g.ram + AT + SIZE * (1 + head), &p);
    return p.op;
}

static void begin(uint32_t buf_alloc)
{
    struct error err = ERROR_INIT;

    q.device = device_new(3, 4, 0, &host_ops, &q, NULL, &err);
    ck_assert_ptr_nonnull(q.device);
    ck_assert_int_eq(guest_setup(&g, &q, NUM, &err), 0);
    ck_assert_int_eq(queues_start(&q, false, true, &err), 0);
    for (uint16_t i = 0; i < 8; i++) {
        guest_desc(&g, QUEUES_RX, i, AT + SIZE * (1u + i), SIZE, RING_DESC_WRITE, 0);
        guest_avail(&g, QUEUES_RX, i);
    }
    guest_says(PACKET_REQUEST, 0, buf_alloc);
    pump(1);
    ck_assert_uint_eq(guest_hears(), PACKET_RESPONSE);
}

static void end(void)
{
    device_free(q.device);
    queues_destroy(&q);
}

/* A Linux guest has no more on its way than its own buffer, however much more we let it send. */
UNIT_TEST(guest_that_limits_itself_gets_credit)
{
    begin(2048);
    guest_says(PACKET_RW, 1000, 2048);
    pump(2);
    ck_assert_uint_eq(guest_hears(), 0); /* not worth a packet yet */
    guest_says(PACKET_RW, 1048, 2048);
    pump(3);
    ck_assert_uint_eq(taken, 2048);
    ck_assert_uint_eq(guest_hears(), PACKET_CREDIT_UPDATE);
    end();
}
END_TEST

UNIT_TEST(used_packets_are_told_in_time)
{
    struct error err = ERROR_INIT;
    uint32_t head, len;
    uint64_t due;

    begin(1u << 20);
    ck_assert(!guest_used(&g, QUEUES_TX, &head, &len));
    due = q.due;
    ck_assert_uint_gt(due, 1);
    ck_assert_uint_lt(due, 1000000000);
    pump(due - 1);
    ck_assert(!guest_used(&g, QUEUES_TX, &head, &len));
    pump(due);
    ck_assert(guest_used(&g, QUEUES_TX, &head, &len));
    ck_assert_uint_eq(g.notified[QUEUES_TX], 1);
    ck_assert_uint_eq(q.due, UINT64_MAX);
    /* Many of them: at once, with one interrupt. */
    for (unsigned i = 0; i < NUM / 8; i++)
        guest_says(PACKET_RW, 100, 1u << 20);
    pump(due + 1);
    for (unsigned i = 0; i < NUM / 8; i++)
        ck_assert(guest_used(&g, QUEUES_TX, &head, &len));
    ck_assert_uint_eq(g.notified[QUEUES_TX], 2);
    /* A device that stops keeps none back. */
    guest_says(PACKET_RW, 100, 1u << 20);
    pump(due + 2);
    ck_assert(!guest_used(&g, QUEUES_TX, &head, &len));
    ck_assert_int_eq(queues_halt(&q, &err), 0);
    ck_assert(guest_used(&g, QUEUES_TX, &head, &len));
    end();
}
END_TEST
