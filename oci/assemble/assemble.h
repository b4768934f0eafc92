/* SPDX-License-Identifier: Apache-2.0 */
/* assemble.h - an image becomes the tree of an OCI runtime bundle
 *
 * Theory of operation: both ways from an image go through the same tree, so that they cannot
 * differ: oci-unpack writes it out as a folder, which oci-pack scans again; oci-build hands it to
 * ext4 as it is. The tree is
 *
 *     .            0700 0:0, so that set-user-id files in it are out of others' reach
 *     config.json  0644 0:0, edited for a virtual machine
 *     rootfs/      the image's merged layers
 *
 * and the times of the first two are the image's "created" (whole seconds; 0 when it says nothing).
 */
#ifndef OCI_ASSEMBLE_ASSEMBLE_H
#define OCI_ASSEMBLE_ASSEMBLE_H

#include "oci/layer/layer.h"
#include "oci/tree/tree.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/context.h"
#include "runtime/base/error.h"

struct assembly;

struct assemble_options {
    const char *image; /* "DIR" or "DIR:REF"; the last ':' behind the last '/' divides */
    const char *architecture;
    const char *hostname;       /* of the container */
    struct layer_limits limits; /* 0 = default */
    int spool_dirfd;            /* folder for the uncompressed layers, see layer_store_new() */
};

/* Opens the image, verifies and merges its layers and makes the bundle's tree. ctx may be NULL and
 * must outlive the assembly. The caller owns the result. Errors name the image. NULL on failure. */
struct assembly *assemble_image(const struct assemble_options *options, const struct context *ctx,
                                struct error *err);
void assembly_free(struct assembly *a); /* NULL is fine */

/* The bundle's tree; owned by the assembly. */
struct tree *assembly_tree(const struct assembly *a);

/* "2024-05-01T12:00:00.5+02:00" (RFC 3339) to seconds since 1970, fractions cut off. Returns 0, or
 * -1 without an error text. */
int assemble_parse_time(const char *text, int64_t *ret_seconds);

DEFINE_CLEANUP(cleanup_assembly_p, struct assembly *, assembly_free)
#define cleanup_assembly CLEANUP(cleanup_assembly_p)

#endif
