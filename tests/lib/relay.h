/* SPDX-License-Identifier: Apache-2.0 */
/* relay.h - a pair of streams with a bad wire between them, for tests of migration
 *
 * The relay reads what each side sends, knows where its frames begin, and does one harm at one
 * point: at the N-th frame of a direction, or at the N-th of a type. What comes before passes
 * unharmed.
 */
#ifndef TESTS_LIB_RELAY_H
#define TESTS_LIB_RELAY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum harm {
    HARM_NONE,
    HARM_CUT,     /* both directions end */
    HARM_CORRUPT, /* one bit is flipped, the rest passes */
    HARM_STALL,   /* nothing passes any more, and nobody is told */
    HARM_REPEAT,  /* the frame passes twice */
    HARM_DROP,    /* the frame does not pass, those behind it do */
    HARMS,
};

enum harm_where {
    HARM_BEFORE,     /* at the frame's first byte */
    HARM_IN_HEADER,  /* after 20 bytes of it */
    HARM_IN_PAYLOAD, /* in the middle of its payload, or at its end when it has none */
    HARM_WHERES,
};

struct relay_fault {
    enum harm harm;
    enum harm_where where; /* of cut, corrupt and stall */
    int direction;         /* 0: frames of the source, 1: of the target */
    uint8_t type;          /* 0: frames of any type count */
    unsigned number;       /* which of them, from 0 */
};

struct relay {
    struct relay_fault fault;
    int near[2]; /* what the sides use: near[0] the source's, near[1] the target's */
    int far[2];  /* the relay's ends */
    pthread_t threads[2];
    int wake[2]; /* a pipe: its end ends the relay */
    atomic_bool struck;
};

/* Starts the relay; near[] are the sides' to close. */
void relay_start(struct relay *r, const struct relay_fault *fault);
/* Ends it. Returns whether the harm was done. */
bool relay_stop(struct relay *r);

#endif
