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
    unsigned strangers; /* so many other sources answer first where the source was: each greets with
                           a session of its own, sends pages of its own, and says that it is over */
    uint64_t retake_ns; /* of both sides; 0 = 20 s */
    /* results */
    bool struck;
    unsigned met; /* strangers */
    int source_rc, target_rc;
    struct migrate_result source, target;
    struct error source_err, target_err;
};

/* Moves the machine from a to b, and waits until both sides have ended. */
void move_run(struct move *m, struct fakevm *a, struct fakevm *b);

/* What must hold after any move, harmed or not; stops the guest and checks all data. Returns the
 * one that has the machine. */
struct fakevm *move_check(const struct move *m, struct fakevm *a, struct fakevm *b);

/* A machine "a" that runs and has written something, and a host "b" without one, in memory. */
struct pair {
    struct world world;
    struct fakevm a, b;
};
void pair_set_up(struct pair *p);
void pair_tear_down(struct pair *p);

#endif
