/* SPDX-License-Identifier: Apache-2.0 */
/* layout.h - private to oci/image: a layout folder, descriptors, and blobs that are JSON */
#ifndef OCI_IMAGE_LAYOUT_H
#define OCI_IMAGE_LAYOUT_H

#include <json-c/json_object.h>
#include <stddef.h>

#include "oci/image/image.h"
#include "runtime/base/error.h"

/* What a blob is, by its media type. */
enum image_kind {
    IMAGE_KIND_OTHER,
    IMAGE_KIND_INDEX,
    IMAGE_KIND_MANIFEST,
    IMAGE_KIND_CONFIG,
    IMAGE_KIND_LAYER,
};

struct image_media_type {
    const char *name;
    enum image_kind kind;
    enum image_compression compression; /* layers */
};

/* The entry of `name`, which may be NULL; for one we do not know an entry of kind OTHER. */
const struct image_media_type *image_media_type(const char *name);

/* Opens layout folder `dir`, checking its oci-layout file. Returns its descriptor, -1 on failure.
 */
int layout_open(const char *dir, struct error *err);

/* Parses "sha256:HEX" into 32 bytes, nothing else: other algorithms are refused by name. Returns 0.
 */
int layout_parse_digest(const char *text, const char *what, uint8_t ret_digest[SHA256_SIZE],
                        struct error *err);

/* Reads descriptor object `obj`; what names it. media_type points into obj ("" when absent).
 * max: the most bytes a blob of its kind may have. Returns 0. */
int layout_parse_descriptor(struct json_object *obj, uint64_t max, const char *what,
                            struct image_descriptor *ret, struct error *err);

/* Opens the blob as image_open_blob() documents. Returns 0. */
int layout_open_blob(int layout, const struct image_descriptor *blob, int *ret_fd,
                     struct error *err);

/* Reads file `name` right below the layout folder (no symlink), at most IMAGE_JSON_MAX bytes, and
 * parses it. The caller owns the result. */
struct json_object *layout_read_file(int layout, const char *name, struct error *err);

/* Reads a blob, checks its size and digest, and parses it. what names it ("manifest"); the error
 * text gets the digest too. The caller owns the result. */
struct json_object *layout_read_blob(int layout, const struct image_descriptor *blob,
                                     const char *what, struct error *err);

/* Checks that doc, which a descriptor calls `wanted`, is not something else too (CVE-2021-41190):
 * its own mediaType agrees, schemaVersion is 2, and index and manifest fields do not mix. Returns
 * 0. */
int layout_check_kind(struct json_object *doc, enum image_kind wanted, const char *what,
                      struct error *err);

/* Chooses the manifest (index.c). docs read on the way are not kept: ret->media_type is static.
 * Returns 0. */
int layout_select(int layout, const char *ref, const char *architecture,
                  struct image_descriptor *ret, struct error *err);

/* Reads os, architecture and variant of an object as "os/architecture[/variant]" pieces; absent
 * ones are "". They belong to obj. Returns 0. */
struct image_platform {
    const char *os, *architecture, *variant;
};
int layout_parse_platform(struct json_object *obj, const char *what, struct image_platform *ret,
                          struct error *err);

/* Reads the manifest's config descriptor and that blob. The caller owns the result. */
struct json_object *layout_read_config(int layout, struct json_object *manifest, struct error *err);

#endif
