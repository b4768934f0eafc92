// SPDX-License-Identifier: Apache-2.0
/* test_migrate.c - migrations that go well, and those that end in a way of their own; threads: yes
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "tests/lib/moves.h"
#include "tests/lib/unit.h"

#define SECOND UINT64_C(1000000000)

static void moves_well(struct move *m)
{
    struct pair p;

    pair_set_up(&p);
    move_run(m, &p.a, &p.b);
    ck_assert_msg(m->source_rc == 0, "%s", m->source_err.text);
    ck_assert_msg(m->target_rc == 0, "%s", m->target_err.text);
    ck_assert_int_eq(m->source.outcome, MIGRATE_MOVED);
    ck_assert_int_eq(m->target.outcome, MIGRATE_MOVED);
    ck_assert_ptr_eq(move_check(m, &p.a, &p.b), &p.b);
    pair_tear_down(&p);
}

UNIT_TEST(precopy_then_last_set)
{
    struct move m = {0};
    moves_well(&m);
    ck_assert_uint_ge(m.source.rounds, 1);
    ck_assert_uint_gt(m.source.pages_plain, 0);
}
END_TEST

/* ---- the knobs of a device, where the guest's part is known exactly ---- */

/* Moves a machine whose guest writes nothing. */
static void moves_quiet(struct move *m)
{
    struct pair p;

    pair_set_up(&p);
    fakevm_stand_still(&p.a);
    p.a.rate = p.b.rate = 0;
    fakevm_run(&p.a);
    move_run(m, &p.a, &p.b);
    ck_assert_msg(m->source_rc == 0, "%s", m->source_err.text);
    ck_assert_ptr_eq(move_check(m, &p.a, &p.b), &p.b);
    pair_tear_down(&p);
}

static void quiet_after_four(struct migrate_device *devices)
{
    for (size_t d = 0; d < WORLD_DEVICES; d++) {
        devices[d].min_cycles = 4;
        devices[d].max_cycles = 100;
        devices[d].max_dirty_blocks = 1;
    }
}

static void quiet_and_throttled(struct migrate_device *devices)
{
    quiet_after_four(devices);
    for (size_t d = 0; d < WORLD_DEVICES; d++)
        devices[d].cycle_throttle_ns = 10000000;
}

UNIT_TEST(min_cycles_of_quiet_passes)
{
    struct move m = {.tune = quiet_after_four};
    moves_quiet(&m);
    ck_assert_uint_eq(m.source.rounds,
                      5); /* "more than minCycles" quiet ones, as upstream has it */
}
END_TEST

UNIT_TEST(cycles_are_throttled)
{
    struct move m = {.tune = quiet_and_throttled};
    moves_quiet(&m);
    ck_assert_uint_ge(m.source.rounds, 5); /* more where the devices fall due one by one */
    ck_assert_uint_le(m.source.rounds, 10);
    ck_assert_uint_ge(m.source.total_ns, 4 * 10000000);
}
END_TEST

static void never_quiet(struct migrate_device *devices)
{
    for (size_t d = 0; d < WORLD_DEVICES; d++) {
        devices[d].min_cycles = 0;
        devices[d].max_cycles = 7;
        devices[d].max_dirty_blocks = 0; /* fewer than none there never are */
    }
}

UNIT_TEST(max_cycles_end_it)
{
    struct move m = {.tune = never_quiet};
    moves_quiet(&m);
    ck_assert_uint_eq(m.source.rounds, 7);
}
END_TEST

static void no_cycles(struct migrate_device *devices)
{
    for (size_t d = 0; d < WORLD_DEVICES; d++)
        devices[d].max_cycles = 0;
}

UNIT_TEST(max_cycles_zero_is_no_round)
{
    struct move m = {.tune = no_cycles};
    moves_well(&m);
    ck_assert_uint_eq(m.source.rounds, 0);
}
END_TEST

/* ---- what a person is told meanwhile ---- */

