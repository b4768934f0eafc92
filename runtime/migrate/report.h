/* SPDX-License-Identifier: Apache-2.0 */
/* report.h - what a migration tells programs: events on a descriptor, and a trace file
 *
 * Theory of operation: events are JSON objects, one a line; a trace is one line of text for every
 * range that moved. drafter-migration(7) describes both, and tools/plot-migration draws the second.
 * Nobody who reads them can hold a migration up: an event that a full pipe has no room for is
 * dropped when another of its kind follows, and waited for REPORT_WAIT_MS otherwise; a trace that
 * cannot be written ends, with one warning.
 */
#ifndef RUNTIME_MIGRATE_REPORT_H
#define RUNTIME_MIGRATE_REPORT_H

#include "runtime/migrate/migrate.h"

#define REPORT_WAIT_MS 1000

struct report;

/* status_fd: where events go, not closed here; -1 = nowhere. trace: path of a file that is made, or
 * emptied; NULL = none. The caller owns the result: report_close(). NULL on failure. */
struct report *report_open(int status_fd, const char *trace, const struct context *ctx,
                           struct error *err);
/* Writes what is buffered. Returns 0, or -1 when the trace is not whole. NULL is fine. */
int report_close(struct report *r, struct error *err);

/* Everything below may be called with NULL, and from any thread. */

/* One event, with "time" and "event" before the fields. */
void report_event(struct report *r, const char *event, const struct log_field *fields);

/* One migration, while it lasts. */
struct report_move {
    const char *side; /* "source" or "target" */
    char peer[320];
    bool begun;
    enum migrate_stage stage;
    uint64_t stage_ns, stage_settled; /* where the rate is counted from */
};

/* A migration begins: side "source" or "target" (not copied), peer as stream_peer() says. */
void report_begin(struct report *r, struct report_move *move, const char *side, const char *peer);
/* Its devices, for the trace. */
void report_device(struct report *r, const char *name, uint64_t size);
/* As of migrate_watch: an event "progress", and the trace's "stage" when that is another one. Of
 * one migration from one thread at a time. */
void report_status(struct report *r, struct report_move *move, const struct migrate_status *status);
void report_trace(struct report *r, enum migrate_trace_kind kind, const char *device,
                  uint64_t offset, uint64_t length);
/* It is over: an event "ended" with all figures; cause: NULL when it went well. */
void report_end(struct report *r, const struct report_move *move,
                const struct migrate_result *result, const struct error *cause);

const char *migrate_outcome_name(enum migrate_outcome outcome);

#endif
