// SPDX-License-Identifier: Apache-2.0
/* test_ring.c - what a hostile guest can write into a ring, by name */
#include "tests/lib/unit.h"
#include "tests/lib/vsock_guest.h"

#define NUM 8

static struct guest g;
static struct queues q;
static struct ring *tx = &q.rings[QUEUES_TX];

static void setup(bool indirect)
{
    struct error err = ERROR_INIT;

    ck_assert_int_eq(guest_setup(&g, &q, NUM, &err), 0);
    ck_assert_msg(ring_start(tx, &q.memory, false, indirect, &err) == 0, "%s", err.text);
}

/* The ring is refused with a text that holds `why`. */
static void broken(const char *why)
{
    struct ring_chain c;
    struct error err = ERROR_INIT;

    ck_assert_int_eq(ring_next(tx, &q.memory, &c, &err), -1);
    ck_assert_msg(strstr(err.text, why) != NULL, "\"%s\" lacks \"%s\"", err.text, why);
    queues_destroy(&q);
}

UNIT_TEST(chain_is_read)
{
    struct ring_chain c;
    struct error err = ERROR_INIT;
    bool notify;
    uint32_t head, len;

    setup(false);
    ck_assert_int_eq(ring_next(tx, &q.memory, &c, &err), 0);
    /* The second piece straddles no range; the first lies in high memory. */
    guest_desc(&g, QUEUES_TX, 5, GUEST_HIGH + 16, 44, RING_DESC_NEXT, 2);
    guest_desc(&g, QUEUES_TX, 2, GUEST_HEAP, 100, RING_DESC_WRITE, 0);
    guest_avail(&g, QUEUES_TX, 5);
    ck_assert_int_eq(ring_next(tx, &q.memory, &c, &err), 1);
    ck_assert_uint_eq(c.head, 5);
    ck_assert_uint_eq(c.out_len, 44);
    ck_assert_uint_eq(c.in_len, 100);
    ck_assert_uint_eq((uintptr_t)c.out[0].iov_base, GUEST_USER_HIGH + 16);
    ck_assert(!guest_used(&g, QUEUES_TX, &head, &len));
    ring_push(tx, c.head, 7);
    ck_assert_int_eq(ring_flush(tx, &q.memory, &notify, &err), 0);
    ck_assert(notify);
    ck_assert(guest_used(&g, QUEUES_TX, &head, &len));
    ck_assert_uint_eq(head, 5);
    ck_assert_uint_eq(len, 7);
    queues_destroy(&q);
}
END_TEST

UNIT_TEST(interrupt_only_as_asked)
{
    struct ring_chain c;
    struct error err = ERROR_INIT;
    bool notify;

    setup(false);
    put_le16(g.ram + GUEST_AVAIL(QUEUES_TX), 1); /* VIRTQ_AVAIL_F_NO_INTERRUPT */
    guest_desc(&g, QUEUES_TX, 0, GUEST_HEAP, 44, 0, 0);
    guest_avail(&g, QUEUES_TX, 0);
    ck_assert_int_eq(ring_next(tx, &q.memory, &c, &err), 1);
    ring_push(tx, c.head, 0);
    ck_assert_int_eq(ring_flush(tx, &q.memory, &notify, &err), 0);
    ck_assert(!notify);
    queues_destroy(&q);
}
END_TEST

UNIT_TEST(index_runs_ahead)
{
    setup(false);
    put_le16(g.ram + GUEST_AVAIL(QUEUES_TX) + 2, NUM + 1);
    broken("runs ahead");
}
END_TEST

UNIT_TEST(head_outside_of_table)
{
    setup(false);
    guest_avail(&g, QUEUES_TX, NUM);
    broken("descriptor 8 of 8");
}
END_TEST

UNIT_TEST(next_outside_of_table)
{
    setup(false);
    guest_desc(&g, QUEUES_TX, 0, GUEST_HEAP, 44, RING_DESC_NEXT, 60000);
    guest_avail(&g, QUEUES_TX, 0);
    broken("descriptor 60000 of 8");
}
END_TEST

UNIT_TEST(chain_loops)
{
    setup(false);
    guest_desc(&g, QUEUES_TX, 0, GUEST_HEAP, 44, RING_DESC_NEXT, 1);
    guest_desc(&g, QUEUES_TX, 1, GUEST_HEAP, 44, RING_DESC_NEXT, 0);
    guest_avail(&g, QUEUES_TX, 0);
    broken("loops");
}
END_TEST

