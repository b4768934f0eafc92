// SPDX-License-Identifier: Apache-2.0
/* test_others.c - strangers in the source's place, targets that want a copy, and those that are
 * alive and say nothing; threads: yes
 */
#include <limits.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "runtime/migrate/link.h"
#include "tests/lib/moves.h"
#include "tests/lib/unit.h"

#define SECOND UINT64_C(1000000000)

/* The link goes while most pages are absent, and others answer where the source was. */
static void lose_among_strangers(struct move *m, struct pair *p)
{
    m->send.bandwidth = 500000;
    m->send.postcopy = MIGRATE_POSTCOPY_EARLY;
    m->fault = (struct relay_fault){.harm = HARM_CUT, .direction = 1, .type = FRAME_RUNNING};
    pair_set_up(p);
    p->b.rate = 0;
    move_run(m, &p->a, &p->b);
    ck_assert(m->struck);
}

UNIT_TEST(only_the_source_itself_is_taken_up_again)
{
    struct pair p;
    struct move m = {.strangers = 2};

    lose_among_strangers(&m, &p);
    ck_assert_uint_eq(m.met, 2);
    ck_assert_msg(m.source_rc == 0, "%s", m.source_err.text);
    ck_assert_msg(m.target_rc == 0, "%s", m.target_err.text);
    ck_assert_ptr_eq(move_check(&m, &p.a, &p.b), &p.b);
    pair_tear_down(&p);
}
END_TEST

UNIT_TEST(a_source_that_never_comes_back_is_given_up_at_the_limit)
{
    struct pair p;
    struct move m = {.strangers = UINT_MAX, .retake_ns = 2 * SECOND};

    lose_among_strangers(&m, &p);
    ck_assert_uint_ge(m.met, 1);
    ck_assert_int_eq(m.source.outcome, MIGRATE_IN_DOUBT);
    ck_assert_int_eq(m.target.outcome, MIGRATE_IN_DOUBT);
    ck_assert_msg(strstr(m.target_err.text, "another source answers there now") != NULL, "%s",
                  m.target_err.text);
    pair_tear_down(&p);
}
END_TEST

UNIT_TEST(a_copy_is_taken_and_the_machine_runs_on)
{
    struct pair p;
    struct move m = {0};

    pair_set_up(&p);
    fakevm_stand_still(&p.a);
    p.a.rate = 0; /* what it is in the end is what it was in that instant */
    fakevm_run(&p.a);
    p.b.take_copy = true;
    move_run(&m, &p.a, &p.b);
    ck_assert_msg(m.source_rc == 0, "%s", m.source_err.text);
    ck_assert_msg(m.target_rc == 0, "%s", m.target_err.text);
    ck_assert_int_eq(m.source.outcome, MIGRATE_COPIED);
    ck_assert_int_eq(m.target.outcome, MIGRATE_COPIED);
    ck_assert_uint_gt(m.source.suspended_ns, 0);
    ck_assert(p.a.has_guest && !p.b.has_guest && !p.b.discarded);
    fakevm_check(&p.b);
    /* It may be moved after that. */
    struct fakevm c;
    struct move then = {0};
    fakevm_empty(&c, &p.world, "c", 1);
    move_run(&then, &p.a, &c);
    ck_assert_msg(then.source_rc == 0, "%s", then.source_err.text);
    ck_assert_ptr_eq(move_check(&then, &p.a, &c), &c);
    fakevm_destroy(&c);
    pair_tear_down(&p);
}
END_TEST

static void share_bases(struct migrate_device *devices)
{
    for (size_t d = 0; d < WORLD_DEVICES; d++)
        devices[d].share_base = true;
}

#define PROVING_IDLE_NS (2 * SECOND)

/* Longer than the target waits for a source that is silent. */
static int prove_slowly(void *opaque, size_t device, uint8_t ret_digest[32], struct error *err)
{
    const struct timespec nap = {.tv_nsec = 10000000};
    uint64_t start = link_now_ns();

    (void)opaque;
    (void)err;
    while (device == 0 && link_now_ns() - start < 2 * PROVING_IDLE_NS)
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
    memset(ret_digest, 0x11, 32);
    return device != 1; /* and one of them cannot be */
}

UNIT_TEST(a_target_waits_while_the_source_reads_its_bases)
{
    struct pair p;
    struct move m = {.tune = share_bases,
                     .send = {.prove_base = prove_slowly, .idle_ns = PROVING_IDLE_NS}};

    pair_set_up(&p);
    move_run(&m, &p.a, &p.b);
    ck_assert_msg(m.source_rc == 0, "%s", m.source_err.text);
    ck_assert_uint_gt(m.source.total_ns, 2 * PROVING_IDLE_NS);
    ck_assert_ptr_eq(move_check(&m, &p.a, &p.b), &p.b);
    pair_tear_down(&p);
}
END_TEST

/* ---- a target that lives, takes what it gets, and never says a word that is due ---- */

struct mute {
    int fd;
    uint8_t until; /* the frame it does not say any more */
};

