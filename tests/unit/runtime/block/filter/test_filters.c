// SPDX-License-Identifier: Apache-2.0
/* test_filters.c - fault, delay, log and stats, serial layers and draining; threads: yes */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "runtime/block/filter/stats.h"
#include "tests/lib/stack.h"

#define SIZE 65536u

static struct error err;

#define SOURCE "{\"type\":\"sparse\",\"size\":65536}"

UNIT_TEST(fault_strikes_those_it_says)
{
    struct block *b = open_stack("[" SOURCE ",{\"type\":\"fault\",\"op\":\"write\",\"error\":"
                                 "\"ENOSPC\",\"after\":2,\"every\":2,\"count\":2}]");
    char buf[4096] = {0};
    int failed[9] = {0};

    for (unsigned i = 0; i < 9; i++) {
        failed[i] = block_write(b, buf, sizeof(buf), 0, 0, &err) < 0;
        if (failed[i]) {
            ck_assert_int_eq(err.code, ENOSPC);
            ck_assert_ptr_nonnull(strstr(err.text, "fault injected into a write"));
        }
        OK(block_read(b, buf, sizeof(buf), 0, &err)); /* not its operation: never counted */
        OK(block_flush(b, &err));
        OK(block_zero(b, 4096, 0, 0, &err));
        OK(block_trim(b, 4096, 0, &err));
    }
    static const int want[9] = {0, 0, 0, 1, 0, 1, 0, 0, 0};
    ck_assert_mem_eq(failed, want, sizeof(want));
    OK(block_close(b, &err));
}
END_TEST

UNIT_TEST(fault_cuts_short)
{
    struct block *b = open_stack("[" SOURCE ",{\"type\":\"fault\",\"op\":\"write\",\"count\":1,"
                                 "\"short\":100}]");
    char buf[200], got[200];

    memset(buf, 'x', sizeof(buf));
    FAILS(block_write(b, buf, sizeof(buf), 10, 0, &err), "fault injected");
    ck_assert_int_eq(err.code, EIO);
    OK(block_read(b, got, sizeof(got), 10, &err));
    for (unsigned i = 0; i < sizeof(got); i++)
        ck_assert_int_eq(got[i], i < 100 ? 'x' : 0);
    OK(block_close(b, &err));
}
END_TEST

/* A layer above must hand the failure on, and a failed close must still close. */
UNIT_TEST(fault_in_a_flush_is_told_and_close_ends_all_the_same)
{
    struct block *b = open_stack("[" SOURCE ",{\"type\":\"fault\",\"op\":\"flush\"},"
                                 "{\"type\":\"dirty\"},{\"type\":\"stats\"}]");
    struct stats s;

    FAILS(block_flush(b, &err), "fault injected into a flush");
    FAILS(block_write(b, "x", 1, 0, IO_FUA, &err), "fault injected into a flush");
    ck_assert_int_eq(stats_get(b, &s), 0);
    /* The second one is what IO_FUA became: a write, which passed, and a flush. */
    ck_assert_uint_eq(s.op[STATS_FLUSH].errors, 2);
    ck_assert_uint_eq(s.op[STATS_WRITE].errors, 0);
    FAILS(block_close(b, &err), "fault injected into a flush");
}
END_TEST

UNIT_TEST(every_operation_can_fault)
{
    static const char *const ops[] = {"read", "write", "zero", "trim", "flush"};
    char buf[16] = {0};

    for (unsigned i = 0; i < 6; i++) {
        char text[200];
        (void)snprintf(text, sizeof(text),
                       "[" SOURCE ",{\"type\":\"fault\",\"op\":\"%s\",\"count\":%u}]",
                       i < 5 ? ops[i] : "any", i < 5 ? 1u : 5u);
        struct block *b = open_stack(text);
        const int rc[5] = {block_read(b, buf, 16, 0, NULL), block_write(b, buf, 16, 0, 0, NULL),
                           block_zero(b, 16, 0, 0, NULL), block_trim(b, 16, 0, NULL),
                           block_flush(b, NULL)};
        for (unsigned k = 0; k < 5; k++)
            ck_assert_msg((rc[k] < 0) == (i == k || i == 5), "fault %u, operation %u: %d", i, k,
                          rc[k]);
        OK(block_close(b, &err));
    }
}
END_TEST

