// SPDX-License-Identifier: Apache-2.0
/* metrics.c - counters of a peer and of its devices, over HTTP/1.0
 *
 * drafter-peer(1) lists them all; tests/golden/manual.sh compares.
 */
#include "runtime/peer/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/block/filter/dirty.h"
#include "runtime/block/filter/stats.h"
#include "runtime/transport/transport.h"

#define REQUEST_MAX 8192

struct metrics {
    struct listener *listener;
    struct peer *peer;
    struct context ctx;
    struct cancel cancel;
    pthread_t thread;
    bool running;
};

struct text {
    char *buf;
    size_t len, room;
};

static void put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(t->buf + t->len, t->room - t->len, fmt, ap);
    va_end(ap);
    if (n > 0 && (size_t)n < t->room - t->len)
        t->len += (size_t)n;
    else
        t->buf[t->len] = '\0'; /* what does not fit is left out whole */
}

static void metric(struct text *t, const char *name, const char *kind, const char *help, double v)
{
    put(t, "# HELP drafter_peer_%s %s\n# TYPE drafter_peer_%s %s\ndrafter_peer_%s %.17g\n", name,
        help, name, kind, name, v);
}

static void devices(struct text *t, struct peer *p)
{
    static const char *const kinds[][2] = {
        {"drafter_device_requests_total", "Requests to a device."},
        {"drafter_device_bytes_total", "Bytes of the requests that succeeded."},
        {"drafter_device_errors_total", "Requests that failed."},
    };

    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        put(t, "# HELP %s %s\n# TYPE %s counter\n", kinds[k][0], kinds[k][1], kinds[k][0]);
        for (size_t i = 0; i < p->plan->count; i++) {
            const char *name = p->plan->items[i].d.name;
            struct block *b = assembly_block(p->a, name);
            struct stats s;
            if (!b || stats_get(b, &s) < 0)
                continue;
            for (int op = 0; op < STATS_OPS; op++) {
                const struct stats_counter *c = &s.op[op];
                put(t, "%s{device=\"%s\",op=\"%s\"} %" PRIu64 "\n", kinds[k][0], name,
                    stats_op_name((enum stats_op)op),
                    k == 0   ? c->requests
                    : k == 1 ? c->bytes
                             : c->errors);
            }
        }
    }
    put(t, "# HELP drafter_device_dirty_blocks Blocks with changes since the last look.\n"
           "# TYPE drafter_device_dirty_blocks gauge\n");
    for (size_t i = 0; i < p->plan->count; i++) {
        struct block *b = assembly_block(p->a, p->plan->items[i].d.name);
        struct dirty *d = b ? dirty_find(b) : NULL;
        if (d)
            put(t, "drafter_device_dirty_blocks{device=\"%s\"} %" PRIu64 "\n",
                p->plan->items[i].d.name, dirty_blocks(d));
    }
}

size_t peer_metrics(struct peer *p, char *buf, size_t size)
{
    const struct peer_counters *c = &p->counters;
    struct text t = {.buf = buf, .room = size};

    metric(&t, "vm_running", "gauge", "1 while the machine runs here.", atomic_load(&c->running));
    metric(&t, "migrating_to", "gauge", "1 while it is being handed on.", atomic_load(&c->sending));
    metric(&t, "migrating_from", "gauge", "1 while it is being taken in.",
           atomic_load(&c->receiving));
    metric(&t, "resumes_total", "counter", "Starts that succeeded.",
           (double)atomic_load(&c->resumes));
    metric(&t, "resume_seconds", "gauge", "The last start, until the agent's answer.",
           (double)atomic_load(&c->resume_ns) / 1e9);
    metric(&t, "suspends_total", "counter", "Suspends that succeeded.",
           (double)atomic_load(&c->suspends));
    metric(&t, "suspend_seconds", "gauge", "The last suspend.",
           (double)atomic_load(&c->suspend_ns) / 1e9);
    metric(&t, "migrations_sent_total", "counter", "Machines handed on.",
           (double)atomic_load(&c->migrations_out));
    metric(&t, "migrations_received_total", "counter", "Machines taken in.",
           (double)atomic_load(&c->migrations_in));
    metric(&t, "copies_total", "counter", "Copies taken of the machine, which ran on here.",
           (double)atomic_load(&c->copies));
    metric(&t, "migrations_failed_total", "counter", "Migrations that failed.",
           (double)atomic_load(&c->migrations_failed));
    metric(&t, "migration_stage", "gauge", "Stage of the migration, 0 greet to 7 done.",
           (double)atomic_load(&c->stage));
    metric(&t, "migration_bytes", "gauge", "Bytes of all devices.",
           (double)atomic_load(&c->bytes_total));
    metric(&t, "migration_settled_bytes", "gauge", "Bytes the target has in their last form.",
           (double)atomic_load(&c->bytes_settled));
    metric(&t, "migration_wire_bytes", "gauge", "Bytes on the stream.",
           (double)atomic_load(&c->bytes_wire));
    metric(&t, "migration_dirty_pages", "gauge", "Pages the last look found changed.",
           (double)atomic_load(&c->dirty_pages));
    metric(&t, "migration_round", "gauge", "Rounds of what was changed meanwhile.",
           (double)atomic_load(&c->round));
    metric(&t, "migration_suspended_seconds", "gauge",
           "How long the machine stood still in the last migration that succeeded.",
           (double)atomic_load(&c->last_suspended_ns) / 1e9);
    metric(&t, "migration_seconds", "gauge", "How long that took in all.",
           (double)atomic_load(&c->last_total_ns) / 1e9);
    metric(&t, "migration_sent_bytes_total", "counter", "Bytes sent in migrations that ended.",
           (double)atomic_load(&c->sent));
    metric(&t, "migration_received_bytes_total", "counter",
           "Bytes received in migrations that ended.", (double)atomic_load(&c->received));
    if (atomic_load(&c->ready))
        devices(&t, p);
    return t.len;
}

