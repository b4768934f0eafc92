/* SPDX-License-Identifier: Apache-2.0 */
/* source.h - what the parts of the source share, private to runtime/migrate
 *
 * source.c walks the stages; source_settle.c are those in which the machine runs; source_link.c is
 * its ear: the reader thread, waiting for what the target says, and taking a lost link up again.
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
    bool suspended, committed;        /* written under the lock */
    bool stands;                      /* and could not be resumed */
    bool counted;                     /* what is to be sent is known: before, nothing is settled */
    uint64_t moved_ns, moved; /* when the target last took something, since a wait for its word
                                 began; how many pages it had then */

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
    bool accepted, ready, running, done, aborted, never_ran, copied;
    bool retaking; /* ABSENT may come in */
    uint8_t shares_base[WIRE_DEVICES_MAX];
};

/* ---- source_settle.c ---- */

/* Finds what was changed in all devices since the last look, and has it sent. Returns 0. */
int source_look_at_all(struct source *s, struct error *err);
/* The same while the senders are held (copy_hold()) with something still to send. Returns 0. */
int source_look_after_save(struct source *s, struct error *err);
/* Forgets what was changed: a copy of everything follows, of which no page was read yet. */
int source_forget_changes(struct source *s, struct error *err);
int source_copy_everything(struct source *s, struct error *err);
/* Waits until all that is to be sent was sent. Returns 0, or -1: the link was lost, too. */
int source_drain_pending(struct source *s, struct error *err);

int source_stage_copy(struct source *s, struct error *err);
int source_stage_settle(struct source *s, struct error *err);

/* ---- source_link.c ---- */

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
/* The same for what the target has to say: it must not take nothing for longer than answer_ns on
 * the way (ETIMEDOUT). */
int source_wait_word(struct source *s, const bool *flag, uint64_t deadline, const char *what,
                     struct error *err);
/* Whether it did. source_watch(): a wait begins. */
bool source_stuck(struct source *s);
void source_watch(struct source *s);
int source_say_stuck(struct source *s, const char *what, struct error *err);

/* copy_wait()'s stop: the link is gone, or stuck. Reports progress on the way. */
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
