/* SPDX-License-Identifier: Apache-2.0 */
/* shortage.h - a process without a descriptor to spare, for tests of who listens */
#ifndef TESTS_LIB_SHORTAGE_H
#define TESTS_LIB_SHORTAGE_H

#include <pthread.h>
#include <sys/resource.h>

#include "runtime/base/log.h"

/* A log that counts what it hears of a listener that cannot accept. */
struct shortage {
    struct log log;
    pthread_mutex_t lock;
    pthread_cond_t heard;
    unsigned count;
    struct rlimit before;
};

void shortage_init(struct shortage *s);

/* From now on no descriptor can be had; shortage_end(): again. What is open stays open. */
void shortage_begin(struct shortage *s);
void shortage_end(struct shortage *s);

/* Waits until the listener has said that clients have to wait; fails after a minute. */
void shortage_wait(struct shortage *s);
/* How often it has said so. */
unsigned shortage_count(struct shortage *s);

#endif
