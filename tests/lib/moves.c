// SPDX-License-Identifier: Apache-2.0
/* moves.c - one migration between two fake machines over a wire that may do harm */
#include "tests/lib/moves.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/unit.h"

/* Where the sides meet again after a lost link: the target leaves one end of a new pair, the source
 * takes it. */
struct meeting {
    struct move *m;
    struct fakevm *target_vm;
    pthread_mutex_t lock;
    pthread_cond_t came;
    int waiting;        /* descriptor for the source, -1 = none */
    bool open;          /* the source still listens */
    pthread_t stranger; /* the last of them */
    bool has_stranger;
    struct cancel target; /* requested once the target asks for a source that is gone for good */
};

struct target_side {
    struct move *m;
    struct fakevm *vm;
    struct meeting *meeting;
    int fd;
};

static struct stream *stream_of(int fd)
{
    char address[32];
    struct error err = ERROR_INIT;
    struct transport_options none = {0};

    (void)snprintf(address, sizeof(address), "fd:%d", fd);
    struct stream *s = stream_connect(address, &none, NULL, &err);
    ck_assert_msg(s, "%s", err.text);
    (void)close(fd); /* the stream has a copy */
    return s;
}

static struct stream *source_reconnect(void *opaque, uint64_t timeout_ns, struct error *err)
{
    struct meeting *meet = opaque;
    struct timespec ts;
    lock_scope(&meet->lock);

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    ts.tv_sec += (time_t)(timeout_ns / 1000000000u) + 1;
    while (meet->waiting < 0)
        if (pthread_cond_timedwait(&meet->came, &meet->lock, &ts) == ETIMEDOUT) {
            error_set(err, ETIMEDOUT, "nobody came");
            return NULL;
        }
    int fd = meet->waiting;
    meet->waiting = -1;
    return stream_of(fd);
}

struct stranger {
    const struct world *world;
    int fd;
};

static bool put(int fd, const void *data, size_t len)
{
    return send(fd, data, len, MSG_NOSIGNAL) == (ssize_t)len;
}

/* A source of something else. */
static void *stranger(void *opaque)
{
    struct stranger *s = opaque;
    uint8_t buf[GREETING_SIZE + FRAME_HEADER_SIZE], page[BLOCK_PAGE];
    struct greeting g = {.version_min = WIRE_VERSION,
                         .version_max = WIRE_VERSION,
                         .role = WIRE_SOURCE,
                         .features = WIRE_FEATURE_POSTCOPY,
                         .session = "a stranger here"};
    uint64_t sequence = 0;

    greeting_encode(&g, buf);
    memset(page, 0xee, sizeof(page));
    bool heard = put(s->fd, buf, GREETING_SIZE);
    for (uint16_t d = 0; d < WORLD_DEVICES; d++)
        for (uint64_t i = 0; heard && i < s->world->pages[d]; i++) {
            struct frame f = {.type = FRAME_DATA,
                              .device = d,
                              .offset = i * BLOCK_PAGE,
                              .extent = BLOCK_PAGE,
                              .length = BLOCK_PAGE,
                              .sequence = sequence};
            frame_seal(&f, page);
            frame_encode(&f, buf);
            sequence++;
            heard = put(s->fd, buf, FRAME_HEADER_SIZE) && put(s->fd, page, sizeof(page));
        }
    struct frame f = {.type = FRAME_ABORT, .sequence = sequence};
    frame_seal(&f, NULL);
    frame_encode(&f, buf);
    (void)put(s->fd, buf, FRAME_HEADER_SIZE);
    while (read(s->fd, buf, sizeof(buf)) > 0)
        ;
    (void)close(s->fd);
    free(s);
    return NULL;
}

static void join_stranger(struct meeting *meet)
{
    if (meet->has_stranger)
        (void)pthread_join(meet->stranger, NULL);
    meet->has_stranger = false;
}

static struct stream *meet_stranger(struct meeting *meet)
{
    struct stranger *s = malloc(sizeof(*s));
    int sv[2];

    join_stranger(meet);
    ck_assert_ptr_nonnull(s);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    *s = (struct stranger){meet->target_vm->world, sv[0]};
    ck_assert_int_eq(pthread_create(&meet->stranger, NULL, stranger, s), 0);
    meet->has_stranger = true;
    meet->m->met++;
    return stream_of(sv[1]);
}

static struct stream *target_reconnect(void *opaque, struct error *err)
{
    struct meeting *meet = opaque;
    int sv[2];

    if (meet->m->before_reconnect)
        meet->m->before_reconnect(meet->target_vm);
    if (meet->m->met < meet->m->strangers)
        return meet_stranger(meet);
    lock_scope(&meet->lock);

