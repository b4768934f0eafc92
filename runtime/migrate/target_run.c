// SPDX-License-Identifier: Apache-2.0
/* target_run.c - the target's second thread: it loads the machine and runs it; see target.c */
#include <errno.h>

#include "runtime/migrate/target.h"

#define COPY_GRACE_NS UINT64_C(10000000000) /* the source's machine runs again, its agent knows */

/* Returns 0, 1 when the host wants no more than what it has, or -1. */
static int load(struct target *t, struct error *err)
{
    int rc = t->host->load(t->host->opaque, t->state, t->state_len, err);

    if (rc < 0)
        return error_wrap(err, "load the machine's state");
    if (rc == 1) {
        lock_scope(&t->lock);
        if (t->refused)
            return error_set(err, ECANCELED, "given up");
        t->copied = true;
        return 1;
    }
    if (t->options->postcopy_off)
        for (size_t i = 0; i < t->n; i++)
            if (pull_wait(t->devices[i].pull, err) < 0)
                return -1;
    lock_scope(&t->lock);
    if (t->refused)
        return error_set(err, ECANCELED, "given up");
    t->ready = true;
    return 0;
}

/* The source runs its machine on at once, and need not be asked to. */
static void say_copied(struct target *t)
{
    lock_scope(&t->link_lock);
    if (!t->link)
        return;
    link_send_abort(t->link, ABORT_COPIED, "a copy was taken");
    link_expire(t->link, COPY_GRACE_NS);
}

static int run_it(struct target *t, struct error *err)
{
    {
        lock_scope(&t->lock);
        while (!t->committed && !t->refused)
            (void)pthread_cond_wait(&t->change, &t->lock);
        if (t->refused)
            return error_set(err, ECANCELED, "given up");
    }
    if (t->host->run(t->host->opaque, err) < 0)
        return error_wrap(err, "run the machine");
    t->result.suspended_ns = link_now_ns() - t->suspended_ns;
    {
        lock_scope(&t->lock);
        t->ran = true;
    }
    log_info(context_log(t->ctx), "Machine runs here",
             log_uint("standstill_ms", t->result.suspended_ns / 1000000),
             log_uint("absent_bytes", target_absent_pages(t) * TARGET_PAGE),
             log_uint("total_bytes", t->status.bytes_total));
    (void)target_say(t, FRAME_RUNNING, 0, NULL); /* a broken link is the hearing thread's to find */
    (void)target_say_done(t, NULL);
    if (t->options->running)
        t->options->running(t->options->opaque);
    return 0;
}

void *target_runner(void *opaque)
{
    struct target *t = opaque;
    struct error err = ERROR_INIT;

    int rc = load(t, &err);
    if (rc == 1) {
        say_copied(t);
    } else if (rc == 0) {
        (void)target_say(t, FRAME_READY, 0, NULL);
        rc = run_it(t, &err);
    }
    if (rc < 0) {
        bool committed;
        {
            lock_scope(&t->lock);
            if (t->refused) /* the hearing thread knows why, and says so */
                return NULL;
            t->failed = true;
            t->why = err;
            committed = t->committed;
            (void)pthread_cond_broadcast(&t->change);
        }
        /* Not committed: never ran and never will, so the source may go on by itself. */
        lock_scope(&t->link_lock);
        if (t->link)
            link_send_abort(t->link, committed ? 0 : ABORT_NEVER_RAN, err.text);
    }
    return NULL;
}
