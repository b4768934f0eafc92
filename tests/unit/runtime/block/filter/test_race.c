// SPDX-License-Identifier: Apache-2.0
/* test_race.c - the interleaving that loses a write where test and act are two holds; threads: yes
 *
 * A slow read of a block is under way below the filter. A write of the block is made and answered.
 * Then the slow read comes back: what it brings is older than the write and must not replace it.
 * nbdkit's cow filter with cow-on-read loses the write exactly so.
 */
#include <errno.h>
#include <pthread.h>

#include "runtime/base/json.h"
#include "runtime/block/filter/pull.h"
#include "tests/lib/stack.h"

#define SIZE (4 * 65536u)

static struct error err;

/* A source of 'o's whose reads wait at a gate while it is shut. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool shut;
    unsigned waiting; /* reads at the gate */
    unsigned writes;  /* must stay 0 below a cow */
};

static int gate_size(struct block *next, void *self, uint64_t *ret, struct error *e)
{
    (void)next;
    (void)self;
    (void)e;
    *ret = SIZE;
    return 0;
}

static int gate_pread(struct block *next, void *self, struct io *io, struct error *e)
{
    struct gate *g = self;
    lock_scope(&g->lock);

    (void)next;
    (void)e;
    memset(io->buf, 'o', io->len); /* read before the gate: old by the time it passes */
    g->waiting++;
    pthread_cond_broadcast(&g->change);
    while (g->shut)
        pthread_cond_wait(&g->change, &g->lock);
    g->waiting--;
    return 0;
}

static int gate_pwrite(struct block *next, void *self, struct io *io, struct error *e)
{
    (void)next;
    (void)io;
    (void)e;
    ((struct gate *)self)->writes++;
    return 0;
}

static const struct block_ops gate_ops = {
    .type = "gate", .size = gate_size, .pread = gate_pread, .pwrite = gate_pwrite};

static void gate_wait(struct gate *g)
{
    lock_scope(&g->lock);
    while (!g->waiting)
        pthread_cond_wait(&g->change, &g->lock);
}

static void gate_open(struct gate *g)
{
    lock_scope(&g->lock);
    g->shut = false;
    pthread_cond_broadcast(&g->change);
}

static struct block *cow_on_gate(struct gate *g)
{
    static const char cow[] = "[{\"type\":\"cow\",\"overlay\":\"o\",\"state\":\"s\"}]";

    (void)remove("o");
    (void)remove("s");
    *g = (struct gate){.shut = true};
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->change, NULL);
    struct block *b = block_layer(NULL, &gate_ops, g, "race", NULL, &err);
    struct json_object *layers = json_parse(cow, sizeof(cow) - 1, "cow", &err);
    b = block_stack(b, layers, NULL, NULL, &err);
    json_object_put(layers);
    if (!b)
        ck_abort_msg("%s", err.text);
    return b;
}

struct act {
    struct block *b;
    char buf[65536];
    uint64_t len, offset;
    int rc;
};

static void *do_read(void *opaque)
{
    struct act *a = opaque;
    a->rc = block_read(a->b, a->buf, a->len, a->offset, NULL);
    return NULL;
}

static void *do_write(void *opaque)
{
    struct act *a = opaque;
    a->rc = block_write(a->b, a->buf, a->len, a->offset, 0, NULL);
    return NULL;
}

UNIT_TEST(cow_slow_read_does_not_undo_a_write)
{
    struct gate g;
    struct block *b = cow_on_gate(&g);
    static struct act r;
    static char data[65536], got[65536];
    pthread_t thread;

    r = (struct act){.b = b, .len = 65536, .offset = 65536};
    ck_assert_int_eq(pthread_create(&thread, NULL, do_read, &r), 0);
    gate_wait(&g); /* the read has its old data in hand */
    memset(data, 'n', sizeof(data));
    OK(block_write(b, data, sizeof(data), 65536, 0, &err)); /* whole block: needs nothing below */
    gate_open(&g);
    pthread_join(thread, NULL);
    ck_assert_int_eq(r.rc, 0);
    ck_assert_int_eq(r.buf[0], 'o'); /* it began before the write was answered: old is right */
    OK(block_read(b, got, sizeof(got), 65536, &err));
    ck_assert_int_eq(memcmp(got, data, sizeof(data)), 0);
    OK(block_close(b, &err));
    ck_assert_uint_eq(g.writes, 0);
}
END_TEST

