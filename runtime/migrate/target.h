/* SPDX-License-Identifier: Apache-2.0 */
/* target.h - what the parts of the target share, private to runtime/migrate
 *
 * target.c hears and acts; target_run.c is the thread that loads the machine and runs it;
 * target_link.c looks for the source again when the link was lost.
 */
#ifndef RUNTIME_MIGRATE_TARGET_H
#define RUNTIME_MIGRATE_TARGET_H

#include <pthread.h>
#include <stdatomic.h>
#include <zstd.h>

#include "runtime/migrate/link.h"

#define TARGET_PAGE ((uint64_t)BLOCK_PAGE)

struct target_device {
    struct target *t; /* for the pull filter's request function */
    struct wire_device as;
    struct pull *pull;
    uint8_t shares_base;
};

/* Lives as long as a pull filter may call request(): one reference is the engine's, one each
 * device's. */
struct target {
    atomic_uint references;
    const struct migrate_host *host;
    const struct migrate_receive_options *options;
    const struct context *ctx;
    struct migrate_result result;
    struct migrate_status status;
    uint64_t start_ns, suspended_ns, last_status_ns;
    struct greeting greeting;
    struct target_device devices[WIRE_DEVICES_MAX];
    size_t n;
    uint8_t *plain; /* room for one uncompressed block */
    ZSTD_DCtx *zstd;
    uint8_t *state;
    size_t state_len;
    pthread_t runner;
    bool has_runner;

    pthread_mutex_t link_lock; /* guards link as a pointer for those who send; the hearing thread
                                  replaces it and reads it without */
    struct link *link;

    pthread_mutex_t lock;  /* guards what follows; no other lock is taken under it */
    pthread_cond_t change; /* any of it changed */
    bool ready;            /* READY was said */
    bool committed;        /* COMMIT was heard */
    bool ran;              /* run() succeeded, RUNNING was said */
    bool done;             /* and DONE */
    bool refused;          /* the machine must not run here any more */
    bool copied;           /* a copy was all that was wanted, and is here: the source was told */
    bool failed;           /* the runner could not load or run it; `why` says how */
    struct error why;
};

/* Reads one of the flags under the lock. */
bool target_flag(struct target *t, const bool *which);

/* Sends a frame without a payload on the link of now; fails without one. Any thread. */
int target_say(struct target *t, uint8_t type, uint64_t offset, struct error *err);

uint64_t target_absent_pages(const struct target *t); /* of all devices */

/* The runner; opaque is the target. */
void *target_runner(void *opaque);

/* Says DONE, once, when the machine runs and nothing is absent. Whoever may be the first to find
 * that calls it: the last page may come before the machine runs, or after, or never, when the
 * machine itself wrote it while there was no link. */
int target_say_done(struct target *t, struct error *err);

/* Looks for the source for `limit` nanoseconds: the one whose session this is, whoever else answers
 * there. Returns 0 with a new link on which it was said what is lacking and where we stand, else
 * -1; *why (may be NULL), how the link was lost, is told of others then. */
int target_reconnect(struct target *t, uint64_t limit, struct error *why);

/* Puts another link (or NULL) in the place of the one in use, which is freed. */
void target_set_link(struct target *t, struct link *link);

#endif
