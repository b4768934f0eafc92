// SPDX-License-Identifier: Apache-2.0
/* context.c - logging, progress and cancellation for long acts */
#include "runtime/base/context.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int cancel_init(struct cancel *cancel, struct error *err)
{
    atomic_init(&cancel->requested, false);
    cancel->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (cancel->fd < 0)
        return error_sys(err, "eventfd");
    return 0;
}

void cancel_destroy(struct cancel *cancel)
{
    if (cancel->fd >= 0)
        (void)close(cancel->fd);
    cancel->fd = -1;
}

void cancel_request(struct cancel *cancel)
{
    const uint64_t one = 1;
    int saved = errno;

    atomic_store(&cancel->requested, true);
    if (cancel->fd >= 0) {
        /* Full (EAGAIN) means it is readable already. */
        ssize_t n = write(cancel->fd, &one, sizeof(one));
        (void)n;
    }
    errno = saved;
}

int context_check(const struct context *ctx, struct error *err)
{
    if (ctx && ctx->cancel && atomic_load_explicit(&ctx->cancel->requested, memory_order_relaxed))
        return error_set(err, ECANCELED, "interrupted");
    return 0;
}

void context_progress(const struct context *ctx, const char *phase, uint64_t done, uint64_t total,
                      const char *unit)
{
    if (ctx && ctx->progress)
        ctx->progress->report(ctx->progress->opaque, phase, done, total, unit);
}
