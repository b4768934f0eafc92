/* SPDX-License-Identifier: Apache-2.0 */
/* source.h - what the two halves of the source share, private to runtime/migrate
 *
 * source.c walks the stages; source_link.c is its ear: the reader thread, waiting for what the
 * target says, and taking a lost link up again.
 */
#ifndef RUNTIME_MIGRATE_SOURCE_H
#define RUNTIME_MIGRATE_SOURCE_H

#include <pthread.h>

#include "runtime/migrate/copy.h"
#include "runtime/migrate/record.h"

struct source {
    const struct migrate_device *devices;
    size_t n;
    const struct migrate_machine *machine;
    const struct migrate_send_options *options;
    const struct context *ctx;
    struct migrate_result result;
    struct greeting greeting;
    struct copy *copy;
    struct record record;
    struct migrate_status status;
    uint64_t start_ns, suspend_ns, last_status_ns;
    uint64_t counted_in, counted_out; /* bytes of links that are gone */
    bool suspended, committed;

    pthread_t keeper; /* runs the machine's keep() */
    bool has_keeper;
    int keep_rc; /* of the keeper, once joined */
    struct error keep_error;

    struct link *link; /* replaced by this thread only, while no reader runs */
    bool has_reader;
    pthread_t reader;
    pthread_mutex_t lock;  /* guards what follows; no other lock is taken under it */
    pthread_cond_t change; /* any of it changed */
    bool lost;             /* the link is of no further use; `why` says how */
    struct error why;
    bool accepted, ready, running, done, aborted, never_ran;
    bool retaking; /* ABSENT may come in */
    uint8_t shares_base[WIRE_DEVICES_MAX];
};

/* Starts the reader of the current link. Returns 0. */
int source_listen(struct source *s, struct error *err);
/* Ends the link and its reader; its counters are kept. */
void source_drop_link(struct source *s);

/* Reads one of the flags under the lock. */
bool source_flag(struct source *s, const bool *flag);

/* Waits until *flag (under the lock) or the deadline (0 = none). Returns 0, or -1: the link was
 * lost, the deadline passed (ETIMEDOUT), or ctx was cancelled. */
int source_wait(struct source *s, const bool *flag, uint64_t deadline, const char *what,
                struct error *err);
/* copy_wait()'s stop: the link is gone. Reports progress on the way. */
bool source_lost(void *opaque);
/* Why the link was lost. Returns -1. */
int source_why(struct source *s, struct error *err);

/* Takes the link up again after the commit. Returns 0 with a link on which READY or RUNNING was
 * heard, or -1: nobody came, or (never_ran) the target has destroyed its copy. */
int source_retake(struct source *s, struct error *err);

/* Tells watchers how far it is; unforced ten times a second at most. */
void source_report(struct source *s, bool force);

/* The stage as a progress line shows it, with the round while there are rounds. */
void migrate_phase(const struct migrate_status *status, char *buf, size_t size);

#endif
