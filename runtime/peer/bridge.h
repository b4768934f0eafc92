/* SPDX-License-Identifier: Apache-2.0 */
/* bridge.h - a cancel request of its own for one act: made when the one above is, or on a word
 *
 *     program's cancel (SIGTERM) ---.
 *                                   +--> bridge's cancel --> the migration
 *     a descriptor (SIGUSR1) -------'
 */
#ifndef RUNTIME_PEER_BRIDGE_H
#define RUNTIME_PEER_BRIDGE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "runtime/base/context.h"

struct bridge {
    struct context ctx; /* for the act: as above, but for its cancel */
    struct cancel cancel;
    atomic_bool deaf_word; /* set by anybody: the word does not count any more */
    pthread_mutex_t lock;  /* guards deaf, and the request that is made while it is not set */
    bool deaf;
    const char *why; /* it is deaf */
    int above, word, leave;
    pthread_t thread;
};

/* above: its log and progress are passed on. word: a descriptor whose becoming readable cancels as
 * well, and is read then; -1 = none. Returns 0; the caller ends it: bridge_stop(). */
int bridge_start(struct bridge *b, const struct context *above, int word, struct error *err);
void bridge_stop(struct bridge *b);

/* From here on nothing cancels the act: what was heard before has, for whoever looks after this
 * call, and what comes later is only said in the log, with `why`, a static string. Any thread; the
 * second call changes nothing. */
void bridge_deafen(struct bridge *b, const char *why);

#endif
