/* SPDX-License-Identifier: Apache-2.0 */
/* guestlink.h - the host's side of the two programs in the guest: liveness and agent
 *
 * Theory of operation: a guest calls its host by vsock port. The driver (or runtime/vsock) turns a
 * call to PORT into a connection to the UNIX socket VSOCK_PATH_PORT ("vsock.sock_26"; Firecracker's
 * docs/vsock.md). Whoever makes a machine run listens there first, so that no call of the guest is
 * refused.
 *
 * Liveness is one connection without a byte. The agent stays connected and is asked things
 * (runtime/wire/rpc.h). Every snapshot resets the guest's streams, after which the agent calls
 * again: the newest connection is the agent, an older one is closed. The guest is not trusted: what
 * it sends is bounded, and one that sends nonsense loses its connection and a second's patience.
 *
 * A port of 0 stands for a guest without that program: listening gives a NULL handle, and every
 * function succeeds at once with it.
 *
 * All functions may be called from any thread, several at once on one handle; only the close
 * functions must be the last call.
 */
#ifndef RUNTIME_GUESTLINK_GUESTLINK_H
#define RUNTIME_GUESTLINK_GUESTLINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/context.h"
#include "runtime/base/error.h"

/* Where to listen. The socket gets mode 0600. One that a dead process left at the same path is
 * replaced; anything else there is an error. The path may be longer than a socket address (107
 * bytes). */
struct guestlink_address {
    const char *vsock_path; /* "VMPATH/vsock.sock" */
    uint32_t port;          /* 0 = the guest does not have the program */
    uid_t uid;              /* owner of the socket: who runs the VMM. (uid_t)-1 = leave it */
    gid_t gid;
};

struct guestlink_liveness;

/* Listens for the guest's sign of life. Returns 0; the caller owns *ret_liveness (NULL for port 0).
 */
int guestlink_liveness_listen(const struct guestlink_address *address,
                              struct guestlink_liveness **ret_liveness, struct error *err);

/* Waits until the guest has connected. Returns 0, also when it had before; -1 with ETIMEDOUT after
 * timeout_ns, or ECANCELED. May be called again after either. */
int guestlink_liveness_wait(struct guestlink_liveness *liveness, uint64_t timeout_ns,
                            const struct context *ctx, struct error *err);

/* Removes the socket, closes the connection. NULL is fine. */
void guestlink_liveness_close(struct guestlink_liveness *liveness);

struct guestlink_agent;

/* Listens for the guest's agent, and serves it in a thread until closed. log (may be NULL) outlives
 * the handle. Returns 0; the caller owns *ret_agent (NULL for port 0). */
int guestlink_agent_listen(const struct guestlink_address *address, const struct log *log,
                           struct guestlink_agent **ret_agent, struct error *err);

/* Waits until an agent is connected. Returns 0; -1 with ETIMEDOUT or ECANCELED. */
int guestlink_agent_wait(struct guestlink_agent *agent, uint64_t timeout_ns,
                         const struct context *ctx, struct error *err);

/* Has the agent run its before-suspend command, waiting for it to connect first. Returns 0 when it
 * succeeded; else -1 with
 *   EREMOTEIO  the agent answered with an error, which is in the text,
 *   ECONNRESET its connection was lost before it answered: the command may have run,
 *   ETIMEDOUT  no answer after timeout_ns; a late one is dropped,
 *   ECANCELED.
 * After any of them the handle can be used on. */
int guestlink_agent_before_suspend(struct guestlink_agent *agent, uint64_t timeout_ns,
                                   const struct context *ctx, struct error *err);

/* Has the agent run its after-resume command; tells it the time and fresh randomness. Like
 * guestlink_agent_before_suspend(), but a connection that is lost is no error: right after a resume
 * that is the one from before the snapshot. The call is made again on the next one, until
 * timeout_ns have passed. */
int guestlink_agent_after_resume(struct guestlink_agent *agent, uint64_t timeout_ns,
                                 const struct context *ctx, struct error *err);

/* True while an agent is connected. */
bool guestlink_agent_connected(struct guestlink_agent *agent);

/* Removes the socket, ends the thread and the connection. NULL is fine. */
void guestlink_agent_close(struct guestlink_agent *agent);

DEFINE_CLEANUP(cleanup_liveness_p, struct guestlink_liveness *, guestlink_liveness_close)
#define cleanup_liveness CLEANUP(cleanup_liveness_p)
DEFINE_CLEANUP(cleanup_agent_p, struct guestlink_agent *, guestlink_agent_close)
#define cleanup_agent CLEANUP(cleanup_agent_p)

#endif