static void *mute(void *opaque)
{
    const struct mute *m = opaque;
    struct greeting theirs, ours = {.version_min = WIRE_VERSION,
                                    .version_max = WIRE_VERSION,
                                    .role = WIRE_TARGET,
                                    .features = WIRE_FEATURE_POSTCOPY};
    static const uint8_t none[WORLD_DEVICES];
    uint8_t accept[WORLD_DEVICES + 2];
    struct transport_options plain = {0};
    char address[32];
    const uint8_t *payload;
    struct frame f;

    (void)snprintf(address, sizeof(address), "fd:%d", m->fd);
    struct link *link =
        link_new(stream_connect(address, &plain, NULL, NULL), 3 * SECOND, 0, NULL, NULL);
    ck_assert_int_eq(link_greet(link, &ours, &theirs, NULL), 0);
    while (link_receive(link, &f, &payload, NULL) == 0) {
        struct frame answer = {
            .type = FRAME_ACCEPT,
            .length = (uint32_t)accept_encode(none, WORLD_DEVICES, accept, sizeof(accept))};
        if (f.type == FRAME_OFFER && m->until > FRAME_ACCEPT)
            (void)link_send(link, &answer, accept, NULL);
        if (f.type == FRAME_SUSPENDED && m->until > FRAME_READY)
            (void)link_send_word(link, FRAME_READY, 0, NULL);
        if (f.type == FRAME_COMMIT && m->until > FRAME_RUNNING)
            (void)link_send_word(link, FRAME_RUNNING, 0, NULL);
    }
    link_free(link);
    return NULL;
}

static void gives_up_on_mute(uint8_t until, enum migrate_outcome want, const char *text)
{
    struct migrate_send_options o = {.answer_ns = SECOND / 2, .record = "a/migration"};
    struct migrate_device devices[WORLD_DEVICES];
    struct transport_options plain = {0};
    struct migrate_result result;
    struct error err = ERROR_INIT;
    struct mute m = {.until = until};
    pthread_t thread;
    struct pair p;
    char address[32];
    int sv[2];

    pair_set_up(&p);
    struct migrate_machine machine = fakevm_machine(&p.a);
    fakevm_devices(&p.a, devices);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    m.fd = sv[1];
    ck_assert_int_eq(pthread_create(&thread, NULL, mute, &m), 0);
    (void)snprintf(address, sizeof(address), "fd:%d", sv[0]);
    struct stream *s = stream_connect(address, &plain, NULL, &err);
    (void)close(sv[0]);
    ck_assert_int_eq(migrate_send(s, devices, WORLD_DEVICES, &machine, &o, NULL, &result, &err),
                     -1);
    (void)close(sv[1]);
    (void)pthread_join(thread, NULL);
    ck_assert_msg(strstr(err.text, text) && strstr(err.text, "answer timeout"), "%s", err.text);
    ck_assert_int_eq(result.outcome, want);
    ck_assert(p.a.has_guest == (want == MIGRATE_ROLLED_BACK));
    fakevm_stand_still(&p.a);
    fakevm_check(&p.a);
    pair_tear_down(&p);
}

UNIT_TEST(a_target_that_does_not_answer_the_offer)
{
    gives_up_on_mute(FRAME_ACCEPT, MIGRATE_ROLLED_BACK, "answer to the offer");
}
END_TEST

UNIT_TEST(a_target_that_is_never_ready)
{
    gives_up_on_mute(FRAME_READY, MIGRATE_ROLLED_BACK, "READY did not come");
}
END_TEST

UNIT_TEST(a_target_that_never_runs_it)
{
    gives_up_on_mute(FRAME_RUNNING, MIGRATE_IN_DOUBT, "RUNNING did not come");
}
END_TEST

UNIT_TEST(a_target_that_is_never_done)
{
    gives_up_on_mute(FRAME_DONE, MIGRATE_IN_DOUBT, "DONE did not come");
}
END_TEST

static void no_rounds(struct migrate_device *devices)
{
    for (size_t d = 0; d < WORLD_DEVICES; d++)
        devices[d].max_cycles = 0;
}

/* What it takes is a sign as good as a word. */
UNIT_TEST(a_target_that_takes_long_is_not_given_up)
{
    struct pair p;
    struct move m = {
        .send = {.bandwidth = 300000, .postcopy = MIGRATE_POSTCOPY_OFF, .answer_ns = 3 * SECOND},
        .tune = no_rounds};

    pair_set_up(&p);
    while (atomic_load(&p.world.writes) < 4000)
        (void)sched_yield();
    fakevm_stand_still(&p.a);
    p.a.rate = p.b.rate = 0;
    fakevm_run(&p.a);
    move_run(&m, &p.a, &p.b);
    ck_assert_msg(m.source_rc == 0, "%s", m.source_err.text);
    ck_assert_uint_gt(m.source.total_ns, 3 * SECOND);
    ck_assert_ptr_eq(move_check(&m, &p.a, &p.b), &p.b);
    pair_tear_down(&p);
}
END_TEST
