// SPDX-License-Identifier: Apache-2.0
/* registry.c - serves a package to any number of peers at once; see registry.h */
#include "runtime/peer/registry.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "runtime/peer/served.h"

struct pull;

struct registry {
    const struct registry_options *o;
    const struct context *ctx;
    struct report *report;
    struct served served;
    struct listener *listener;

    pthread_mutex_t lock;  /* guards what follows and every pull's link; taken before no other */
    pthread_cond_t change; /* a pull ended or got a link, or we are stopping */
    struct pull *pulls;
    unsigned clients; /* threads */
    uint64_t completed;
    bool stopping;
};

/* One client's thread; a pull once it has greeted with no session. */
struct pull {
    struct registry *r;
    struct pull *next;
    struct stream *stream; /* of the thread, until the engine has it */
    char peer[320];
    bool listed;
    uint8_t session[WIRE_SESSION_SIZE];
    struct context ctx;
    struct cancel cancel;
    bool past_return; /* so far that it must not be cancelled: the engine looks for a cancellation
                         once more before it commits */
    struct report_move move;
    struct stream *again; /* a new link for its session */
    struct migrate_device devices[PACKAGE_DEVICES_MAX];
    size_t n;
};

/* ---- One pull ----------------------------------------------------------------------------- */

static int open_stacks(struct pull *p, struct error *err)
{
    const struct served *s = &p->r->served;

    for (size_t i = 0; i < s->n; i++) {
        const struct served_item *it = &s->items[i];
        struct block *b = served_open(it, &p->ctx, err);
        if (!b)
            return -1;
        p->devices[p->n++] = (struct migrate_device){
            .name = it->name,
            .block = b,
            .block_size = it->block_size,
            .memory = blueprint_role_of(it->name) == BLUEPRINT_MEMORY,
            .share_base = it->has_digest,
        };
    }
    return 0;
}

/* The machine stands still already, and nothing can befall it. */
static int stand(void *opaque, struct error *err)
{
    (void)opaque;
    (void)err;
    return 0;
}

static int save(void *opaque, uint8_t **ret_state, size_t *ret_len, struct error *err)
{
    const struct served *s = &((struct pull *)opaque)->r->served;
    uint8_t *copy = malloc(s->state_len);

    if (!copy)
        return error_oom(err);
    memcpy(copy, s->state, s->state_len);
    *ret_state = copy;
    *ret_len = s->state_len;
    return 0;
}

static struct stream *reconnect(void *opaque, uint64_t timeout_ns, struct error *err)
{
    struct pull *p = opaque;
    struct registry *r = p->r;
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + timeout_ns;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    lock_scope(&r->lock);
    while (!p->again && !r->stopping)
        if (pthread_cond_timedwait(&r->change, &r->lock, &until) == ETIMEDOUT)
            break;
    if (!p->again)
        (void)error_set(err, ETIMEDOUT, "%s: did not come back", p->peer);
    return steal_ptr(&p->again);
}

static void watch_status(void *opaque, const struct migrate_status *s)
{
    struct pull *p = opaque;
    {
        lock_scope(&p->r->lock);
        p->past_return = s->stage >= MIGRATE_SUSPEND;
    }
    report_status(p->r->report, &p->move, s);
}

static void serve(struct pull *p)
{
    struct registry *r = p->r;
    struct error err = ERROR_INIT;
    struct migrate_result result = {.outcome = MIGRATE_ROLLED_BACK};
    struct migrate_watch watch = {.status = watch_status, .opaque = p};
    struct migrate_machine machine = {.suspend = stand, .save = save, .resume = stand, .opaque = p};
    struct migrate_send_options options = {
        .machine = r->served.machine,
        .session = p->session,
        .postcopy = r->o->postcopy_off ? MIGRATE_POSTCOPY_OFF : MIGRATE_POSTCOPY_EARLY,
        .concurrency = r->o->concurrency,
        .zstd_level = r->o->zstd_level,
        .bandwidth = r->o->bandwidth,
        .answer_ns = r->o->answer_ns,
        .reconnect = reconnect,
        .opaque = p,
        .watch = &watch,
    };

    log_info(context_log(r->ctx), "Migrating to", log_str("addr", p->peer));
    report_begin(r->report, &p->move, "source", p->peer);
    int rc = open_stacks(p, &err);
    if (rc == 0)
        rc = migrate_send(steal_ptr(&p->stream), p->devices, p->n, &machine, &options, &p->ctx,
                          &result, &err);
    report_end(r->report, &p->move, &result, rc < 0 ? &err : NULL);
    for (size_t i = 0; i < p->n; i++)
        (void)block_close(p->devices[i].block, NULL);
    if (rc < 0) {
        log_warn(context_log(r->ctx), "A pull failed, ignoring", log_str("addr", p->peer),
                 log_str("error", err.text));
        return;
    }
    {
        lock_scope(&r->lock);
        r->completed++;
    }
    log_info(context_log(r->ctx),
             result.outcome == MIGRATE_COPIED ? "A copy was taken"
                                              : "Completed all device migrations",
             log_str("addr", p->peer), log_uint("ms", result.total_ns / 1000000),
             log_uint("bytes_sent", result.bytes_sent), log_uint("pages_base", result.pages_base),
             log_uint("wants", result.wants));
}

/* ---- Clients ------------------------------------------------------------------------------ */

/* Hands the stream to the pull whose session it names. Returns false when there is none. */
static bool hand_over(struct pull *client, const uint8_t session[WIRE_SESSION_SIZE])
{
    struct registry *r = client->r;
    lock_scope(&r->lock);

    for (struct pull *p = r->pulls; p; p = p->next) {
        if (!p->listed || memcmp(p->session, session, WIRE_SESSION_SIZE) != 0)
            continue;
        stream_close(p->again); /* one that it has not seen: the newest counts */
        p->again = steal_ptr(&client->stream);
        (void)pthread_cond_broadcast(&r->change);
        return true;
    }
    return false;
}