/* Two writes of different pages of one block: the copy that the first one makes is slow. */
UNIT_TEST(cow_slow_copy_does_not_undo_a_write)
{
    struct gate g;
    struct block *b = cow_on_gate(&g);
    static struct act first, second;
    static char got[65536];
    pthread_t t1, t2;

    first = (struct act){.b = b, .len = 4096, .offset = 0};
    second = (struct act){.b = b, .len = 4096, .offset = 8192};
    memset(first.buf, '1', 4096);
    memset(second.buf, '2', 4096);
    ck_assert_int_eq(pthread_create(&t1, NULL, do_write, &first), 0);
    gate_wait(&g);
    ck_assert_int_eq(pthread_create(&t2, NULL, do_write, &second), 0);
    gate_open(&g);
    pthread_join(t1, NULL);
    pthread_join(t2, NULL);
    ck_assert_int_eq(first.rc | second.rc, 0);
    OK(block_read(b, got, sizeof(got), 0, &err));
    for (unsigned i = 0; i < sizeof(got); i++)
        ck_assert_int_eq(got[i], i < 4096 ? '1' : i >= 8192 && i < 12288 ? '2' : 'o');
    OK(block_close(b, &err));
    ck_assert_uint_eq(g.writes, 0);
}
END_TEST

/* ---- pull ---- */

struct wishes {
    pthread_mutex_t lock;
    pthread_cond_t change;
    unsigned count;
    uint64_t last;
};

static void request(void *opaque, uint64_t offset, uint64_t len)
{
    struct wishes *w = opaque;
    lock_scope(&w->lock);

    ck_assert_uint_eq(len, 65536);
    w->count++;
    w->last = offset;
    pthread_cond_broadcast(&w->change);
}

static void wait_wishes(struct wishes *w, unsigned n)
{
    lock_scope(&w->lock);
    while (w->count < n)
        pthread_cond_wait(&w->change, &w->lock);
}

static struct block *open_pull(struct wishes *w, struct pull **p)
{
    struct pull_options opt = {.block_size = 65536, .request = request, .opaque = w};

    *w = (struct wishes){0};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->change, NULL);
    struct block *b = open_stack("[{\"type\":\"sparse\",\"size\":262144}]");
    b = pull_open(b, &opt, NULL, p, &err);
    ck_assert_ptr_nonnull(b);
    return b;
}

UNIT_TEST(pull_late_arrival_does_not_undo_a_write)
{
    struct wishes w;
    struct pull *p;
    struct block *b = open_pull(&w, &p);
    static struct act r;
    static char old[65536], got[65536], page[4096];
    pthread_t thread;

    memset(old, 'o', sizeof(old));
    memset(page, 'n', sizeof(page));
    r = (struct act){.b = b, .len = 65536, .offset = 65536};
    ck_assert_int_eq(pthread_create(&thread, NULL, do_read, &r), 0);
    wait_wishes(&w, 1); /* the other side has read its old block and is sending it */
    ck_assert_uint_eq(w.last, 65536);
    OK(block_write(b, page, sizeof(page), 65536 + 4096, 0, &err)); /* a whole page: at once */
    OK(pull_arrive(p, old, sizeof(old), 65536, &err));
    pthread_join(thread, NULL);
    ck_assert_int_eq(r.rc, 0);
    uint64_t n, us = pull_wait_us(p, 99, &n);
    ck_assert_uint_eq(n, 1); /* the read waited, for at most as long as a test may take */
    ck_assert_uint_le(us, UINT64_C(600000000));
    ck_assert_int_eq(r.buf[0], 'o');
    ck_assert_int_eq(r.buf[4096], 'n');
    OK(pull_arrive(p, old, sizeof(old), 65536, &err)); /* and once more, later still */
    OK(pull_keep(p, sizeof(old), 65536, &err));
    OK(block_read(b, got, sizeof(got), 65536, &err));
    for (unsigned i = 0; i < sizeof(got); i++)
        ck_assert_int_eq(got[i], i >= 4096 && i < 8192 ? 'n' : 'o');
    ck_assert_uint_eq(w.count, 1);
    ck_assert_uint_eq(pull_absent(p), 48);
    OK(block_close(b, &err));
}
END_TEST