static double seconds(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

UNIT_TEST(delay_waits_at_least_that_long)
{
    struct block *b = open_stack("[" SOURCE ",{\"type\":\"delay\",\"write\":\"50ms\"}]");
    char c = 'x';
    double start = seconds();

    OK(block_write(b, &c, 1, 0, 0, &err));
    ck_assert(seconds() - start >= 0.05);
    OK(block_close(b, &err));
}
END_TEST

struct act {
    struct block *b;
    int rc;
    struct error err;
};

static void *one_read(void *opaque)
{
    struct act *a = opaque;
    char c;

    a->rc = block_read(a->b, &c, 1, 0, &a->err);
    return NULL;
}

/* Nobody waits an hour: the test passes because cancelling ends it. */
UNIT_TEST(delay_ends_when_cancelled)
{
    struct block *b = open_stack("[" SOURCE ",{\"type\":\"delay\",\"read\":\"1h\"}]");
    struct act a = {.b = b, .err = ERROR_INIT};
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, one_read, &a), 0);
    while (block_in_flight(b) == 0)
        sched_yield();
    block_cancel(b);
    pthread_join(thread, NULL);
    ck_assert_int_eq(a.rc, -1);
    ck_assert_int_eq(a.err.code, ECANCELED);
    FAILS(block_read(b, &(char){0}, 1, 0, &err), "interrupted"); /* from now on, too */
    OK(block_close(b, &err));
}
END_TEST

static void collect(void *opaque, enum log_level level, const char *message,
                    const struct log_field *fields)
{
    char *text = opaque;
    size_t len = strlen(text);

    if (level != LOG_LEVEL_INFO)
        return;
    len += (size_t)snprintf(text + len, 4096 - len, "%s:", message);
    for (; fields->kind != LOG_FIELD_END; fields++) {
        if (strcmp(fields->key, "us") == 0)
            continue;
        if (fields->kind == LOG_FIELD_STR)
            len += (size_t)snprintf(text + len, 4096 - len, " %s=%s", fields->key, fields->s);
        else
            len += (size_t)snprintf(text + len, 4096 - len, " %s=%llu", fields->key,
                                    (unsigned long long)fields->u);
    }
    (void)snprintf(text + len, 4096 - len, "\n");
}

UNIT_TEST(log_tells_what_passed_and_how_it_ended)
{
    static char text[4096];
    const struct log log = {.level = LOG_LEVEL_INFO, .sink = collect, .opaque = text};
    const struct context ctx = {.log = &log};
    static const char stack[] = "[" SOURCE ",{\"type\":\"fault\",\"op\":\"trim\"},"
                                "{\"type\":\"log\",\"tag\":\"top\"}]";
    struct block *b = block_open(stack, sizeof(stack) - 1, "test", &ctx, &err);
    char buf[100] = {0};

    ck_assert_ptr_nonnull(b);
    OK(block_write(b, buf, 100, 4096, 0, &err));
    OK(block_read(b, buf, 10, 8, &err));
    FAILS(block_trim(b, 4096, 0, &err), "fault injected");
    static const char want[] =
        "block request: device=test tag=top op=write offset=4096 len=100 result=ok\n"
        "block request: device=test tag=top op=read offset=8 len=10 result=ok\n"
        "block request: device=test tag=top op=trim offset=0 len=4096 result=";
    ck_assert_msg(strncmp(text, want, sizeof(want) - 1) == 0, "%s", text);
    ck_assert_msg(strstr(text + sizeof(want) - 1, "fault injected into a trim"), "%s", text);
    OK(block_close(b, &err));
}
END_TEST

UNIT_TEST(stats_count_bytes_of_those_that_succeeded)
{
    struct block *b = open_stack("[" SOURCE ",{\"type\":\"fault\",\"op\":\"read\",\"after\":1},"
                                 "{\"type\":\"stats\"}]");
    struct stats s;
    char buf[300] = {0};

    OK(block_read(b, buf, 300, 0, &err));
    FAILS(block_read(b, buf, 200, 0, &err), "fault");
    OK(block_write(b, buf, 100, 0, 0, &err));
    ck_assert_int_eq(stats_get(b, &s), 0);
    ck_assert_uint_eq(s.op[STATS_READ].requests, 2);
    ck_assert_uint_eq(s.op[STATS_READ].errors, 1);
    ck_assert_uint_eq(s.op[STATS_READ].bytes, 300);
    ck_assert_uint_eq(s.op[STATS_WRITE].bytes, 100);
    ck_assert_uint_eq(s.op[STATS_WRITE].errors, 0);
    OK(block_close(b, &err));
    b = open_stack("[" SOURCE "]");
    ck_assert_int_eq(stats_get(b, &s), -1);
    OK(block_close(b, &err));
}
END_TEST

/* ---- serial, drain ---- */

/* A layer that holds requests while it is shut, and knows how many were in it at once. */
struct room {
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool shut;
    unsigned inside, most, passed;
};

static int room_pread(struct block *next, void *self, struct io *io, struct error *e)
{
    struct room *r = self;

    {
        lock_scope(&r->lock);
        if (++r->inside > r->most)
            r->most = r->inside;
        pthread_cond_broadcast(&r->change);
        while (r->shut)
            pthread_cond_wait(&r->change, &r->lock);
    }
    sched_yield(); /* others get their chance to be inside too */
    int rc = block_read(next, io->buf, io->len, io->offset, e);
    lock_scope(&r->lock);
    r->inside--;
    r->passed++;
    return rc;
}