struct told {
    char phases[1024]; /* each once, in their order */
    uint64_t done, total;
    bool beyond; /* more was done than there is */
    bool early;  /* something was done before the copy began */
};

static void tell(void *opaque, const char *phase, uint64_t done, uint64_t total, const char *unit)
{
    struct told *t = opaque;
    size_t len = strlen(t->phases), n = strlen(phase);

    ck_assert_str_eq(unit, "bytes");
    if (len < n || strcmp(t->phases + len - n, phase) != 0)
        (void)snprintf(t->phases + len, sizeof(t->phases) - len, "%s%s", len ? ", " : "", phase);
    t->done = done;
    t->total = total;
    t->beyond |= done > total;
    t->early |= done > 0 && (strcmp(phase, "greet") == 0 || strcmp(phase, "offer") == 0);
}

UNIT_TEST(progress_names_stages_and_rounds)
{
    struct told told = {.phases = ""};
    struct progress progress = {.report = tell, .opaque = &told};
    struct context ctx = {.progress = &progress};
    struct move m = {.tune = never_quiet, .source_ctx = &ctx};

    moves_quiet(&m);
    ck_assert_str_eq(
        told.phases,
        "greet, offer, copy, settle, settle 1, settle 2, settle 3, settle 4, settle 5, "
        "settle 6, settle 7, suspend, commit, drain, finished");
    ck_assert_uint_eq(told.total, (300 + 500) * UINT64_C(4096));
    ck_assert_uint_eq(told.done, told.total);
    ck_assert(!told.beyond && !told.early);
}
END_TEST

/* Which places in the order of what was sent the device's blocks had. */
struct order_seen {
    pthread_mutex_t lock;
    uint64_t n, hot_at, last_at;
};

static void see_order(void *opaque, enum migrate_trace_kind kind, const char *device,
                      uint64_t offset, uint64_t length)
{
    struct order_seen *o = opaque;
    (void)length;

    if (kind != MIGRATE_TRACE_SENT || strcmp(device, "memory") != 0)
        return;
    lock_scope(&o->lock);
    o->n++;
    if (offset < 65536)
        o->hot_at = o->n;
    else
        o->last_at = o->n;
}

UNIT_TEST(what_changes_often_is_sent_last)
{
    struct order_seen seen = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct migrate_watch watch = {.trace = see_order, .opaque = &seen};
    struct move m = {.send = {.concurrency = 1, .watch = &watch}, .tune = no_cycles};
    struct error err = ERROR_INIT;
    uint8_t page[4096];
    struct pair p;

    pair_set_up(&p);
    fakevm_stand_still(&p.a);
    p.a.rate = p.b.rate = 0;
    ck_assert_int_eq(block_read(p.a.blocks[1], page, sizeof(page), 0, &err), 0);
    for (int i = 0; i < 2000; i++) /* the same content: only that it was written counts */
        ck_assert_int_eq(block_write(p.a.blocks[1], page, sizeof(page), 0, 0, &err), 0);
    fakevm_run(&p.a);
    move_run(&m, &p.a, &p.b);
    ck_assert_msg(m.source_rc == 0, "%s", m.source_err.text);
    ck_assert_uint_gt(seen.n, 2);
    if (seen.hot_at) /* the block may hold zeros alone */
        ck_assert_uint_gt(seen.hot_at, seen.last_at);
    ck_assert_ptr_eq(move_check(&m, &p.a, &p.b), &p.b);
    pair_tear_down(&p);
}
END_TEST

UNIT_TEST(everything_before_it_runs)
{
    struct move m = {.send = {.postcopy = MIGRATE_POSTCOPY_OFF}};
    moves_well(&m);
}
END_TEST

UNIT_TEST(target_insists_on_everything_before_it_runs)
{
    struct move m = {.receive = {.postcopy_off = true}};
    moves_well(&m);
}
END_TEST

UNIT_TEST(postcopy_from_the_start)
{
    struct move m = {.send = {.postcopy = MIGRATE_POSTCOPY_EARLY, .concurrency = 1}};
    moves_well(&m);
    ck_assert_uint_eq(m.source.rounds, 0);
    ck_assert_uint_eq(m.source.pages_resent, 0);
}
END_TEST

