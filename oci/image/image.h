/* SPDX-License-Identifier: Apache-2.0 */
/* image.h - an image in an OCI image layout, opened and checked
 *
 * Theory of operation: image_open() reads oci-layout, index.json, nested indexes, the manifest and
 * the image config of one platform, each checked against the size and SHA-256 of the descriptor
 * that led to it, and keeps what the rest of the project needs. Layer blobs are not read here:
 * whoever streams one (oci/layer) checks its size and digest while the bytes pass.
 *
 * Sources: OCI image-spec v1.1 image-layout.md, image-index.md, manifest.md, config.md,
 * descriptor.md. Docker's schema 2 media types are accepted as their OCI equals.
 */
#ifndef OCI_IMAGE_IMAGE_H
#define OCI_IMAGE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/digest.h"
#include "runtime/base/error.h"

/* Limits of what an image may ask for. Manifests and configs: registries refuse more than 4 MiB
 * (distribution-spec, pushing manifests). The others are far above what is seen in the wild. */
#define IMAGE_JSON_MAX (4u << 20)    /* bytes of one JSON document */
#define IMAGE_INDEX_DEPTH_MAX 8      /* indexes within indexes */
#define IMAGE_INDEX_ENTRIES_MAX 1024 /* entries of all indexes together */
#define IMAGE_LAYERS_MAX 1024
#define IMAGE_LAYER_SIZE_MAX (UINT64_C(1) << 42) /* bytes of one layer's blob */

struct image;
struct json_object;

enum image_compression {
    IMAGE_PLAIN,
    IMAGE_GZIP,
    IMAGE_ZSTD,
};

struct image_descriptor {
    const char *media_type;
    uint8_t digest[SHA256_SIZE];
    uint64_t size; /* bytes */
};

struct image_layer {
    struct image_descriptor blob;
    enum image_compression compression; /* by media type */
    uint8_t diff_id[SHA256_SIZE];       /* of the uncompressed tar */
};

/* Opens the image `ref` (an org.opencontainers.image.ref.name; NULL or "" when the layout holds
 * only one) of the layout folder `dir` for os "linux" and the given architecture ("amd64"; Go's
 * names, with an optional variant "arm64/v8"). The caller owns the result. Errors name what there
 * is when the wanted one is not. Returns NULL on failure. */
struct image *image_open(const char *dir, const char *ref, const char *architecture,
                         struct error *err);
void image_close(struct image *image); /* NULL is fine */

size_t image_layer_count(const struct image *image);
/* index < image_layer_count(). The lowest layer is 0. Owned by the image. */
const struct image_layer *image_layer(const struct image *image, size_t index);

/* The image config document; owned by the image. */
struct json_object *image_config(const struct image *image);
/* Descriptor of the manifest, whose digest is what people call the image's. Owned by the image. */
const struct image_descriptor *image_manifest(const struct image *image);

/* Opens a blob for reading: a regular file at blobs/sha256/HEX below the layout folder, no symlink
 * on the way, of the descriptor's size. Its content is not checked here. Returns 0; the caller
 * closes. */
int image_open_blob(const struct image *image, const struct image_descriptor *blob, int *ret_fd,
                    struct error *err);

DEFINE_CLEANUP(cleanup_image_p, struct image *, image_close)
#define cleanup_image CLEANUP(cleanup_image_p)

#endif
