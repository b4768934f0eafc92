/* SPDX-License-Identifier: Apache-2.0 */
/* dial.h - how the guest's programs reach their host
 *
 * A program of the guest calls a vsock port of CID 2, the host (vsock(7)). For tests the same code
 * calls a UNIX socket instead. Connecting never blocks.
 */
#ifndef BLUEPRINT_GUEST_DIAL_H
#define BLUEPRINT_GUEST_DIAL_H

#include <stdint.h>

#include "runtime/base/error.h"

struct dial_target {
    const char *unix_path; /* NULL: vsock */
    uint32_t port;         /* vsock port of the host */
};

/* Reads the text of --connect: "" or NULL for vsock with `port`, or "unix:PATH". Returns 0. */
int dial_parse(const char *connect, uint64_t port, struct dial_target *ret_target,
               struct error *err);

/* A socket to connect with, non-blocking, close on exec, the caller's. -1 on failure. One made
 * before a snapshot can be connected after it: only what is connected is reset. */
int dial_socket(const struct dial_target *target, struct error *err);

/* Starts to connect fd. Returns 0 when it is connected, 1 when it will be: poll for POLLOUT, then
 * dial_finish(). -1 on failure; the caller closes fd. */
int dial_connect(const struct dial_target *target, int fd, struct error *err);

/* Both. Returns as dial_connect(), *ret_fd is the caller's; -1 on failure, *ret_fd untouched. */
int dial_start(const struct dial_target *target, int *ret_fd, struct error *err);

/* The result of a connect that was under way. Returns 0, or -1; the caller closes fd. */
int dial_finish(const struct dial_target *target, int fd, struct error *err);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t dial_now(void);

/* Pauses between attempts: 1 ms doubling to 25 ms in the first 3 s after the link was lost, because
 * a machine that was suspended and comes back on another host shall be there at once, and doubling
 * on to 1 s after that. pause_ns: the pause before, 0 = none yet; lost_ns: how long ago the link
 * was lost. */
uint64_t dial_pause(uint64_t pause_ns, uint64_t lost_ns);

#endif