/* What a client wants is in its greeting. */
static int greet(struct pull *p, struct error *err)
{
    uint8_t session[WIRE_SESSION_SIZE];

    if (migrate_peek(p->stream, &p->ctx, session, err) < 0)
        return -1;
    if (!migrate_is_new(session)) {
        if (hand_over(p, session))
            return 0;
        migrate_turn_away(steal_ptr(&p->stream), NULL, NULL, &p->ctx);
        return error_set(err, ESTALE, "%s: wants to take up a pull that is not known here",
                         p->peer);
    }
    if (getrandom(p->session, sizeof(p->session), 0) != sizeof(p->session))
        return error_sys(err, "random bytes");
    {
        lock_scope(&p->r->lock);
        p->listed = true;
    }
    serve(p);
    return 0;
}

static void *client(void *opaque)
{
    struct pull *p = opaque;
    struct registry *r = p->r;
    struct error err = ERROR_INIT;

    if (greet(p, &err) < 0)
        log_warn(context_log(r->ctx), "Client turned away", log_str("addr", p->peer),
                 log_str("error", err.text));
    {
        lock_scope(&r->lock);
        struct pull **at = &r->pulls;
        while (*at != p)
            at = &(*at)->next;
        *at = p->next;
    }
    stream_close(p->stream);
    stream_close(p->again);
    cancel_destroy(&p->cancel);
    free(p);
    lock_scope(&r->lock); /* the last thing: after it the registry may be gone */
    r->clients--;
    (void)pthread_cond_broadcast(&r->change);
    return NULL;
}

static int admit(struct registry *r, struct stream *stream, struct error *err)
{
    cleanup_stream struct stream *s = stream;
    pthread_attr_t attr;
    pthread_t thread;
    bool full;
    {
        lock_scope(&r->lock);
        full = r->clients >= r->o->pulls;
    }
    if (full)
        return error_set(err, EBUSY, "%u are served already (--pulls)", r->o->pulls);
    struct pull *p = calloc(1, sizeof(*p));
    if (!p)
        return error_oom(err);
    p->r = r;
    (void)snprintf(p->peer, sizeof(p->peer), "%s", stream_peer(s));
    p->ctx = (struct context){.log = context_log(r->ctx), .cancel = &p->cancel};
    if (cancel_init(&p->cancel, err) < 0) {
        free(p);
        return -1;
    }
    p->stream = steal_ptr(&s);
    lock_scope(&r->lock);
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int rc = pthread_create(&thread, &attr, client, p);
    (void)pthread_attr_destroy(&attr);
    if (rc != 0) {
        stream_close(p->stream);
        cancel_destroy(&p->cancel);
        free(p);
        return error_num(err, rc, "thread");
    }
    p->next = r->pulls;
    r->pulls = p;
    r->clients++;
    return 0;
}

static int accept_all(struct registry *r, struct error *err)
{
    while (context_check(r->ctx, NULL) == 0) {
        struct error why = ERROR_INIT;
        struct stream *s = listener_accept(r->listener, 0, r->ctx, &why);
        if (!s && context_check(r->ctx, NULL) < 0)
            return 0;
        if (!s) {
            if (err)
                *err = why;
            return error_wrap(err, "--laddr");
        }
        char peer[320];
        (void)snprintf(peer, sizeof(peer), "%s", stream_peer(s));
        if (admit(r, s, &why) < 0)
            log_warn(context_log(r->ctx), "Client turned away", log_str("addr", peer),
                     log_str("error", why.text));
    }
    return 0;
}

/* Calls off the pulls that can be, and waits for all. */
static void end_all(struct registry *r)
{
    lock_scope(&r->lock);

    r->stopping = true;
    (void)pthread_cond_broadcast(&r->change);
    for (struct pull *p = r->pulls; p; p = p->next)
        if (!p->past_return)
            cancel_request(&p->cancel);
    if (r->clients)
        log_info(context_log(r->ctx), "Serving pulls whose machine runs to their end",
                 log_uint("clients", r->clients));
    while (r->clients)
        (void)pthread_cond_wait(&r->change, &r->lock);
}

int registry_run(const struct registry_options *options, const struct context *ctx,
                 struct error *err)
{
    cleanup_free struct registry *r = calloc(1, sizeof(*r));
    struct transport_options transport = options->transport;
    pthread_condattr_t attr;

    transport.hello = GREETING_SIZE;
    if (!r)
        return error_oom(err);
    r->o = options;
    r->ctx = ctx;
    (void)pthread_mutex_init(&r->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&r->change, &attr);
    (void)pthread_condattr_destroy(&attr);
    int rc = -1;
    const struct served_options what = {
        .package = options->package, .devices = options->devices, .no_verify = options->no_verify};
    if (served_load(&r->served, &what, ctx, err) == 0 &&
        (r->report = report_open(options->status_fd, NULL, ctx, err)) &&
        (r->listener = listener_open(options->laddr, &transport, err))) {
        log_info(context_log(ctx), "Serving", log_str("addr", listener_address(r->listener)));
        report_event(r->report, "listening",
                     log_fields(log_str("addr", listener_address(r->listener))));
        rc = accept_all(r, err);
        end_all(r);
        log_info(context_log(ctx), "Exiting gracefully", log_uint("served", r->completed));
    }
    listener_close(r->listener);
    if (report_close(r->report, rc < 0 ? NULL : err) < 0)
        rc = -1;
    served_clear(&r->served);
    (void)pthread_mutex_destroy(&r->lock);
    (void)pthread_cond_destroy(&r->change);
    return rc;
}
