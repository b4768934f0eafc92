/* SPDX-License-Identifier: Apache-2.0 */
/* context.h - what every long act is handed: where to log, whom to tell of progress, when to stop
 *
 * There is no global state below a program's main; these three travel in one struct.
 */
#ifndef RUNTIME_BASE_CONTEXT_H
#define RUNTIME_BASE_CONTEXT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/error.h"
#include "runtime/base/log.h"

/* A request to stop, made by one thread (usually the one that takes signals) and seen by others.
 * Level-triggered: once requested it stays so. */
struct cancel {
    atomic_bool requested;
    int fd; /* eventfd that becomes readable with the request, for poll(2); -1 = none */
};

/* How far an act has come. phase: a short stable word; done and total in `unit` ("bytes", "files",
 * "blocks"); total 0 = not known. Called often: the receiver limits its own rate. Thread safe. */
struct progress {
    void (*report)(void *opaque, const char *phase, uint64_t done, uint64_t total,
                   const char *unit);
    void *opaque;
};

/* Any pointer may be NULL. The struct and what it points to outlive every act it is handed to. */
struct context {
    const struct log *log;
    const struct progress *progress;
    struct cancel *cancel;
};

/* Makes the eventfd. Returns 0. cancel_destroy() takes one that failed to initialise too. */
int cancel_init(struct cancel *cancel, struct error *err);
void cancel_destroy(struct cancel *cancel);

/* Safe in a signal handler. */
void cancel_request(struct cancel *cancel);

/* Returns 0 while the act may go on, else -1 with ECANCELED "interrupted". ctx may be NULL. */
int context_check(const struct context *ctx, struct error *err);

/* ctx may be NULL. */
void context_progress(const struct context *ctx, const char *phase, uint64_t done, uint64_t total,
                      const char *unit);

static inline const struct log *context_log(const struct context *ctx)
{
    return ctx ? ctx->log : NULL;
}

#endif
