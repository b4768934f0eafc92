/* SPDX-License-Identifier: Apache-2.0 */
/* bundle.h - config.json of an OCI runtime bundle: made from an image, and edited for a VM
 *
 * Theory of operation: two steps that are kept apart. bundle_convert() turns an image config into a
 * runtime-spec config.json as image-spec's conversion.md says, with the defaults that `umoci
 * unpack` writes where the specification leaves room, so that either unpacker gives the same
 * bundle. bundle_edit() then changes what a container alone in a virtual machine needs to be
 * different; it works on any config.json, keeps keys it does not know, and changes nothing the
 * second time.
 *
 * Sources: OCI image-spec v1.1 conversion.md and config.md, runtime-spec v1.0.2 config.md and
 * config-linux.md.
 */
#ifndef OCI_BUNDLE_BUNDLE_H
#define OCI_BUNDLE_BUNDLE_H

#include <stddef.h>
#include <stdint.h>

#include "oci/image/image.h"
#include "oci/tree/tree.h"
#include "runtime/base/error.h"

struct json_object;

#define BUNDLE_CONFIG_NAME "config.json"
#define BUNDLE_ROOTFS_NAME "rootfs"
#define BUNDLE_CONFIG_MAX (16u << 20)  /* bytes of a config.json we read */
#define BUNDLE_ACCOUNTS_MAX (4u << 20) /* bytes of an image's /etc/passwd or /etc/group */
#define BUNDLE_HOSTNAME_MAX 64         /* bytes (sethostname(2)) */

/* The whole way for an unpacker: conversion and edits. tree: the image's merged tree, from which
 * /etc/passwd and /etc/group are read (only regular files of limited size, only inside the tree)
 * when the image names its user. hostname: see bundle_edit(). The same image gives the same bytes.
 * Returns the text of config.json, which the caller frees; NULL on failure. */
char *bundle_config(const struct image *image, const struct tree *tree, const char *hostname,
                    struct error *err);

/* Image config document to a new runtime config document, which the caller owns
 * (json_object_put()). NULL on failure. */
struct json_object *bundle_convert(struct json_object *image_config, const struct tree *tree,
                                   struct error *err);

/* Edits a runtime config in place: no terminal, the hostname, the guest's /etc/resolv.conf,
 * /etc/hosts and /etc/hostname bound into the container, more capabilities, the guest's own
 * network. hostname: 1 to BUNDLE_HOSTNAME_MAX bytes of letters, digits, '-' and '.'. On failure the
 * document may be half edited: throw it away. Returns 0. */
int bundle_edit(struct json_object *config, const char *hostname, struct error *err);

/* Edits config.json of the bundle folder `dir`: a new file takes the old one's place at once, with
 * its permissions. A file that needs no change is not touched. Returns 0. */
int bundle_edit_file(const char *dir, const char *hostname, struct error *err);

#endif