static const struct block_ops serial_ops = {
    .type = "room", .threads = BLOCK_SERIAL, .pread = room_pread};
static const struct block_ops parallel_ops = {.type = "room", .pread = room_pread};

static void room_init(struct room *r, bool shut)
{
    *r = (struct room){.shut = shut};
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->change, NULL);
}

static void room_wait(struct room *r, unsigned inside)
{
    lock_scope(&r->lock);
    while (r->inside < inside)
        pthread_cond_wait(&r->change, &r->lock);
}

static void room_set(struct room *r, bool shut)
{
    lock_scope(&r->lock);
    r->shut = shut;
    pthread_cond_broadcast(&r->change);
}

static struct block *put_on(struct block *b, const struct block_ops *ops, struct room *r)
{
    b = block_layer(b, ops, r, NULL, NULL, &err);
    ck_assert_ptr_nonnull(b);
    return b;
}

static void *many_reads(void *opaque)
{
    struct act *a = opaque;
    char c;

    for (unsigned i = 0; i < 200; i++)
        a->rc |= block_read(a->b, &c, 1, i, &a->err);
    return NULL;
}

UNIT_TEST(a_serial_layer_is_entered_by_one_at_a_time)
{
    struct room r, above;
    struct act a[4];
    pthread_t thread[4];

    room_init(&r, false);
    room_init(&above, false);
    /* The parallel layer stands above: the serial one below rules only itself. */
    struct block *b =
        put_on(put_on(open_stack("[" SOURCE "]"), &serial_ops, &r), &parallel_ops, &above);
    for (unsigned i = 0; i < 4; i++) {
        a[i] = (struct act){.b = b, .err = ERROR_INIT};
        ck_assert_int_eq(pthread_create(&thread[i], NULL, many_reads, &a[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        ck_assert_int_eq(a[i].rc, 0);
    }
    ck_assert_uint_eq(r.most, 1);
    ck_assert_uint_eq(r.passed, 800);
    OK(block_close(b, &err));
}
END_TEST

UNIT_TEST(a_parallel_layer_is_entered_by_many)
{
    struct room r;
    struct act a[4];
    pthread_t thread[4];

    room_init(&r, true);
    struct block *b = put_on(open_stack("[" SOURCE "]"), &parallel_ops, &r);
    for (unsigned i = 0; i < 4; i++) {
        a[i] = (struct act){.b = b, .err = ERROR_INIT};
        ck_assert_int_eq(pthread_create(&thread[i], NULL, one_read, &a[i]), 0);
    }
    room_wait(&r, 4); /* hangs, and so fails, if they do not get in side by side */
    ck_assert_uint_eq(block_in_flight(b), 4);
    room_set(&r, false);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    ck_assert_uint_eq(block_in_flight(b), 0);
    OK(block_close(b, &err));
}
END_TEST

static atomic_bool drained;

static void *drain(void *opaque)
{
    block_drain(opaque);
    atomic_store(&drained, true);
    return NULL;
}

/* Waits for what was under way at the call, not for what comes later. */
UNIT_TEST(drain_waits_for_those_before_it_only)
{
    struct room r;
    struct act old, young;
    pthread_t t_old, t_young, t_drain;

    room_init(&r, true);
    struct block *b = put_on(open_stack("[" SOURCE "]"), &parallel_ops, &r);
    block_drain(b); /* nothing under way: at once */
    old = young = (struct act){.b = b, .err = ERROR_INIT};
    ck_assert_int_eq(pthread_create(&t_old, NULL, one_read, &old), 0);
    room_wait(&r, 1);
    ck_assert_int_eq(pthread_create(&t_drain, NULL, drain, b), 0);
    for (unsigned i = 0; i < 1000; i++)
        sched_yield();
    ck_assert(!atomic_load(&drained));
    room_set(&r, false);
    pthread_join(t_old, NULL);
    pthread_join(t_drain, NULL);
    ck_assert(atomic_load(&drained));

    /* Endless new requests do not hold it up: here is always one under way. */
    room_set(&r, true);
    ck_assert_int_eq(pthread_create(&t_old, NULL, one_read, &old), 0);
    room_wait(&r, 1);
    atomic_store(&drained, false);
    ck_assert_int_eq(pthread_create(&t_drain, NULL, drain, b), 0);
    ck_assert_int_eq(pthread_create(&t_young, NULL, many_reads, &young), 0);
    room_wait(&r, 2);
    room_set(&r, false);
    pthread_join(t_drain, NULL);
    pthread_join(t_old, NULL);
    pthread_join(t_young, NULL);
    OK(block_close(b, &err));
}
END_TEST
