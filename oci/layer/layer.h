/* SPDX-License-Identifier: Apache-2.0 */
/* layer.h - from an image's compressed layers to one tree, and from a tree to a folder
 *
 * Theory of operation: a layer passes through a pipeline of two threads while a tree grows:
 *
 *     blob fd -> SHA-256, inflate  | ring of chunks |  SHA-256 (diff_id), spool, tar entries ->
 * tree thread A          |                |  the caller's thread
 *
 * The uncompressed tar goes as it is into one unlinked file, the spool; a file in the tree is a
 * list of extents of the spool. So file data is written once, whole and in large pieces, memory
 * does not grow with file sizes, and what a later layer removes costs nothing more. Nothing may be
 * done with the tree before all layers were taken in without an error: only then are size, digest
 * and diff_id of each known to be right.
 *
 * Sources: OCI image-spec v1.1 layer.md; POSIX.1-2017 pax; GNU tar manual, "Sparse Formats".
 */
#ifndef OCI_LAYER_LAYER_H
#define OCI_LAYER_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "oci/image/image.h"
#include "oci/tree/tree.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/context.h"
#include "runtime/base/error.h"

/* What one image may cost. 0 stands for the default of each. */
struct layer_limits {
    uint64_t max_bytes;     /* of all uncompressed layers together */
    uint64_t max_ratio;     /* uncompressed : compressed bytes of a layer, once it is over 64 MiB */
    uint64_t max_entries;   /* tar entries of all layers together */
    uint64_t max_file_size; /* bytes of one file, holes included */
    uint64_t max_metadata;  /* memory for names, attributes and extents, in bytes */
};

#define LAYER_MAX_BYTES (UINT64_C(64) << 30)
#define LAYER_MAX_RATIO UINT64_C(500)
#define LAYER_MAX_ENTRIES UINT64_C(4000000)
#define LAYER_MAX_FILE_SIZE (UINT64_C(1) << 40)
#define LAYER_MAX_METADATA (UINT64_C(2) << 30)
#define LAYER_RATIO_FLOOR                                                                          \
    (UINT64_C(64) << 20)     /* bytes of a layer to which max_ratio never applies */
#define LAYER_DEPTH_MAX 1024 /* folders inside one another */

/* -- a verified stream ------------------------------------------------------------------------- */

struct layer_stream;

/* Starts to read a blob: fd (kept open by the caller until layer_stream_close(), read with pread
 * from offset 0), the layer's descriptor, compression and diff_id; max_bytes and max_ratio limit
 * the uncompressed side (0 = none). ctx may be NULL and must outlive the stream. NULL on failure.
 */
struct layer_stream *layer_stream_open(int fd, const struct image_layer *layer, uint64_t max_bytes,
                                       uint64_t max_ratio, const struct context *ctx,
                                       struct error *err);

/* The next piece of the uncompressed layer, valid until the next call. *ret_len 0 is the end, and
 * is only told after the blob's size, its digest and the diff_id were found right. Errors: EBADMSG
 * for anything wrong with the bytes, E2BIG for a limit, ECANCELED. Returns 0. */
int layer_stream_next(struct layer_stream *s, const uint8_t **ret_data, size_t *ret_len,
                      struct error *err);

void layer_stream_close(struct layer_stream *s); /* NULL is fine; stops the thread */

DEFINE_CLEANUP(cleanup_layer_stream_p, struct layer_stream *, layer_stream_close)
#define cleanup_layer_stream CLEANUP(cleanup_layer_stream_p)

/* -- layers into a tree ------------------------------------------------------------------------ */

struct layer_store;

/* Makes a store: the spool, an unlinked file in the folder open at dirfd (which shall be on the
 * file system that the result goes to), and the running totals for limits (NULL = defaults;
 * copied). The store becomes the tree's data function and must outlive all reading from the tree.
 * ctx may be NULL and must outlive the store. NULL on failure. */
struct layer_store *layer_store_new(struct tree *tree, int dirfd, const struct layer_limits *limits,
                                    const struct context *ctx, struct error *err);
void layer_store_free(struct layer_store *store); /* NULL is fine */

/* Applies one uncompressed tar to the tree as the next layer: read() gives the next piece of it,
 * len 0 at its end. Errors name the entry and the cause; the tree is then of no use. Returns 0.
 *
 * What counts: names are bytes, cleaned of ".", ".." and slashes as if the root were all there is;
 * symlinks on the way are followed inside the tree; the last component never is. What no entry
 * describes (a parent that is only implied) is a folder 0755 of 0:0 with time 0. An entry over a
 * folder that is a folder replaces its attributes; any other replaces what stood there. Hard link
 * entries share the inode of their target and change nothing about it. Times outside of what ext4
 * can store are brought to its nearest. Extended attributes outside user., trusted. and security.
 * and but for POSIX ACLs (which follow the mode where the two differ), user. ones on what is no
 * file or folder, security.selinux and user.rootlesscontainers are left out. */
int layer_apply(struct layer_store *store,
                int (*read)(void *opaque, const uint8_t **ret_data, size_t *ret_len,
                            struct error *err),
                void *opaque, struct error *err);

/* Applies all layers of an image, each verified. Errors name layer and entry. Returns 0. */
int layer_apply_image(struct layer_store *store, const struct image *image, struct error *err);

/* Makes `data` (len bytes) the content of a file inode of the store's tree, or of another one that
 * reads from this store. Returns 0. */
int layer_store_put(struct layer_store *store, struct tree *tree, struct tree_inode *inode,
                    const void *data, size_t len, struct error *err);

/* The store's data function, for a tree that takes over inodes. */
struct tree_data layer_store_data(struct layer_store *store);

DEFINE_CLEANUP(cleanup_layer_store_p, struct layer_store *, layer_store_free)
#define cleanup_layer_store CLEANUP(cleanup_layer_store_p)

/* -- a tree into a folder ---------------------------------------------------------------------- */

struct layer_folder_options {
    /* Keep owners, modes, devices and attributes that an ordinary user may not create as
     * user.rootlesscontainers and in the sidecar instead of creating them. */
    bool rootless;
    unsigned threads; /* that write files; 0 = one per processor, 4 at most */
};

/* Writes the tree into the empty folder open at dirfd, which becomes the tree's root with its
 * attributes. Every object is created by a single name below a descriptor of a folder made here;
 * nothing is ever followed. Folders stay 0700 and ours until all is there. With rootless, *ret_note
 * (may be NULL) tells whether anything had to be kept aside. On failure the folder holds some part:
 * the caller removes it (output_abort()). ctx may be NULL. Returns 0. */
int layer_write_folder(struct tree *tree, int dirfd, const struct layer_folder_options *options,
                       const struct context *ctx, struct error *err);

#endif