    if (!meet->open) {
        cancel_request(&meet->target); /* in place of a wait that could only run out */
        error_set(err, ECONNREFUSED, "connection refused");
        return NULL;
    }
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    if (meet->waiting >= 0)
        (void)close(meet->waiting);
    meet->waiting = sv[0];
    (void)pthread_cond_signal(&meet->came);
    return stream_of(sv[1]);
}

static void *receive(void *opaque)
{
    struct target_side *side = opaque;
    struct move *m = side->m;
    struct migrate_host host = fakevm_host(side->vm);
    struct context ctx = {.cancel = &side->meeting->target};

    m->target_rc =
        migrate_receive(stream_of(side->fd), &host, &m->receive, &ctx, &m->target, &m->target_err);
    return NULL;
}

void move_run(struct move *m, struct fakevm *a, struct fakevm *b)
{
    struct meeting meet = {.m = m,
                           .target_vm = b,
                           .lock = PTHREAD_MUTEX_INITIALIZER,
                           .came = PTHREAD_COND_INITIALIZER,
                           .waiting = -1,
                           .open = true};
    struct migrate_device devices[WORLD_DEVICES];
    struct migrate_machine machine = fakevm_machine(a);
    struct relay relay;
    pthread_t thread;
    char record[80];
    struct error err = ERROR_INIT;

    (void)snprintf(record, sizeof(record), "%s/migration", a->dir);
    m->send.record = record;
    m->send.idle_ns = m->send.idle_ns ? m->send.idle_ns : UINT64_C(5000000000);
    m->receive.idle_ns = m->send.idle_ns;
    m->send.retake_ns = m->retake_ns ? m->retake_ns : UINT64_C(20000000000);
    m->receive.retake_ns = m->send.retake_ns;
    m->send.opaque = m->receive.opaque = &meet;
    m->send.reconnect = m->no_reconnect ? NULL : source_reconnect;
    m->receive.reconnect = m->no_reconnect ? NULL : target_reconnect;
    fakevm_devices(a, devices);
    if (m->tune)
        m->tune(devices);
    ck_assert_msg(cancel_init(&meet.target, &err) == 0, "%s", err.text);
    relay_start(&relay, &m->fault);
    struct target_side side = {m, b, &meet, relay.near[1]};
    ck_assert_int_eq(pthread_create(&thread, NULL, receive, &side), 0);
    m->source_rc = migrate_send(stream_of(relay.near[0]), devices, WORLD_DEVICES, &machine,
                                &m->send, m->source_ctx, &m->source, &m->source_err);
    {
        lock_scope(&meet.lock);
        meet.open = false;
        if (meet.waiting >= 0)
            (void)close(meet.waiting);
    }
    (void)pthread_join(thread, NULL);
    join_stranger(&meet);
    m->struck = relay_stop(&relay);
    cancel_destroy(&meet.target);
}

struct fakevm *move_check(const struct move *m, struct fakevm *a, struct fakevm *b)
{
    struct world *w = a->world;
    bool here = a->has_guest, there = b->has_guest;
    char record[80], peer[WIRE_REASON_MAX + 1];
    enum migrate_record_state state;

    ck_assert_msg(!atomic_load(&w->split_brain), "the machine ran on both sides");
    ck_assert_msg(here != there, "the machine runs on %s (%s; %s)", here ? "both" : "neither",
                  m->source_err.text, m->target_err.text);
    if (m->source_rc < 0)
        ck_assert_msg(*m->source_err.text != '\0', "a failure without a word");
    (void)snprintf(record, sizeof(record), "%s/migration", a->dir);
    ck_assert_int_eq(migrate_record_read(record, &state, peer, NULL), 0);
    if (here) {
        ck_assert_int_eq(m->source.outcome, MIGRATE_ROLLED_BACK);
        ck_assert_int_eq(m->target.outcome, MIGRATE_ROLLED_BACK);
        ck_assert_int_eq(state, MIGRATE_RECORD_NONE);
    } else {
        ck_assert_int_ne(m->source.outcome, MIGRATE_ROLLED_BACK);
        ck_assert_int_ne(m->target.outcome, MIGRATE_ROLLED_BACK);
        ck_assert_int_ne(state, MIGRATE_RECORD_NONE);
    }
    struct fakevm *owner = here ? a : b;
    fakevm_stand_still(owner);
    fakevm_check(owner);
    return owner;
}

void pair_set_up(struct pair *p)
{
    fakevm_work_in_memory();
    world_init(&p->world, 300, 500);
    fakevm_make(&p->a, &p->world, "a", unit_seed());
    fakevm_empty(&p->b, &p->world, "b", unit_seed() + 1);
    p->a.rate = p->b.rate = 4;
    fakevm_run(&p->a);
    while (atomic_load(&p->world.writes) < 200) /* so that there is something to move */
        (void)sched_yield();
}

void pair_tear_down(struct pair *p)
{
    fakevm_destroy(&p->a);
    fakevm_destroy(&p->b);
    world_destroy(&p->world);
}
