// SPDX-License-Identifier: Apache-2.0
/* run.c - the life of a peer */
#include "runtime/peer/run.h"

#include "runtime/peer/metrics.h"

static int come(struct peer *p, struct error *err)
{
    if (p->o->raddr && *p->o->raddr)
        return peer_take(p, err);
    return peer_open(p, err) < 0 ? -1 : peer_start(p, err);
}

static int live(struct peer *p, struct error *err)
{
    struct error later = ERROR_INIT;
    int rc = come(p, err);

    if (rc == 0)
        rc = peer_serve(p, err);
    log_info(context_log(p->ctx), "Shutting down");
    if (peer_suspend(p, rc < 0 ? &later : err) < 0) {
        if (rc < 0)
            log_warn(context_log(p->ctx), "Could not keep the machine, ignoring",
                     log_str("error", later.text));
        rc = -1;
    }
    return rc;
}

int peer_run(struct plan *plan, const struct peer_options *options, const char *metrics,
             const struct context *ctx, struct error *err)
{
    struct metrics *m = NULL;
    struct peer *p = peer_new(plan, options, ctx, err);

    if (!p)
        return -1;
    int rc = 0;
    if (options->status_fd >= 0 || options->trace) {
        p->report = report_open(options->status_fd, options->trace, ctx, err);
        rc = p->report ? 0 : -1;
    }
    if (rc == 0 && metrics && *metrics) {
        m = metrics_serve(metrics, p, ctx, err);
        rc = m ? 0 : -1;
    }
    if (rc == 0)
        rc = live(p, err);
    metrics_stop(m);
    struct report *report = p->report;
    if (peer_free(p, rc < 0 ? NULL : err) < 0)
        rc = -1;
    if (report_close(report, rc < 0 ? NULL : err) < 0)
        rc = -1;
    if (rc == 0)
        log_info(context_log(ctx), "Exiting gracefully");
    return rc;
}
