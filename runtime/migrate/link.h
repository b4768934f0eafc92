/* SPDX-License-Identifier: Apache-2.0 */
/* link.h - one connection of a migration: frames in order over a stream, private to runtime/migrate
 *
 * Any thread may send; one thread receives. A heartbeat thread sends a PING when the link has been
 * quiet, so that silence means a lost peer and not a busy one; PING and PONG are dealt with here.
 */
#ifndef RUNTIME_MIGRATE_LINK_H
#define RUNTIME_MIGRATE_LINK_H

#include "runtime/migrate/migrate.h"

#define LINK_IDLE_DEFAULT_NS UINT64_C(30000000000)
#define RETAKE_DEFAULT_NS UINT64_C(60000000000)

struct link;

/* Owns the stream, also on failure. bandwidth: bytes a second, 0 = no limit. */
struct link *link_new(struct stream *stream, uint64_t idle_ns, uint64_t bandwidth,
                      const struct context *ctx, struct error *err);
/* Ends the connection; whoever waits in link_receive() or link_send() fails. Any thread. */
void link_break(struct link *link);
/* No other thread may use it any more. NULL is fine. */
void link_free(struct link *link);

/* Exchanges greetings and starts the heartbeat. Returns 0. */
int link_greet(struct link *link, const struct greeting *ours, struct greeting *ret_theirs,
               struct error *err);

/* Sends one frame; f's sequence is set here. payload: f->length bytes. One with a payload waits
 * until the bandwidth has room for it, and others without are sent meanwhile. Returns 0. */
int link_send(struct link *link, struct frame *f, const void *payload, struct error *err);
/* A frame without a payload or a device. */
int link_send_word(struct link *link, uint8_t type, uint64_t offset, struct error *err);
/* Tells the other side that it is over and why; failures are ignored: it may be gone. Takes two
 * seconds at most, and so much is left of the link, unless link_expire() says otherwise. */
void link_send_abort(struct link *link, uint64_t offset, const char *reason);

/* Receives one frame, its payload in *ret_payload (the link's buffer, valid until the next call).
 * Code EPIPE: the peer closed between two frames. Returns 0. */
int link_receive(struct link *link, struct frame *ret, const uint8_t **ret_payload,
                 struct error *err);

/* In `ns` nanoseconds whoever receives or sends fails (ETIMEDOUT), whatever comes meanwhile and
 * whoever stands in a write that nobody reads; until then a cancellation does not end
 * link_receive(). Any thread. */
void link_expire(struct link *link, uint64_t ns);

void link_counters(const struct link *link, uint64_t *ret_received, uint64_t *ret_sent);
const char *link_peer(const struct link *link);

uint64_t link_now_ns(void);

DEFINE_CLEANUP(cleanup_link_p, struct link *, link_free)

#endif
