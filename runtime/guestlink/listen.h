/* SPDX-License-Identifier: Apache-2.0 */
/* listen.h - the listening sockets of the guest link; private to runtime/guestlink */
#ifndef RUNTIME_GUESTLINK_LISTEN_H
#define RUNTIME_GUESTLINK_LISTEN_H

#include "runtime/guestlink/guestlink.h"

struct guest_listener {
    int fd;     /* non-blocking */
    int dir;    /* the socket's folder */
    char *path; /* for texts and, its last part, for removing it */
    dev_t dev;  /* which file is ours */
    ino_t ino;
};

#define GUEST_LISTENER_INIT                                                                        \
    {                                                                                              \
        .fd = -1, .dir = -1                                                                        \
    }

/* Binds VSOCK_PATH_PORT and listens. Returns 0; on failure nothing stays. */
int guest_listener_open(const struct guestlink_address *address,
                        struct guest_listener *ret_listener, struct error *err);

/* Takes a waiting connection (non-blocking). Returns it, or -1 without an error when there is none.
 */
int guest_listener_accept(const struct guest_listener *listener);

/* Removes the socket if it is still ours, and frees everything. Takes one that was never opened. */
void guest_listener_close(struct guest_listener *listener);

/* CLOCK_MONOTONIC now + ns, without overflow. */
uint64_t guest_deadline(uint64_t ns);

/* poll(2) on fds until deadline, or ctx is cancelled. fds[0] is filled in for that; the caller's
 * begin at 1. Returns 1 when one of the caller's is ready, 0 at the deadline, -1 with ECANCELED. */
struct pollfd;
int guest_poll(struct pollfd *fds, unsigned n, uint64_t deadline, const struct context *ctx,
               struct error *err);

#endif
