/* SPDX-License-Identifier: Apache-2.0 */
/* run.h - a peer from its start to its end, as drafter-peer runs it */
#ifndef RUNTIME_PEER_RUN_H
#define RUNTIME_PEER_RUN_H

#include "runtime/peer/peer.h"

/* Opens, starts or takes in, serves, suspends and closes. plan: taken over. metrics: address to
 * serve them on, or NULL. Returns 0 when the machine was suspended, handed on, or powered off. */
int peer_run(struct plan *plan, const struct peer_options *options, const char *metrics,
             const struct context *ctx, struct error *err);

#endif
