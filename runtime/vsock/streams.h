/* SPDX-License-Identifier: Apache-2.0 */
/* streams.h - the host's ends of a vsock device: the listening socket, those who have not yet said
 * what they want ("hellos"), and the sockets of streams; for engine.c only
 *
 * Called with the engine's lock held, but for the device's calls in streams_host_ops, which come
 * from within functions that are.
 */
#ifndef RUNTIME_VSOCK_STREAMS_H
#define RUNTIME_VSOCK_STREAMS_H

#include <time.h>
#include <unistd.h>

#include "runtime/vsock/engine.h"

/* What the device calls; `stream` there is a struct stream. */
extern const struct device_host streams_host_ops;

/* Makes the listening socket, in place of a socket that stood there. Returns 0. */
int streams_listen(struct vsock *v, struct error *err);
void streams_unlisten(struct vsock *v);

/* Watches the listening socket (again), if there is room for hellos. */
void streams_listen_more(struct vsock *v);

/* Somebody connects. */
void streams_accept(struct vsock *v);

/* epoll told of a stream; one that was closed earlier in the batch is known. */
void stream_event(struct vsock *v, struct stream *s, uint32_t events, uint64_t now);

/* Ends hellos that take too long. Returns when to look again. */
uint64_t streams_tick(struct vsock *v, uint64_t now);
void streams_end_hellos(struct vsock *v);

/* After a batch of events: frees what it may still have named. */
void streams_bury(struct vsock *v);

static inline uint64_t engine_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void engine_close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

#endif
