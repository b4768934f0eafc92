// SPDX-License-Identifier: Apache-2.0
/* test_saving.c - a VMM that writes guest memory while its state is saved, and what the source's
 * senders have in hand meanwhile; threads: yes
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "tests/lib/moves.h"
#include "tests/lib/unit.h"

#define HELD_S 1 /* how long we wait for what only happens when the source is wrong */

/* A layer on the source's disk: the first sender that reads the first block while the machine
 * stands still keeps what it read until another one has sent that block anew. */
static struct gate {
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool armed, held, saved, anew;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};

static void wait_in_vain(struct gate *g, const bool *flag)
{
    struct timespec end;

    (void)clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += HELD_S;
    while (!*flag && pthread_cond_timedwait(&g->change, &g->lock, &end) != ETIMEDOUT)
        ;
}

static int gate_pread(struct block *next, void *self, struct io *io, struct error *err)
{
    struct gate *g = self;

    if (block_read(next, io->buf, io->len, io->offset, err) < 0)
        return -1;
    lock_scope(&g->lock);
    if (!g->armed || io->offset != 0)
        return 0;
    g->armed = false;
    g->held = true;
    (void)pthread_cond_broadcast(&g->change);
    while (!g->saved)
        (void)pthread_cond_wait(&g->change, &g->lock);
    wait_in_vain(g, &g->anew);
    return 0;
}

static const struct block_ops gate_ops = {.type = "gate", .pread = gate_pread};

static void trace(void *opaque, enum migrate_trace_kind kind, const char *device, uint64_t offset,
                  uint64_t length)
{
    struct gate *g = opaque;
    bool disk = strcmp(device, "disk") == 0;

    (void)length;
    lock_scope(&g->lock);
    if (kind == MIGRATE_TRACE_SENT && disk && offset == 0 && g->saved) {
        g->anew = true;
        (void)pthread_cond_broadcast(&g->change);
    }
    /* The last look comes to the memory when the senders have been told of the disk. */
    while (kind == MIGRATE_TRACE_DIRTIED && !disk && g->armed)
        (void)pthread_cond_wait(&g->change, &g->lock);
}

/* Writes every page when the machine is suspended, and again when its state is saved and a sender
 * has one of them in hand. When everything is sent at once, the senders may be held before that. */
static void late(struct fakevm *vm, bool saving)
{
    struct gate *g = &gate;

    if (saving) {
        lock_scope(&g->lock);
        wait_in_vain(g, &g->held);
    }
    fakevm_write_all(vm);
    lock_scope(&g->lock);
    g->armed = !saving;
    g->saved = saving;
    (void)pthread_cond_broadcast(&g->change);
}

static void moves_what_was_written_last(enum migrate_postcopy postcopy)
{
    struct migrate_watch watch = {.trace = trace, .opaque = &gate};
    struct move m = {.send = {.postcopy = postcopy, .concurrency = 3, .watch = &watch}};
    struct error err = ERROR_INIT;
    struct pair p;

    pair_set_up(&p);
    fakevm_stand_still(&p.a);
    p.a.rate = p.b.rate = 0;
    p.a.late = late;
    p.a.blocks[0] = block_layer(p.a.blocks[0], &gate_ops, &gate, NULL, NULL, &err);
    ck_assert_msg(p.a.blocks[0], "%s", err.text);
    fakevm_run(&p.a);
    move_run(&m, &p.a, &p.b);
    ck_assert_msg(m.source_rc == 0, "%s", m.source_err.text);
    ck_assert_msg(m.target_rc == 0, "%s", m.target_err.text);
    ck_assert_ptr_eq(move_check(&m, &p.a, &p.b), &p.b);
    pair_tear_down(&p);
}

UNIT_TEST(what_save_writes_arrives_after_what_was_in_hand)
{
    moves_what_was_written_last(MIGRATE_POSTCOPY_LAST);
}
END_TEST

UNIT_TEST(and_without_post_copy)
{
    moves_what_was_written_last(MIGRATE_POSTCOPY_OFF);
}
END_TEST

UNIT_TEST(and_when_everything_is_still_to_be_sent)
{
    moves_what_was_written_last(MIGRATE_POSTCOPY_EARLY);
}
END_TEST
