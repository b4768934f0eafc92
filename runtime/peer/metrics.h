/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.h - GET /metrics: what a peer does, as Prometheus text (exposition format 0.0.4) */
#ifndef RUNTIME_PEER_METRICS_H
#define RUNTIME_PEER_METRICS_H

#include "runtime/peer/peer.h"

struct metrics;

/* Listens on HOST:PORT, [V6]:PORT, :PORT or unix:PATH and answers one client after the other, in a
 * thread. A client has METRICS_CLIENT_NS for the begin of its request and as long again for the
 * rest of it and our answer. NULL on failure. */
#define METRICS_CLIENT_NS (2 * UINT64_C(1000000000))
struct metrics *metrics_serve(const char *address, struct peer *peer, const struct context *ctx,
                              struct error *err);

void metrics_stop(struct metrics *m); /* NULL is fine */

#endif
