// SPDX-License-Identifier: Apache-2.0
/* agent.c - asks the guest's agent
 *
 * Theory of operation: one thread owns the connection and does all reading and writing; callers
 * leave a `struct call` in a list, wake the thread, and wait on the call's own eventfd, the
 * deadline or their cancellation. A caller that gives up takes its call out of the list; an answer
 * that comes later belongs to no call and is dropped. So no answer, late or forged, reaches freed
 * memory, and a mute agent costs nobody but the caller its timeout.
 *
 *     CALL_WAITING --request sent--> CALL_SENT --response--> CALL_DONE
 *          ^                            |
 *          +--connection lost, repeat---+--connection lost--> CALL_DONE with ECONNRESET
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include "runtime/guestlink/listen.h"
#include "runtime/wire/rpc.h"

/* What a guest may send between two answers that somebody waits for. The agent's newlines, one in
 * 10 s, use it up in four months; then it connects again. */
#define BUDGET (1 << 20)
#define PATIENCE_NS                                                                                \
    UINT64_C(1000000000) /* after a guest misbehaved no connection is taken so long */

enum call_state {
    CALL_WAITING, /* for a connection */
    CALL_SENT,    /* for the answer */
    CALL_DONE,    /* rc and err are set, `done` is readable, the call is out of the list */
};

struct call {
    struct call *next;
    enum call_state state;
    const char *function; /* NULL: waits for a connection only */
    bool repeat;          /* on a new connection, when the one it was sent on is lost */
    bool tell_resume;
    char id[37];
    int done; /* eventfd */
    int rc;
    struct error err;
};

struct guestlink_agent {
    const struct log *log;
    struct guest_listener listener;
    uint32_t port;
    pthread_t thread;
    int wake; /* eventfd: there is a call, or stop is set */

    pthread_mutex_t lock; /* guards what follows */
    bool stop;
    struct call *calls;
    int conn; /* -1 = none. Only the thread changes it */

    /* The thread's own. */
    uint64_t quiet_until; /* no connection is taken before; 0 = at once */
    size_t budget;
    size_t out_len;
    char out[8192];
    struct rpc_reader reader;
};

static void signal_fd(int fd)
{
    const uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof(one)); /* full means readable already */
    (void)n;
}

static void clear_fd(int fd)
{
    uint64_t n;
    ssize_t rc = read(fd, &n, sizeof(n));
    (void)rc;
}

/* Takes the call out of the list. lock held. */
static void unlist(struct guestlink_agent *a, struct call *call)
{
    for (struct call **p = &a->calls; *p; p = &(*p)->next) {
        if (*p == call) {
            *p = call->next;
            return;
        }
    }
}

/* Ends a call; its caller may free it as soon as the lock is released. lock held. */
static void finish(struct guestlink_agent *a, struct call *call, int rc)
{
    unlist(a, call);
    call->state = CALL_DONE;
    call->rc = rc;
    signal_fd(call->done);
}

/* lock held. misbehaved: the guest broke the rules. */
static void drop_link(struct guestlink_agent *a, bool misbehaved, const char *why)
{
    if (a->conn < 0)
        return;
    if (misbehaved) {
        log_warn(a->log, "The guest's agent broke the protocol, ignoring", log_str("why", why));
        a->quiet_until = guest_deadline(PATIENCE_NS);
    } else {
        log_debug(a->log, "The guest's agent is gone", log_str("why", why));
    }
    cleanup_close_p(&a->conn);
    a->out_len = 0;
    for (struct call *c = a->calls, *next; c; c = next) {
        next = c->next;
        if (c->state != CALL_SENT)
            continue;
        if (c->repeat) {
            c->state = CALL_WAITING;
            continue;
        }
        error_set(&c->err, ECONNRESET,
                  "the guest's agent: %s: the connection was lost before it answered (%s); the "
                  "command may have run",
                  c->function, why);
        finish(a, c, -1);
    }
}

/* lock held. */
static void flush(struct guestlink_agent *a)
{
    while (a->conn >= 0 && a->out_len > 0) {
        ssize_t n = send(a->conn, a->out, a->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            drop_link(a, false, strerror(errno));
            return;
        }
        a->out_len -= (size_t)n;
        memmove(a->out, a->out + n, a->out_len);
    }
}

