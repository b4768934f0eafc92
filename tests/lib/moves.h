/* SPDX-License-Identifier: Apache-2.0 */
/* moves.h - one migration between two fake machines over a wire that may do harm */
#ifndef TESTS_LIB_MOVES_H
#define TESTS_LIB_MOVES_H

#include "tests/lib/fakevm.h"
#include "tests/lib/relay.h"

struct move {
    struct relay_fault fault;
    struct migrate_send_options send;             /* record and reconnect are set by move_run() */
    struct migrate_receive_options receive;       /* reconnect is set by move_run() */
    bool no_reconnect;                            /* a lost link stays lost */
    void (*tune)(struct migrate_device *devices); /* changes what the source offers; may be NULL */
    struct context *source_ctx;                   /* may be NULL */
    void (*before_reconnect)(struct fakevm *target); /* the target lost the link; may be NULL */
    /* results */
    bool struck;
    int source_rc, target_rc;
    struct migrate_result source, target;
    struct error source_err, target_err;
};

/* Moves the machine from a to b, and waits until both sides have ended. */
void move_run(struct move *m, struct fakevm *a, struct fakevm *b);

/* What must hold after any move, harmed or not; stops the guest and checks all data. Returns the
 * one that has the machine. */
struct fakevm *move_check(const struct move *m, struct fakevm *a, struct fakevm *b);

#endif
