// SPDX-License-Identifier: Apache-2.0
/* image.c - an image in an OCI image layout, opened and checked */
#include "oci/image/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oci/image/layout.h"
#include "runtime/base/json.h"

struct image {
    int layout;
    struct image_descriptor manifest;
    struct image_layer *layers;
    size_t n_layers;
    struct json_object *config;
};

void image_close(struct image *image)
{
    if (!image)
        return;
    if (image->layout >= 0)
        (void)close(image->layout);
    if (image->config)
        (void)json_object_put(image->config);
    free(image->layers);
    free(image);
}

struct json_object *layout_read_config(int layout, struct json_object *manifest, struct error *err)
{
    struct json_object *obj;
    struct image_descriptor d;

    if (json_required(json_get_object(manifest, "config", "manifest", &obj, err), "config",
                      "manifest", err) < 0 ||
        layout_parse_descriptor(obj, IMAGE_JSON_MAX, "manifest: config", &d, err) < 0)
        return NULL;
    if (image_media_type(d.media_type)->kind != IMAGE_KIND_CONFIG) {
        error_set(err, ENOTSUP,
                  "manifest: config: media type \"%.100s\": not a container image but an artifact",
                  d.media_type);
        return NULL;
    }
    struct json_object *config = layout_read_blob(layout, &d, "image config", err);
    if (config && !json_object_is_type(config, json_type_object)) {
        json_object_put(config);
        error_set(err, EBADMSG, "image config: not a JSON object");
        return NULL;
    }
    return config;
}

static int read_layer(struct json_object *obj, const char *what, struct image_layer *ret,
                      struct error *err)
{
    if (layout_parse_descriptor(obj, IMAGE_LAYER_SIZE_MAX, what, &ret->blob, err) < 0)
        return -1;
    const struct image_media_type *type = image_media_type(ret->blob.media_type);
    if (type->kind != IMAGE_KIND_LAYER)
        return error_set(err, ENOTSUP, "%s: media type \"%.100s\" is no layer type we know%s", what,
                         ret->blob.media_type,
                         strstr(ret->blob.media_type, "encrypted")
                             ? "; decrypt the image first (skopeo copy --decryption-key)"
                             : "");
    ret->blob.media_type = type->name; /* outlives the document */
    ret->compression = type->compression;
    return 0;
}

static int read_layers(struct image *image, struct json_object *manifest, struct error *err)
{
    struct json_object *layers;
    char what[64];

    if (json_required(json_get_array(manifest, "layers", "manifest", &layers, err), "layers",
                      "manifest", err) < 0)
        return -1;
    size_t n = json_object_array_length(layers);
    if (n > IMAGE_LAYERS_MAX)
        return error_set(err, EFBIG, "manifest: %zu layers, more than the limit of %d", n,
                         IMAGE_LAYERS_MAX);
    image->layers = calloc(n + 1, sizeof(*image->layers));
    if (!image->layers)
        return error_oom(err);
    image->n_layers = n;
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(what, sizeof(what), "manifest: layer %zu", i);
        if (read_layer(json_object_array_get_idx(layers, i), what, &image->layers[i], err) < 0)
            return -1;
    }
    return 0;
}

static int read_diff_ids(struct image *image, struct error *err)
{
    static const char what[] = "image config: rootfs";
    struct json_object *rootfs, *ids;
    const char *type = NULL;
    char place[80];

    if (json_required(json_get_object(image->config, "rootfs", "image config", &rootfs, err),
                      "rootfs", "image config", err) < 0 ||
        json_required(json_get_string(rootfs, "type", what, &type, err), "type", what, err) < 0)
        return -1;
    if (strcmp(type, "layers") != 0)
        return error_set(err, ENOTSUP, "%s: type \"%.100s\", only \"layers\" is known", what, type);
    int rc = json_get_array(rootfs, "diff_ids", what, &ids, err);
    if (rc < 0)
        return -1;
    size_t n = rc == JSON_OK ? json_object_array_length(ids) : 0; /* null: no layers */
    if (n != image->n_layers)
        return error_set(err, EBADMSG, "%s: %zu diff_ids for the manifest's %zu layers", what, n,
                         image->n_layers);
    for (size_t i = 0; i < n; i++) {
        struct json_object *id = json_object_array_get_idx(ids, i);
        (void)snprintf(place, sizeof(place), "%s: diff_ids[%zu]", what, i);
        if (!json_object_is_type(id, json_type_string))
            return error_set(err, EBADMSG, "%s: not a string", place);
        if (layout_parse_digest(json_object_get_string(id), place, image->layers[i].diff_id, err) <
            0)
            return -1;
    }
    return 0;
}

static int read_image(struct image *image, const char *dir, const char *ref,
                      const char *architecture, struct error *err)
{
    image->layout = layout_open(dir, err);
    if (image->layout < 0 ||
        layout_select(image->layout, ref, architecture, &image->manifest, err) < 0)
        return -1;
    cleanup_json struct json_object *manifest =
        layout_read_blob(image->layout, &image->manifest, "manifest", err);
    if (!manifest || layout_check_kind(manifest, IMAGE_KIND_MANIFEST, "manifest", err) < 0)
        return -1;
    image->config = layout_read_config(image->layout, manifest, err);
    if (!image->config || read_layers(image, manifest, err) < 0)
        return -1;
    return read_diff_ids(image, err);
}

struct image *image_open(const char *dir, const char *ref, const char *architecture,
                         struct error *err)
{
    cleanup_image struct image *image = calloc(1, sizeof(*image));

    if (!image) {
        error_oom(err);
        return NULL;
    }
    image->layout = -1;
    if (read_image(image, dir, ref, architecture, err) < 0) {
        error_wrap(err, "image %s%s%s", dir, ref && *ref ? ":" : "", ref ? ref : "");
        return NULL;
    }
    return steal_ptr(&image);
}

size_t image_layer_count(const struct image *image)
{
    return image->n_layers;
}

const struct image_layer *image_layer(const struct image *image, size_t index)
{
    return &image->layers[index];
}

struct json_object *image_config(const struct image *image)
{
    return image->config;
}

const struct image_descriptor *image_manifest(const struct image *image)
{
    return &image->manifest;
}

int image_open_blob(const struct image *image, const struct image_descriptor *blob, int *ret_fd,
                    struct error *err)
{
    return layout_open_blob(image->layout, blob, ret_fd, err);
}