UNIT_TEST(compressed)
{
    struct move plain = {0}, packed = {.send = {.zstd_level = 1}};
    moves_well(&plain);
    moves_well(&packed);
    ck_assert_uint_lt(packed.source.bytes_sent, plain.source.bytes_sent);
}
END_TEST

UNIT_TEST(slow_link)
{
    struct pair p;
    struct move m = {.send = {.bandwidth = 4000000, .postcopy = MIGRATE_POSTCOPY_EARLY}};

    pair_set_up(&p);
    while (atomic_load(&p.world.writes) < 4000) /* until most pages hold something */
        (void)sched_yield();
    move_run(&m, &p.a, &p.b);
    ck_assert_msg(m.source_rc == 0, "%s", m.source_err.text);
    ck_assert_ptr_eq(move_check(&m, &p.a, &p.b), &p.b);
    /* The limit is seen in the time, from below; a tenth of a second may go at once. */
    ck_assert_uint_gt(m.source.bytes_sent, 1000000);
    ck_assert_uint_ge(m.source.total_ns + SECOND / 5, m.source.bytes_sent * 250);
    pair_tear_down(&p);
}
END_TEST

/* What is absent when the link goes, the machine itself writes: no page arrives on the next link,
 * and the end must be found all the same. */
UNIT_TEST(all_written_while_the_link_is_down)
{
    struct pair p;
    struct move m = {.send = {.bandwidth = 500000, .postcopy = MIGRATE_POSTCOPY_EARLY},
                     .fault = {.harm = HARM_CUT, .direction = 1, .type = FRAME_RUNNING},
                     .before_reconnect = fakevm_write_all};

    pair_set_up(&p);
    p.b.rate = 0;
    move_run(&m, &p.a, &p.b);
    ck_assert(m.struck);
    ck_assert_msg(m.source_rc == 0, "%s", m.source_err.text);
    ck_assert_msg(m.target_rc == 0, "%s", m.target_err.text);
    ck_assert_ptr_eq(move_check(&m, &p.a, &p.b), &p.b);
    pair_tear_down(&p);
}
END_TEST

UNIT_TEST(ten_hops)
{
    struct world world;
    struct fakevm vms[11];
    char dir[16];

    fakevm_work_in_memory();
    world_init(&world, 100, 200);
    fakevm_make(&vms[0], &world, "0", unit_seed());
    vms[0].rate = 4;
    fakevm_run(&vms[0]);
    for (int i = 0; i < 10; i++) {
        struct move m = {0};
        (void)snprintf(dir, sizeof(dir), "%d", i + 1);
        fakevm_empty(&vms[i + 1], &world, dir, 1);
        vms[i + 1].rate = 4;
        move_run(&m, &vms[i], &vms[i + 1]);
        ck_assert_msg(m.source_rc == 0, "hop %d: %s", i, m.source_err.text);
        ck_assert(vms[i + 1].has_guest);
        fakevm_destroy(&vms[i]);
    }
    ck_assert(!atomic_load(&world.split_brain));
    fakevm_stand_still(&vms[10]);
    fakevm_check(&vms[10]);
    fakevm_destroy(&vms[10]);
    world_destroy(&world);
}
END_TEST

/* Fails with `want` in its text and leaves the machine on the source. */
static void stays(struct move *m, struct pair *p, const char *want)
{
    move_run(m, &p->a, &p->b);
    ck_assert_int_eq(m->source_rc, -1);
    ck_assert_msg(strstr(m->source_err.text, want), "%s", m->source_err.text);
    ck_assert_int_eq(m->target_rc, -1);
    ck_assert_ptr_eq(move_check(m, &p->a, &p->b), &p->a);
}

UNIT_TEST(target_cannot_load)
{
    struct pair p;
    struct move m = {0};
    pair_set_up(&p);
    p.b.fail_load = true;
    stays(&m, &p, "the state does not fit");
    ck_assert(p.b.discarded);
    pair_tear_down(&p);
}
END_TEST