/* The host's time as late as possible, and randomness no other copy of the machine gets. */
static void fill_resume(struct rpc_resume *r)
{
    struct timespec ts;

    memset(r, 0, sizeof(*r));
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    r->time_ns = (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
    r->has_entropy = getrandom(r->entropy, sizeof(r->entropy), 0) == (ssize_t)sizeof(r->entropy);
}

/* Sends what waits for a connection. lock held. */
static void send_calls(struct guestlink_agent *a)
{
    for (struct call *c = a->calls, *next; c && a->conn >= 0; c = next) {
        struct rpc_resume resume;
        next = c->next;
        if (c->state != CALL_WAITING)
            continue;
        if (!c->function) {
            finish(a, c, 0);
            continue;
        }
        if (c->tell_resume)
            fill_resume(&resume);
        ssize_t n = rpc_encode_request(a->out + a->out_len, sizeof(a->out) - a->out_len, c->id,
                                       c->function, c->tell_resume ? &resume : NULL);
        if (n < 0)
            break; /* no room now: the guest reads slowly. Its turn comes when it has */
        a->out_len += (size_t)n;
        c->state = CALL_SENT;
        log_debug(a->log, "Asked the guest's agent", log_str("function", c->function));
    }
    flush(a);
}

/* lock held. */
static void take_connection(struct guestlink_agent *a)
{
    int fd = guest_listener_accept(&a->listener);

    if (fd < 0)
        return;
    drop_link(a, false, "it connected anew");
    a->conn = fd;
    a->budget = BUDGET;
    rpc_reader_init(&a->reader);
    log_debug(a->log, "The guest's agent is here");
}

/* lock held. */
static void take_message(struct guestlink_agent *a, const struct rpc_message *m)
{
    if (m->kind == RPC_REQUEST) {
        /* We offer nothing; an answer is kinder than upstream's hanging up. */
        ssize_t n = rpc_encode_response(a->out + a->out_len, sizeof(a->out) - a->out_len, m->call,
                                        "unknown function: the host has none");
        if (n < 0)
            drop_link(a, true, "it asks but does not read the answers");
        else
            a->out_len += (size_t)n;
        return;
    }
    for (struct call *c = a->calls; c; c = c->next) {
        if (c->state != CALL_SENT || strcmp(c->id, m->call) != 0)
            continue;
        a->budget = BUDGET;
        if (m->error[0])
            error_set(&c->err, EREMOTEIO, "the guest's agent: %s: %s", c->function, m->error);
        finish(a, c, m->error[0] ? -1 : 0);
        return;
    }
    log_debug(a->log, "Answer to no call, ignoring");
}

/* lock held. */
static void hear(struct guestlink_agent *a)
{
    struct rpc_message m;
    struct error err;
    char buf[16384];
    size_t used;

    ssize_t n = recv(a->conn, buf, sizeof(buf), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        drop_link(a, false, n < 0 ? strerror(errno) : "closed");
        return;
    }
    if ((size_t)n > a->budget) {
        drop_link(a, true, "it sends without being asked");
        return;
    }
    a->budget -= (size_t)n;
    for (size_t at = 0; at < (size_t)n && a->conn >= 0; at += used) {
        int rc = rpc_reader_feed(&a->reader, buf + at, (size_t)n - at, &used, &m, &err);
        if (rc < 0) {
            drop_link(a, true, err.text);
            return;
        }
        if (rc == 0)
            return;
        take_message(a, &m);
    }
}

static void *serve(void *opaque)
{
    struct guestlink_agent *a = opaque;

    pthread_mutex_lock(&a->lock);
    while (!a->stop) {
        const uint64_t now = guest_deadline(0);
        const bool quiet = a->quiet_until > now;
        const int wait_ms = quiet ? (int)((a->quiet_until - now) / 1000000) + 1 : -1;
        struct pollfd p[3] = {
            {.fd = a->wake, .events = POLLIN},
            {.fd = quiet ? -1 : a->listener.fd, .events = POLLIN},
            {.fd = a->conn, .events = (short)(POLLIN | (a->out_len ? POLLOUT : 0))},
        };
        pthread_mutex_unlock(&a->lock);
        int rc = poll(p, 3, wait_ms);
        pthread_mutex_lock(&a->lock);
        if (rc <= 0)
            continue;
        if (p[0].revents)
            clear_fd(a->wake);
        /* First the old connection: an answer that stands in it still counts. */
        if (p[2].revents & ~POLLOUT)
            hear(a);
        if (p[1].revents && !(a->quiet_until > now))
            take_connection(a);
        flush(a);
        send_calls(a);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

int guestlink_agent_listen(const struct guestlink_address *address, const struct log *log,
                           struct guestlink_agent **ret_agent, struct error *err)
{
    if (address->port == 0) {
        *ret_agent = NULL;
        return 0;
    }
    cleanup_free struct guestlink_agent *a = calloc(1, sizeof(*a));
    if (!a)
        return error_oom(err);
    a->log = log;
    a->port = address->port;
    a->conn = -1;
    cleanup_close int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake < 0)
        return error_sys(err, "agent: eventfd");
    a->wake = wake;
    if (guest_listener_open(address, &a->listener, err) < 0)
        return error_wrap(err, "agent");
    (void)pthread_mutex_init(&a->lock, NULL);
    int rc = pthread_create(&a->thread, NULL, serve, a);
    if (rc != 0) {
        guest_listener_close(&a->listener);
        (void)pthread_mutex_destroy(&a->lock);
        return error_num(err, rc, "agent: start a thread");
    }
    (void)steal_fd(&wake);
    *ret_agent = steal_ptr(&a);
    return 0;
}

void guestlink_agent_close(struct guestlink_agent *agent)
{
    if (!agent)
        return;
    pthread_mutex_lock(&agent->lock);
    agent->stop = true;
    pthread_mutex_unlock(&agent->lock);
    signal_fd(agent->wake);
    (void)pthread_join(agent->thread, NULL);
    guest_listener_close(&agent->listener);
    cleanup_close_p(&agent->conn);
    cleanup_close_p(&agent->wake);
    (void)pthread_mutex_destroy(&agent->lock);
    free(agent);
}

bool guestlink_agent_connected(struct guestlink_agent *agent)
{
    if (!agent)
        return false;
    lock_scope(&agent->lock);
    return agent->conn >= 0;
}

/* Takes back a call nobody waits for any more. Returns the state it was in. */
static enum call_state withdraw(struct guestlink_agent *a, struct call *call)
{
    lock_scope(&a->lock);
    const enum call_state was = call->state;
    if (was != CALL_DONE)
        unlist(a, call);
    return was;
}

static int timed_out(const struct guestlink_agent *a, const struct call *call, bool sent,
                     uint64_t timeout_ns, struct error *err)
{
    const double s = (double)timeout_ns / 1e9;

    if (sent)
        return error_set(err, ETIMEDOUT,
                         "the guest's agent: %s: no answer within %.1f s; its command may still "
                         "run in the guest",
                         call->function, s);
    return error_set(err, ETIMEDOUT,
                     "the guest's agent did not connect to vsock port %u within %.1f s: is "
                     "drafter-agent running in the guest?",
                     a->port, s);
}

/* Hands the call to the thread and waits for its end. */
static int perform(struct guestlink_agent *a, struct call *call, uint64_t timeout_ns,
                   const struct context *ctx, struct error *err)
{
    const uint64_t deadline = guest_deadline(timeout_ns);
    uint8_t random[16];

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return error_sys(err, "getrandom");
    rpc_call_id(random, call->id);
    cleanup_close int done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (done < 0)
        return error_sys(err, "eventfd");
    call->done = done;
    call->state = CALL_WAITING;
    pthread_mutex_lock(&a->lock);
    call->next = a->calls;
    a->calls = call;
    pthread_mutex_unlock(&a->lock);
    signal_fd(a->wake);

    struct pollfd fds[2] = {[1] = {.fd = done, .events = POLLIN}};
    struct error why = ERROR_INIT;
    int rc = guest_poll(fds, 2, deadline, ctx, &why);
    enum call_state was = withdraw(a, call);
    if (was == CALL_DONE) {
        if (call->rc < 0 && err)
            *err = call->err;
        return call->rc;
    }
    if (rc < 0) {
        if (err)
            *err = why;
        return error_wrap(err, "the guest's agent");
    }
    return timed_out(a, call, was == CALL_SENT, timeout_ns, err);
}

int guestlink_agent_wait(struct guestlink_agent *agent, uint64_t timeout_ns,
                         const struct context *ctx, struct error *err)
{
    struct call call = {.done = -1};

    return agent ? perform(agent, &call, timeout_ns, ctx, err) : 0;
}

int guestlink_agent_before_suspend(struct guestlink_agent *agent, uint64_t timeout_ns,
                                   const struct context *ctx, struct error *err)
{
    struct call call = {.function = RPC_BEFORE_SUSPEND, .done = -1};

    return agent ? perform(agent, &call, timeout_ns, ctx, err) : 0;
}

int guestlink_agent_after_resume(struct guestlink_agent *agent, uint64_t timeout_ns,
                                 const struct context *ctx, struct error *err)
{
    struct call call = {
        .function = RPC_AFTER_RESUME, .done = -1, .repeat = true, .tell_resume = true};

    return agent ? perform(agent, &call, timeout_ns, ctx, err) : 0;
}
