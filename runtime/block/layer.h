/* SPDX-License-Identifier: Apache-2.0 */
/* layer.h - what the parts of runtime/block share; not for other modules */
#ifndef RUNTIME_BLOCK_LAYER_H
#define RUNTIME_BLOCK_LAYER_H

#include <pthread.h>
#include <stdatomic.h>

#include "runtime/block/block.h"

struct block {
    const struct block_ops *ops;
    void *self;
    struct block *next; /* NULL for a source */
    const struct context *ctx;
    uint64_t size;
    enum block_cap caps[BLOCK_FEATURES];
    pthread_mutex_t serial; /* held around every call into a BLOCK_SERIAL layer; outermost first */

    /* Requests are counted in the slot that `phase` names, so that block_drain() can wait for those
     * of one phase while new ones go on in the other. */
    atomic_uint in_flight[2];
    atomic_uint phase;
    atomic_bool draining;       /* someone waits for `idle` */
    pthread_mutex_t drain_lock; /* one block_drain() at a time; guards the condition */
    pthread_cond_t idle;
    char name[64];
};

/* Makes a layer from an object of a description. params has been checked for unknown keys. */
struct layer_type {
    const char *type;
    const char *const *keys; /* NULL-terminated; "type" is implied */
    bool source;             /* stands on nothing */
    struct block *(*open)(struct block *next, struct json_object *params, const char *name,
                          const struct context *ctx, struct error *err);
};

extern const struct layer_type file_layer, sparse_layer, cow_layer, dirty_layer, log_layer,
    delay_layer, fault_layer, stats_layer;

/* A duration in a description: integer nanoseconds, or a string with a unit ("500ms"). Returns
 * JSON_OK, JSON_ABSENT or -1. */
int param_duration(struct json_object *obj, const char *key, const char *what, uint64_t *ret_ns,
                   struct error *err);

/* Takes flock(2) on fd, without waiting. A refusal names the process that holds it where the system
 * tells (proc(5), /proc/locks). what: the file, for the error. */
int lock_file(int fd, bool exclusive, const char *what, struct error *err);

/* fallocate(2) with PUNCH_HOLE, or zeros written where the file system cannot. */
int punch_file(int fd, uint64_t offset, uint64_t len, const char *what, struct error *err);

/* Appends what SEEK_DATA and SEEK_HOLE tell of the range of a file; a range past the file's end is
 * a hole. */
int file_extents(int fd, uint64_t offset, uint64_t len, const char *what, struct extents *ret,
                 struct error *err);

#endif