UNIT_TEST(guest_cannot_be_suspended)
{
    struct pair p;
    struct move m = {0};
    pair_set_up(&p);
    p.a.fail_suspend = true;
    stays(&m, &p, "the agent did not answer");
    ck_assert(p.b.discarded);
    ck_assert_uint_eq(p.a.resumed, 1); /* it may have heard what it did not answer */
    pair_tear_down(&p);
}
END_TEST

/* Whoever paused it and did not hear of it has a machine that stands. */
UNIT_TEST(guest_is_half_suspended)
{
    struct pair p;
    struct move m = {0};
    pair_set_up(&p);
    p.a.half_suspend = true;
    stays(&m, &p, "suspend the machine: the hypervisor did not answer");
    ck_assert(p.b.discarded);
    ck_assert_uint_eq(p.a.kept, 0);
    ck_assert_ptr_nonnull(strstr(m.target_err.text, "the hypervisor did not answer"));
    /* Nothing stands in the way of the next one. */
    struct move again = {0};
    p.a.half_suspend = false;
    fakevm_run(&p.a);
    fakevm_destroy(&p.b);
    fakevm_empty(&p.b, &p.world, "b", unit_seed() + 2);
    move_run(&again, &p.a, &p.b);
    ck_assert_msg(again.source_rc == 0, "%s", again.source_err.text);
    ck_assert_ptr_eq(move_check(&again, &p.a, &p.b), &p.b);
    pair_tear_down(&p);
}
END_TEST

static void not_saved(enum migrate_postcopy postcopy)
{
    struct pair p;
    struct move m = {.send = {.postcopy = postcopy}};
    pair_set_up(&p);
    p.a.fail_save = true;
    stays(&m, &p, "save the machine's state: the state cannot be had");
    ck_assert_uint_eq(p.a.resumed, 1);
    ck_assert_uint_eq(p.a.kept, 0);
    ck_assert(p.b.discarded);
    ck_assert_ptr_nonnull(strstr(m.target_err.text, "the state cannot be had"));
    pair_tear_down(&p);
}

UNIT_TEST(state_cannot_be_saved)
{
    not_saved(MIGRATE_POSTCOPY_LAST);
    not_saved(MIGRATE_POSTCOPY_EARLY);
}
END_TEST

UNIT_TEST(guest_cannot_be_prepared)
{
    struct pair p;
    struct move m = {0};
    pair_set_up(&p);
    p.a.fail_prepare = true;
    stays(&m, &p, "no room to suspend it");
    ck_assert_uint_eq(p.a.kept, 0);
    pair_tear_down(&p);
}
END_TEST

UNIT_TEST(what_is_not_kept_is_not_committed)
{
    struct pair p;
    struct move m = {0};
    pair_set_up(&p);
    p.a.fail_keep = true;
    stays(&m, &p, "the disk is gone");
    ck_assert_uint_eq(p.a.kept, 1);
    ck_assert(p.b.discarded);
    pair_tear_down(&p);
}
END_TEST

UNIT_TEST(target_that_fails_to_run_leaves_it_in_doubt)
{
    struct pair p;
    struct move m = {0};
    char peer[WIRE_REASON_MAX + 1];
    enum migrate_record_state state;

    pair_set_up(&p);
    p.b.fail_run = true;
    move_run(&m, &p.a, &p.b);
    ck_assert_int_eq(m.source.outcome, MIGRATE_IN_DOUBT);
    ck_assert_ptr_nonnull(strstr(m.source_err.text, "the processor is on fire"));
    ck_assert(!p.a.has_guest && !p.b.has_guest);
    fakevm_check(&p.a); /* nothing is lost */
    ck_assert_int_eq(migrate_record_read("a/migration", &state, peer, NULL), 0);
    ck_assert_int_eq(state, MIGRATE_RECORD_COMMITTED);
    /* Another migration of it is refused until a person takes it back. */
    struct move again = {0};
    struct fakevm c;
    fakevm_empty(&c, &p.world, "c", 1);
    move_run(&again, &p.a, &c);
    ck_assert_ptr_nonnull(strstr(again.source_err.text, "take it back first"));
    ck_assert_int_eq(migrate_take_back("a/migration", NULL), 0);
    fakevm_run(&p.a);
    struct move third = {0};
    struct fakevm d;
    fakevm_empty(&d, &p.world, "d", 1);
    move_run(&third, &p.a, &d);
    ck_assert_msg(third.source_rc == 0, "%s", third.source_err.text);
    ck_assert_ptr_eq(move_check(&third, &p.a, &d), &d);
    fakevm_destroy(&c);
    fakevm_destroy(&d);
    pair_tear_down(&p);
}
END_TEST

