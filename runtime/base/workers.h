/* SPDX-License-Identifier: Apache-2.0 */
/* workers.h - a few threads that do independent pieces of work
 *
 * Theory of operation: a fixed number of threads takes jobs from a bounded queue; submitting to a
 * full queue waits, so memory stays bounded by the queue. The first job that fails stops the pool:
 * queued jobs are dropped, later submits return the failure, and workers_finish() reports it.
 */
#ifndef RUNTIME_BASE_WORKERS_H
#define RUNTIME_BASE_WORKERS_H

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"

struct workers;

/* count: threads, 0 = one per processor this process may use. depth: queued jobs at most (>= 1).
 * The caller owns the pool: workers_finish(), then workers_free(). NULL on failure. */
struct workers *workers_new(unsigned count, unsigned depth, struct error *err);

/* Queues work(job). Ownership of job passes to the pool in every case, failure included: it is
 * handed to drop(job) when it will not run (drop may be NULL). work returns 0, or -1 with *err set.
 * Any thread may submit, a job too if the queue has room for it. Returns 0. */
int workers_submit(struct workers *w, int (*work)(void *job, struct error *err),
                   void (*drop)(void *job), void *job, struct error *err);

/* Waits until all queued jobs are done. Returns 0, or the first failure. The pool can be used again
 * after a success. */
int workers_finish(struct workers *w, struct error *err);

/* Drops what is queued, waits for what runs, ends the threads. NULL is fine. */
void workers_free(struct workers *w);

DEFINE_CLEANUP(cleanup_workers_p, struct workers *, workers_free)
#define cleanup_workers CLEANUP(cleanup_workers_p)

#endif