UNIT_TEST(address_outside_of_memory)
{
    setup(false);
    guest_desc(&g, QUEUES_TX, 0, GUEST_LOW - 10, 44, 0, 0); /* begins inside */
    guest_avail(&g, QUEUES_TX, 0);
    broken("is not guest memory");
}
END_TEST

UNIT_TEST(address_wraps)
{
    setup(false);
    guest_desc(&g, QUEUES_TX, 0, UINT64_MAX - 10, 44, 0, 0);
    guest_avail(&g, QUEUES_TX, 0);
    broken("is not guest memory");
}
END_TEST

UNIT_TEST(readable_behind_writable)
{
    setup(false);
    guest_desc(&g, QUEUES_TX, 0, GUEST_HEAP, 44, RING_DESC_NEXT | RING_DESC_WRITE, 1);
    guest_desc(&g, QUEUES_TX, 1, GUEST_HEAP, 44, 0, 0);
    guest_avail(&g, QUEUES_TX, 0);
    broken("readable descriptor behind");
}
END_TEST

UNIT_TEST(indirect_not_negotiated)
{
    setup(false);
    guest_desc(&g, QUEUES_TX, 0, GUEST_HEAP, 32, RING_DESC_INDIRECT, 0);
    guest_avail(&g, QUEUES_TX, 0);
    broken("indirect descriptor where none may be");
}
END_TEST

UNIT_TEST(indirect_in_indirect)
{
    setup(true);
    put_le64(g.ram + GUEST_HEAP, GUEST_HEAP);
    put_le32(g.ram + GUEST_HEAP + 8, 16);
    put_le16(g.ram + GUEST_HEAP + 12, RING_DESC_INDIRECT);
    guest_desc(&g, QUEUES_TX, 0, GUEST_HEAP, 16, RING_DESC_INDIRECT, 0);
    guest_avail(&g, QUEUES_TX, 0);
    broken("indirect descriptor where none may be");
}
END_TEST

UNIT_TEST(indirect_table_of_odd_size)
{
    setup(true);
    guest_desc(&g, QUEUES_TX, 0, GUEST_HEAP, 17, RING_DESC_INDIRECT, 0);
    guest_avail(&g, QUEUES_TX, 0);
    broken("indirect table of 17 bytes");
}
END_TEST

UNIT_TEST(memory_table_is_checked)
{
    struct memory m = {0};
    struct error err = ERROR_INIT;
    const struct memory_region overlap[] = {{0, 100, 1000}, {99, 10, 5000}},
                               wraps[] = {{UINT64_MAX - 5, 10, 1000}}, empty[] = {{0, 0, 1000}};

    ck_assert_int_eq(memory_set_regions(&m, overlap, 2, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "overlap"));
    ck_assert_int_eq(memory_set_regions(&m, wraps, 1, &err), -1);
    ck_assert_int_eq(memory_set_regions(&m, empty, 1, &err), -1);
    ck_assert_int_eq(memory_set_regions(&m, overlap, MEMORY_REGIONS_MAX + 1, &err), -1);
    ck_assert_ptr_null(m.regions);
}
END_TEST

/* A guest's writes that the VMM asked to hear of: the page of the buffer and the one of the used
 * ring. */
UNIT_TEST(dirty_log_has_the_pages)
{
    struct error err = ERROR_INIT;
    struct iovec iov[4];
    size_t n = 0;
    uint8_t *log = g.ram + 0x20000;

    setup(false);
    q.memory.log = GUEST_USER + 0x20000;
    q.memory.logging = true;
    ck_assert_int_eq(memory_translate(&q.memory, 0x8ffe, 4, iov, &n, 4, &err), 0);
    ck_assert_int_eq(memory_write(&q.memory, "abcd", 4, iov, n, &err), 0);
    ck_assert_uint_eq(log[1], 0x03); /* pages 8 and 9 */
    ck_assert_uint_eq(log[0], 0);
    ck_assert_int_eq(ring_want_kick(tx, &q.memory, false, &err), 0);
    ck_assert_uint_eq(log[GUEST_USED(QUEUES_TX) / 4096 / 8], 1u << GUEST_USED(QUEUES_TX) / 4096);
    queues_destroy(&q);
}
END_TEST
