/* SPDX-License-Identifier: Apache-2.0 */
/* block.h - a device is a stack of layers
 *
 *         VMM, test, migration
 *                 |  block_read(top, ...)
 *     ============|=============  stack.c: range checks, tracing, emulation, accounting
 *           [ dirty ]                  a filter: a table of operations and its own `self`
 *     ============|=============  stack.c
 *           [  cow  ] - overlay, state
 *     ============|=============  stack.c
 *           [ file  ]                  a source: a layer with nothing below it
 *
 * Theory of operation. A layer is a `struct block_ops`, whose operations are optional, plus the
 * layer's own state. What a filter leaves out passes down to the next layer; what a source leaves
 * out is emulated. Between every two layers stands stack.c: a layer is only called with ranges
 * inside the device, lengths above 0 and operations it can do, so layers stay naive and short.
 * There is no file-scope state: two layers of one type in one stack, or in one process, do not know
 * of each other.
 *
 * A `struct block *` is a layer together with everything below it. Who holds the top holds the
 * device. The size of a device is fixed when it is opened.
 *
 * Lifecycle: layers are opened inner first (each new one is handed the one it stands on) and closed
 * outer first. block_close() takes the whole stack down.
 *
 * Threads: any thread may call any operation of a stack at any time, and many do. A layer that
 * cannot bear that says BLOCK_SERIAL, and everything that passes it goes one by one: the strictest
 * layer rules. Two writes that overlap and are in flight together leave either's data, in any
 * mixture of whole 4 KiB pages; a read beside a write sees, page by page, old or new.
 *
 * What is durable: a write that was answered is seen by every later read. It is on stable storage
 * when a flush that began after the answer has returned, or when it carried IO_FUA.
 *
 * A stack is described as data, an array of objects, the source first:
 *
 *     [ {"type": "file", "path": "rootfs.ext4", "readonly": true},
 *       {"type": "cow", "overlay": "disk.overlay", "state": "disk.state", "blockSize": 65536},
 *       {"type": "dirty"} ]
 *
 * and prints itself back with block_describe(), defaults included. `drafter` has the list of types
 * in the manual page blockstack(1).
 */
#ifndef RUNTIME_BLOCK_BLOCK_H
#define RUNTIME_BLOCK_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/context.h"
#include "runtime/base/digest.h"
#include "runtime/base/error.h"

struct block;
struct json_object;

#define BLOCK_SIZE_DEFAULT 65536u
#define BLOCK_SIZE_MIN 4096u
#define BLOCK_SIZE_MAX (4u << 20)
#define BLOCK_PAGE 4096u                     /* the unit of dirty tracking and of pull */
#define BLOCK_DEVICE_MAX (UINT64_C(1) << 46) /* bytes a device can have: 64 TiB */
#define BLOCK_LAYERS_MAX 32                  /* layers of one stack */

/* ---- requests ---- */

/* The write is on stable storage before it is answered. Emulated with a flush where a layer has no
 * such write. */
#define IO_FUA 1u

/* One request as a layer sees it. The layer must not keep it after it returned. A layer that passes
 * a part of it on makes a request of its own on its stack. */
struct io {
    uint64_t offset;  /* bytes */
    uint64_t len;     /* bytes, > 0; offset + len <= size of the device */
    void *buf;        /* pread: room for len bytes */
    const void *data; /* pwrite: len bytes */
    unsigned flags;   /* IO_FUA or 0 */
};

/* What a range holds. Flags are promises: a range without flags is data that may be anything. */
#define EXTENT_ZERO 1u   /* reads as zeros */
#define EXTENT_HOLE 2u   /* takes no storage; comes with EXTENT_ZERO */
#define EXTENT_BASE 4u   /* equals the innermost source: no overlay holds it */
#define EXTENT_ABSENT 8u /* not here yet (filter pull); a read would wait for it */

struct extent {
    uint64_t offset, len; /* bytes */
    unsigned flags;
};

/* A growing list in ascending order without gaps. Start with a zeroed one; extents_free(). */
struct extents {
    struct extent *items;
    size_t count, room;
};

/* Appends; merges with the last one when the flags agree. For layers. */
int extents_add(struct extents *list, uint64_t offset, uint64_t len, unsigned flags,
                struct error *err);
void extents_free(struct extents *list);

/* What tells one base image from another. */
struct block_identity {
    uint64_t size;
    int64_t mtime_ns; /* of the file; 0 = has none */
    uint64_t inode;   /* 0 = has none */
    bool has_digest;  /* when both sides have one, digest and size alone decide */
    uint8_t digest[SHA256_SIZE];
};

/* ---- a layer's side ---- */

/* How well a layer does something: not at all, through stack.c's emulation, or by itself. */
enum block_cap {
    BLOCK_NONE,
    BLOCK_EMULATE,
    BLOCK_NATIVE,
};

enum block_feature {
    BLOCK_CAN_WRITE,   /* NONE: the device is read-only; writes fail with EROFS */
    BLOCK_CAN_ZERO,    /* EMULATE: zeros are written */
    BLOCK_CAN_TRIM,    /* NONE: trim does nothing, which it may */
    BLOCK_CAN_FLUSH,   /* NONE: there is nothing that a flush could make safer */
    BLOCK_CAN_FUA,     /* EMULATE: write, then flush */
    BLOCK_CAN_EXTENTS, /* EMULATE: all is data */
    BLOCK_FEATURES,
};

enum block_threads {
    BLOCK_PARALLEL, /* any number of requests at once */
    BLOCK_SERIAL,   /* one at a time, this layer's and all that pass it */
};