UNIT_TEST(pull_write_of_a_part_waits_and_merges)
{
    struct wishes w;
    struct pull *p;
    struct block *b = open_pull(&w, &p);
    static struct act a;
    static char old[65536], got[8192];
    pthread_t thread;

    memset(old, 'o', sizeof(old));
    a = (struct act){.b = b, .len = 4096, .offset = 2048}; /* half of page 0, half of page 1 */
    memset(a.buf, 'n', 4096);
    ck_assert_int_eq(pthread_create(&thread, NULL, do_write, &a), 0);
    wait_wishes(&w, 1);
    OK(pull_arrive(p, old, 4096, 0, &err));
    OK(pull_arrive(p, old, 4096, 4096, &err));
    pthread_join(thread, NULL);
    ck_assert_int_eq(a.rc, 0);
    OK(pull_arrive(p, old, sizeof(old), 0, &err)); /* late: both pages are ours by now */
    OK(block_read(b, got, sizeof(got), 0, &err));
    for (unsigned i = 0; i < sizeof(got); i++)
        ck_assert_int_eq(got[i], i >= 2048 && i < 6144 ? 'n' : 'o');
    OK(block_close(b, &err));
}
END_TEST

UNIT_TEST(pull_failure_wakes_and_return_asks_again)
{
    const struct error cause = {.code = ENOTCONN, .text = "peer: the link broke"};
    struct wishes w;
    struct pull *p;
    struct block *b = open_pull(&w, &p);
    static struct act r;
    static char old[65536];
    pthread_t thread;

    r = (struct act){.b = b, .len = 10, .offset = 5};
    ck_assert_int_eq(pthread_create(&thread, NULL, do_read, &r), 0);
    wait_wishes(&w, 1);
    pull_fail(p, &cause);
    pthread_join(thread, NULL);
    ck_assert_int_eq(r.rc, -1);
    FAILS(block_read(b, old, 1, 0, &err), "block 0: peer: the link broke");
    ck_assert_int_eq(err.code, ENOTCONN);
    FAILS(pull_wait(p, &err), "the link broke");
    pull_again(p);
    ck_assert_int_eq(pthread_create(&thread, NULL, do_read, &r), 0);
    wait_wishes(&w, 2);
    pull_again(p); /* a new link without a failure before: who waits asks there */
    wait_wishes(&w, 3);
    OK(pull_arrive(p, NULL, 65536, 0, &err));
    pthread_join(thread, NULL);
    ck_assert_int_eq(r.rc, 0);
    ck_assert_uint_eq(pull_next_absent(p, 0), 65536);
    /* Cancelled: now and from now on. */
    r.offset = 65536;
    ck_assert_int_eq(pthread_create(&thread, NULL, do_read, &r), 0);
    wait_wishes(&w, 4);
    block_cancel(b);
    pthread_join(thread, NULL);
    ck_assert_int_eq(r.rc, -1);
    FAILS(block_read(b, old, 1, 70000, &err), "interrupted");
    OK(block_close(b, &err));
}
END_TEST

UNIT_TEST(pull_dirty_rounds_replace_and_invalidate)
{
    struct wishes w;
    struct pull *p;
    struct block *b = open_pull(&w, &p);
    struct bitmap set;
    struct extents list = {0};
    static char data[65536], page[4096];
    char c;

    OK(bitmap_init(&set, SIZE / 4096, &err));
    memset(data, '1', sizeof(data));
    OK(pull_arrive(p, data, sizeof(data), 0, &err));
    memset(data, '2', sizeof(data));
    OK(pull_arrive(p, data, 4096, 8192, &err)); /* sent again, it changed there */
    OK(block_read(b, &c, 1, 8192, &err));
    ck_assert_int_eq(c, '2');
    memset(page, 'n', sizeof(page));
    OK(block_write(b, page, sizeof(page), 0, 0, &err));
    bitmap_set_range(&set, 0, 2);
    pull_invalidate(p, &set); /* page 0 is ours, page 1 is absent again */
    ck_assert_uint_eq(pull_absent(p), 49);
    ck_assert_uint_eq(pull_next_absent(p, 0), 4096);
    OK(block_extents(b, 0, 12288, &list, &err));
    ck_assert_uint_eq(list.count, 3);
    ck_assert_uint_eq(list.items[1].offset, 4096);
    ck_assert_uint_eq(list.items[1].flags, EXTENT_ABSENT);
    extents_free(&list);
    OK(pull_keep(p, SIZE, 0, &err));
    ck_assert_uint_eq(pull_absent(p), 0);
    OK(pull_wait(p, &err));
    FAILS(pull_arrive(p, data, 100, 0, &err), "not whole pages");
    FAILS(pull_arrive(p, data, 8192, SIZE - 4096, &err), "not whole pages");
    FAILS(pull_arrive(p, data, 4096, UINT64_MAX - 4095, &err), "not whole pages");
    bitmap_destroy(&set);
    OK(block_close(b, &err));
}
END_TEST
