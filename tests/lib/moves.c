// SPDX-License-Identifier: Apache-2.0
/* moves.c - one migration between two fake machines over a wire that may do harm */
#include "tests/lib/moves.h"

#include <errno.h>
#include <stdio.h>
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
    int waiting;          /* descriptor for the source, -1 = none */
    bool open;            /* the source still listens */
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

static struct stream *target_reconnect(void *opaque, struct error *err)
{
    struct meeting *meet = opaque;
    int sv[2];

    if (meet->m->before_reconnect)
        meet->m->before_reconnect(meet->target_vm);
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
    m->send.retake_ns = UINT64_C(20000000000);
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
