// SPDX-License-Identifier: Apache-2.0
/* report.c - events on a descriptor, and a trace file */
#include "runtime/migrate/report.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/migrate/link.h"

#define TRACE_BUFFER (1u << 20)

struct report {
    const struct context *ctx;
    int fd;
    char *path;
    uint64_t start_ns;

    pthread_mutex_t lock; /* guards what follows; no other lock is taken under it */
    FILE *trace;          /* NULL = none, or given up */
    struct error failed;  /* why it was given up */
};

static const char *const kinds[] = {
    [MIGRATE_TRACE_SENT] = "sent",       [MIGRATE_TRACE_RECEIVED] = "received",
    [MIGRATE_TRACE_WANTED] = "wanted",   [MIGRATE_TRACE_DIRTIED] = "dirtied",
    [MIGRATE_TRACE_IMPLIED] = "implied",
};

const char *migrate_outcome_name(enum migrate_outcome outcome)
{
    static const char *const names[] = {
        [MIGRATE_ROLLED_BACK] = "rolled-back",
        [MIGRATE_MOVED] = "moved",
        [MIGRATE_COPIED] = "copied",
        [MIGRATE_IN_DOUBT] = "in-doubt",
    };
    return names[outcome];
}

struct report *report_open(int status_fd, const char *trace, const struct context *ctx,
                           struct error *err)
{
    struct report *r = calloc(1, sizeof(*r));

    if (!r) {
        (void)error_oom(err);
        return NULL;
    }
    r->ctx = ctx;
    r->fd = status_fd;
    r->start_ns = link_now_ns();
    (void)pthread_mutex_init(&r->lock, NULL);
    if (status_fd >= 0 && fcntl(status_fd, F_GETFD) < 0) {
        (void)error_sys(err, "status descriptor %d", status_fd);
        goto fail;
    }
    if (!trace)
        return r;
    r->path = strdup(trace);
    r->trace = fopen(trace, "we");
    if (!r->path || !r->trace) {
        (void)error_sys(err, "trace %s", trace);
        goto fail;
    }
    (void)setvbuf(r->trace, NULL, _IOFBF, TRACE_BUFFER);
    (void)fprintf(r->trace, "drafter-trace 1\n");
    return r;
fail:
    (void)report_close(r, NULL);
    return NULL;
}

/* Locked. */
static void end_trace(struct report *r, bool failed)
{
    FILE *f = steal_ptr(&r->trace);

    if (failed)
        (void)error_sys(&r->failed, "trace %s", r->path);
    if (fclose(f) != 0 && !failed)
        (void)error_sys(&r->failed, "trace %s", r->path);
}

int report_close(struct report *r, struct error *err)
{
    int rc = 0;

    if (!r)
        return 0;
    if (r->trace)
        end_trace(r, false);
    if (r->failed.code) {
        if (err)
            *err = r->failed;
        rc = -1;
    }
    (void)pthread_mutex_destroy(&r->lock);
    free(r->path);
    free(r);
    return rc;
}

/* ---- events ---- */

/* A line is shorter than PIPE_BUF, so a pipe that can be written takes all of it at once. */
static void emit(struct report *r, const char *event, const struct log_field *fields, int wait_ms)
{
    struct pollfd p = {.fd = r->fd, .events = POLLOUT};

    if (poll(&p, 1, wait_ms) == 1 && (p.revents & POLLOUT))
        log_json_line(r->fd, event, fields);
}

void report_event(struct report *r, const char *event, const struct log_field *fields)
{
    if (r && r->fd >= 0)
        emit(r, event, fields, REPORT_WAIT_MS);
}

static void trace_line(struct report *r, const char *word, const char *value)
{
    lock_scope(&r->lock);
    if (r->trace)
        (void)fprintf(r->trace, "%" PRIu64 " %s %s\n", (link_now_ns() - r->start_ns) / 1000, word,
                      value);
}

void report_begin(struct report *r, struct report_move *m, const char *side, const char *peer)
{
    if (!r)
        return;
    *m = (struct report_move){.side = side};
    (void)snprintf(m->peer, sizeof(m->peer), "%s", peer);
    trace_line(r, "begin", side);
    report_event(r, "started", log_fields(log_str("side", side), log_str("peer", peer)));
}

void report_status(struct report *r, struct report_move *m, const struct migrate_status *s)
{
    struct log_field eta = {.kind = LOG_FIELD_END};
    uint64_t now = link_now_ns(), bps = 0;

    if (!r)
        return;
    if (!m->begun || m->stage != s->stage) {
        m->begun = true;
        m->stage = s->stage;
        m->stage_ns = now;
        m->stage_settled = s->bytes_settled;
        trace_line(r, "stage", migrate_stage_name(s->stage));
    }
    if (r->fd < 0)
        return;
    if (now > m->stage_ns && s->bytes_settled > m->stage_settled)
        bps = (uint64_t)((__uint128_t)(s->bytes_settled - m->stage_settled) * 1000000000 /
                         (now - m->stage_ns));
    if (bps)
        eta = log_uint("eta_ms",
                       (uint64_t)((__uint128_t)(s->bytes_total - s->bytes_settled) * 1000 / bps));
    emit(r, "progress",
         log_fields(log_str("side", m->side), log_str("peer", m->peer),
                    log_str("stage", migrate_stage_name(s->stage)),
                    log_uint("bytes_total", s->bytes_total),
                    log_uint("bytes_settled", s->bytes_settled),
                    log_uint("bytes_wire", s->bytes_wire), log_uint("bytes_per_second", bps),
                    log_uint("round", s->round), log_uint("dirty_pages", s->dirty_pages),
                    log_uint("suspended_us", s->suspended_ns / 1000), eta),
         0);
}

void report_end(struct report *r, const struct report_move *m, const struct migrate_result *x,
                const struct error *cause)
{
    if (!r)
        return;
    trace_line(r, "end", migrate_outcome_name(x->outcome));
    report_event(
        r, "ended",
        log_fields(
            log_str("side", m->side), log_str("peer", m->peer),
            log_str("outcome", migrate_outcome_name(x->outcome)),
            log_uint("total_us", x->total_ns / 1000),
            log_uint("suspended_us", x->suspended_ns / 1000), log_uint("bytes_sent", x->bytes_sent),
            log_uint("bytes_received", x->bytes_received), log_uint("pages_plain", x->pages_plain),
            log_uint("pages_zero", x->pages_zero), log_uint("pages_base", x->pages_base),
            log_uint("pages_resent", x->pages_resent), log_uint("wants", x->wants),
            log_uint("rounds", x->rounds),
            cause ? log_str("error", cause->text) : (struct log_field){.kind = LOG_FIELD_END}));
}

/* ---- the trace ---- */

void report_device(struct report *r, const char *name, uint64_t size)
{
    if (!r)
        return;
    lock_scope(&r->lock);
    if (r->trace)
        (void)fprintf(r->trace, "%" PRIu64 " device %s %" PRIu64 "\n",
                      (link_now_ns() - r->start_ns) / 1000, name, size);
}

void report_trace(struct report *r, enum migrate_trace_kind kind, const char *device,
                  uint64_t offset, uint64_t length)
{
    if (!r)
        return;
    lock_scope(&r->lock);
    if (!r->trace ||
        fprintf(r->trace, "%" PRIu64 " %s %s %" PRIu64 " %" PRIu64 "\n",
                (link_now_ns() - r->start_ns) / 1000, kinds[kind], device, offset, length) > 0)
        return;
    end_trace(r, true);
    log_warn(context_log(r->ctx), "Trace is not whole, ignoring", log_str("error", r->failed.text));
}