/* Reads up to the empty line. Returns 0 with the request line in buf. */
static int read_request(struct stream *s, const struct context *ctx, char *buf, size_t size,
                        struct error *err)
{
    size_t len = 0;

    while (len < size - 1) {
        ssize_t n = stream_read_some(s, buf + len, size - 1 - len, METRICS_CLIENT_NS, ctx, err);
        if (n < 0)
            return -1;
        len += (size_t)n;
        buf[len] = '\0';
        if (n == 0 || strstr(buf, "\r\n\r\n") || strstr(buf, "\n\n"))
            return 0;
    }
    return error_set(err, EFBIG, "request is too long");
}

static void answer(struct metrics *m, struct stream *s)
{
    char request[REQUEST_MAX], head[256];
    struct error err = ERROR_INIT;
    cleanup_free char *body = malloc(PEER_METRICS_TEXT_MAX);

    if (!body || read_request(s, &m->ctx, request, sizeof(request), &err) < 0)
        return;
    size_t len = 0;
    const char *status = "404 Not Found";
    if (strncmp(request, "GET /metrics", 12) == 0 && strchr(" ?\r\n", request[12])) {
        status = "200 OK";
        len = peer_metrics(m->peer, body, PEER_METRICS_TEXT_MAX);
    }
    int n = snprintf(head, sizeof(head),
                     "HTTP/1.0 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                     "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                     status, len);
    struct iovec iov[2] = {{.iov_base = head, .iov_len = (size_t)n},
                           {.iov_base = body, .iov_len = len}};
    (void)stream_write(s, iov, len ? 2 : 1, METRICS_CLIENT_NS, &m->ctx, &err);
}

static void *serve(void *opaque)
{
    struct metrics *m = opaque;

    while (context_check(&m->ctx, NULL) == 0) {
        cleanup_stream struct stream *s = listener_accept(m->listener, 0, &m->ctx, NULL);
        if (!s)
            continue;
        stream_expire(s, METRICS_CLIENT_NS); /* for all of it, however it dribbles */
        answer(m, s);
    }
    return NULL;
}

struct metrics *metrics_serve(const char *address, struct peer *peer, const struct context *ctx,
                              struct error *err)
{
    /* A client is seen to once it has begun its request: one that says nothing holds no other up.
     */
    struct transport_options transport = {.hello = strlen("GET "),
                                          .connect_timeout_ns = METRICS_CLIENT_NS};
    struct metrics *m = calloc(1, sizeof(*m));

    if (!m) {
        (void)error_oom(err);
        return NULL;
    }
    m->peer = peer;
    m->ctx.log = context_log(ctx);
    m->ctx.cancel = &m->cancel;
    if (cancel_init(&m->cancel, err) < 0)
        goto fail;
    m->listener = listener_open(address, &transport, err);
    if (!m->listener) {
        (void)error_wrap(err, "--metrics");
        goto fail;
    }
    int rc = pthread_create(&m->thread, NULL, serve, m);
    if (rc != 0) {
        (void)error_num(err, rc, "thread");
        goto fail;
    }
    m->running = true;
    log_info(context_log(ctx), "Serving metrics", log_str("addr", listener_address(m->listener)));
    return m;
fail:
    metrics_stop(m);
    return NULL;
}

void metrics_stop(struct metrics *m)
{
    if (!m)
        return;
    if (m->running) {
        cancel_request(&m->cancel);
        (void)pthread_join(m->thread, NULL);
    }
    listener_close(m->listener);
    cancel_destroy(&m->cancel);
    free(m);
}
