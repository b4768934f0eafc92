/* SPDX-License-Identifier: Apache-2.0 */
/* object.h - one object of a tree onto disk; inside of oci/layer */
#ifndef OCI_LAYER_OBJECT_H
#define OCI_LAYER_OBJECT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "oci/tree/tree.h"
#include "runtime/base/context.h"
#include "runtime/base/error.h"

/* What all objects of a tree are written with. Threads share it: only `bytes` changes. */
struct object_writer {
    const struct tree_data *data;
    const struct context *ctx;
    bool rootless; /* see layer.h */
    atomic_uint_fast64_t bytes;
};

/* A mark in inode->scratch: the file system did not take its extended attributes. */
#define OBJECT_XATTRS_ASIDE (UINT64_C(1) << 63)

/* Sets err from errno: the quoted name, the act, the cause. Returns -1. */
int object_failed(struct error *err, const char *name, const char *act);

/* Makes what is no folder under a new name in the folder open at dirfd, data and attributes and
 * all. Returns 0. */
int object_make(struct object_writer *w, struct tree_inode *inode, int dirfd, const char *name,
                struct error *err);

/* Gives a file or folder open at fd its owner, extended attributes, mode and times. name: for
 * errors. Returns 0. */
int object_set_attributes(struct object_writer *w, struct tree_inode *inode, int fd,
                          const char *name, struct error *err);

#endif