UNIT_TEST(downtime_limit_gives_up_and_goes_on)
{
    struct pair p;
    /* The wire stalls behind SUSPENDED: READY never comes. */
    struct move m = {.fault = {.harm = HARM_STALL, .direction = 0, .type = FRAME_SUSPENDED},
                     .send = {.downtime_limit_ns = SECOND / 10, .idle_ns = 20 * SECOND},
                     .no_reconnect = true};
    pair_set_up(&p);
    m.send.idle_ns = SECOND;
    move_run(&m, &p.a, &p.b);
    ck_assert_ptr_nonnull(strstr(m.source_err.text, "longer than the limit"));
    ck_assert_ptr_eq(move_check(&m, &p.a, &p.b), &p.a);
    pair_tear_down(&p);
}
END_TEST

UNIT_TEST(cancelled_before_the_commit)
{
    struct pair p;
    struct cancel cancel;
    struct context ctx = {.cancel = &cancel};
    struct move m = {.source_ctx = &ctx};

    pair_set_up(&p);
    ck_assert_int_eq(cancel_init(&cancel, NULL), 0);
    cancel_request(&cancel);
    move_run(&m, &p.a, &p.b);
    ck_assert_int_eq(m.source_err.code, ECANCELED);
    ck_assert_ptr_eq(move_check(&m, &p.a, &p.b), &p.a);
    cancel_destroy(&cancel);
    pair_tear_down(&p);
}
END_TEST

static void cancel_at_commit(void *opaque, const struct migrate_status *s)
{
    if (s->stage == MIGRATE_COMMIT)
        cancel_request(opaque);
}

/* Who closes its ear then is looked at once more: nothing is committed in spite of a request. */
UNIT_TEST(cancelled_on_entering_the_commit)
{
    struct pair p;
    struct cancel cancel;
    struct context ctx = {.cancel = &cancel};
    struct migrate_watch watch = {.status = cancel_at_commit, .opaque = &cancel};
    struct move m = {.source_ctx = &ctx, .send = {.watch = &watch}};

    pair_set_up(&p);
    ck_assert_int_eq(cancel_init(&cancel, NULL), 0);
    move_run(&m, &p.a, &p.b);
    ck_assert_int_eq(m.source_err.code, ECANCELED);
    ck_assert_int_eq(m.source.outcome, MIGRATE_ROLLED_BACK);
    ck_assert_ptr_eq(move_check(&m, &p.a, &p.b), &p.a);
    cancel_destroy(&cancel);
    pair_tear_down(&p);
}
END_TEST

UNIT_TEST(damaged_record_counts_as_committed)
{
    char peer[WIRE_REASON_MAX + 1];
    enum migrate_record_state state;
    struct error err;
    FILE *f = fopen("record", "w");

    ck_assert_int_eq(migrate_record_read("absent", &state, peer, &err), 0);
    ck_assert_int_eq(state, MIGRATE_RECORD_NONE);
    (void)fputs("DRAFTREC and then nothing", f);
    (void)fclose(f);
    ck_assert_int_eq(migrate_record_read("record", &state, peer, &err), 0);
    ck_assert_int_eq(state, MIGRATE_RECORD_COMMITTED);
}
END_TEST