/* All operations are optional except that a source has size and pread. `next` is the layer below,
 * to be used through block_read() and its sisters; NULL for a source. All return 0, or -1 with *err
 * set; err->code is the errno that the device's user gets. */
struct block_ops {
    const char *type; /* as in descriptions */
    enum block_threads threads;

    /* Ends the layer and frees self. flush was called before, unless the stack is broken; an error
     * is reported, but the layer is gone all the same. The layers below are still open. */
    int (*close)(struct block *next, void *self, struct error *err);

    /* Adds the layer's parameters, defaults included, to the object (which has "type" already). */
    int (*describe)(void *self, struct json_object *obj, struct error *err);

    /* Asked once, when the layer is put on. Absent: what the table says (NATIVE where the operation
     * is there; else what the next layer can). */
    enum block_cap (*can)(struct block *next, void *self, enum block_feature feature);

    /* Asked once. Absent: the next layer's. */
    int (*size)(struct block *next, void *self, uint64_t *ret_size, struct error *err);

    /* Absent: the next layer's. A layer that changes content must answer for itself. */
    int (*identity)(struct block *next, void *self, struct block_identity *ret, struct error *err);

    int (*pread)(struct block *next, void *self, struct io *io, struct error *err);
    int (*pwrite)(struct block *next, void *self, struct io *io, struct error *err);

    /* Makes the range read as zeros, freeing storage where it can. */
    int (*zero)(struct block *next, void *self, struct io *io, struct error *err);

    /* The range's content is of no interest any more: it may stay or become zeros, page by page. */
    int (*trim)(struct block *next, void *self, struct io *io, struct error *err);

    int (*flush)(struct block *next, void *self, struct error *err);

    /* Appends extents that cover exactly the range. */
    int (*extents)(struct block *next, void *self, uint64_t offset, uint64_t len,
                   struct extents *ret, struct error *err);

    /* Wakes whoever waits inside this layer, with an error, now and from now on (see
     * block_cancel()). */
    void (*cancel)(void *self);
};

/* Puts a layer on top of `next` (NULL for a source). ops must outlive the stack. name: of the
 * device, for errors and traces; NULL takes next's. ctx (may be NULL; kept): where traces go, one
 * record per request at level debug. On success the result owns next and self; on failure nothing
 * has changed hands (self is not freed). */
struct block *block_layer(struct block *next, const struct block_ops *ops, void *self,
                          const char *name, const struct context *ctx, struct error *err);

/* ---- a user's side ---- */

/* Builds a stack from its description (JSON text or parsed; see above). name: the device's. Paths
 * are taken as they stand. The caller owns the result: block_close(). Returns NULL on failure, when
 * everything opened on the way is closed again. */
struct block *block_open(const char *text, size_t len, const char *name, const struct context *ctx,
                         struct error *err);
struct block *block_open_json(struct json_object *layers, const char *name,
                              const struct context *ctx, struct error *err);

/* Adds described layers on top of an open stack, or makes one when below is NULL. On success the
 * result owns below; on failure below is as it was. */
struct block *block_stack(struct block *below, struct json_object *layers, const char *name,
                          const struct context *ctx, struct error *err);

/* The description, source first, that would build this stack again. A layer put on by
 * block_layer() without a described type appears with its type's name alone. The caller owns the
 * result: json_object_put(). */
struct json_object *block_describe(const struct block *top, struct error *err);

/* Flushes, then closes the whole stack, outer first. Every layer is closed even when one fails; the
 * first failure is reported. Waits for requests in flight (block_cancel() first when they may wait
 * for something that does not come). NULL is fine. */
int block_close(struct block *top, struct error *err);

/* Closes the outermost layer alone and returns what it stood on (NULL: it was a source), without a
 * flush. For taking back a block_layer() or block_stack() before use. */
struct block *block_take_off(struct block *top);

/* Makes every request that waits inside a layer fail with ECANCELED, now and from now on. */
void block_cancel(struct block *top);

const char *block_name(const struct block *b);
const char *block_type(const struct block *b);
uint64_t block_size(const struct block *b); /* bytes */
enum block_cap block_can(const struct block *b, enum block_feature feature);
int block_identity(struct block *b, struct block_identity *ret, struct error *err);

/* Any length, 0 too; a range that leaves the device is EINVAL. Whole or failed. */
int block_read(struct block *b, void *buf, uint64_t len, uint64_t offset, struct error *err);
int block_write(struct block *b, const void *data, uint64_t len, uint64_t offset, unsigned flags,
                struct error *err);
int block_zero(struct block *b, uint64_t len, uint64_t offset, unsigned flags, struct error *err);
int block_trim(struct block *b, uint64_t len, uint64_t offset, struct error *err);
int block_flush(struct block *b, struct error *err);

/* Appends to *ret, which the caller frees (extents_free()), also after a failure. */
int block_extents(struct block *b, uint64_t offset, uint64_t len, struct extents *ret,
                  struct error *err);

/* Requests inside this layer and below, right now. */
unsigned block_in_flight(const struct block *b);

/* Waits until every request that was in flight at the call has been answered. */
void block_drain(struct block *b);

/* The outermost layer of the type at or below b, its self in *ret_self (may be NULL). The layer's
 * own header says what can be done with it (dirty.h, pull.h, stats.h). NULL when there is none. */
struct block *block_find(struct block *b, const char *type, void **ret_self);

static inline void cleanup_block_p(struct block **b)
{
    if (*b)
        (void)block_close(*b, NULL);
    *b = NULL;
}
#define cleanup_block CLEANUP(cleanup_block_p)
#define cleanup_extents CLEANUP(extents_free)

#endif
