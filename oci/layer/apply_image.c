// SPDX-License-Identifier: Apache-2.0
/* apply_image.c - all layers of an image, each verified */
#include <errno.h>

#include "oci/layer/layer.h"
#include "oci/layer/store.h"

static int next_piece(void *opaque, const uint8_t **ret_data, size_t *ret_len, struct error *err)
{
    return layer_stream_next(opaque, ret_data, ret_len, err);
}

static int apply_one(struct layer_store *store, const struct image *image,
                     const struct image_layer *layer, struct error *err)
{
    cleanup_close int fd = -1;
    uint64_t left = store->limits.max_bytes - store->bytes;

    if (image_open_blob(image, &layer->blob, &fd, err) < 0)
        return -1;
    cleanup_layer_stream struct layer_stream *stream =
        layer_stream_open(fd, layer, left ? left : 1, store->limits.max_ratio, store->ctx, err);
    if (!stream)
        return -1;
    if (layer_apply(store, next_piece, stream, err) == 0)
        return 0;
    /* A blob that is not what its descriptor says may look like anything: say that instead. */
    struct error why = ERROR_INIT;
    const uint8_t *data;
    size_t len = 1;
    if (err && err->code != ECANCELED && err->code != E2BIG && err->code != ENOSPC)
        while (len && layer_stream_next(stream, &data, &len, &why) == 0)
            ;
    if (why.code == EBADMSG)
        *err = why;
    return -1;
}

int layer_apply_image(struct layer_store *store, const struct image *image, struct error *err)
{
    size_t n = image_layer_count(image);
    struct error why = ERROR_INIT;

    for (size_t i = 0; i < n; i++) {
        const struct image_layer *layer = image_layer(image, i);
        if (apply_one(store, image, layer, &why) < 0) {
            char hex[SHA256_HEX_SIZE];
            digest_hex(layer->blob.digest, hex);
            if (why.code != ECANCELED)
                error_wrap(&why, "layer %zu of %zu (sha256:%.12s)", i + 1, n, hex);
            if (err)
                *err = why;
            return -1;
        }
    }
    return 0;
}
