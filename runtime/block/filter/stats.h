/* SPDX-License-Identifier: Apache-2.0 */
/* stats.h - counts what passes one place of a stack: {"type": "stats"} */
#ifndef RUNTIME_BLOCK_FILTER_STATS_H
#define RUNTIME_BLOCK_FILTER_STATS_H

#include <stdint.h>

#include "runtime/block/block.h"

enum stats_op {
    STATS_READ,
    STATS_WRITE,
    STATS_ZERO,
    STATS_TRIM,
    STATS_FLUSH,
    STATS_OPS,
};

struct stats_counter {
    uint64_t requests, errors;
    uint64_t bytes;   /* of requests that succeeded */
    uint64_t time_ns; /* sum over all requests */
};

struct stats {
    struct stats_counter op[STATS_OPS];
};

/* Name of an operation: "read", ... */
const char *stats_op_name(enum stats_op op);

/* Counters of the outermost stats layer of the stack, each read by itself. Returns 0, or -1 when
 * there is none (without an error). Any thread. */
int stats_get(struct block *top, struct stats *ret);

#endif
