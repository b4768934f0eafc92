// SPDX-License-Identifier: Apache-2.0
/* mounter.c - the devices of a machine as files on a mount point; see mounter.h */
#include "runtime/snapshot/mounter.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "blueprint/blueprint.h"
#include "runtime/base/json.h"
#include "runtime/base/output.h"
#include "runtime/block/block.h"
#include "runtime/block/device.h"
#include "runtime/block/expose/mount.h"
#include "runtime/snapshot/package.h"

/* One device on its way to a stack. */
struct source {
    const char *name, *base;
    const char *overlays[DEVICE_OVERLAYS_MAX], *states[DEVICE_OVERLAYS_MAX];
    size_t n_overlays;
    uint32_t block_size;
    bool shared;
    const uint8_t *sha256; /* NULL = not known */
};

struct mounter {
    struct block *tops[BLUEPRINT_DEVICES_MAX + 1];
    size_t n;
    struct mount *mount;
};

static int put(struct json_object *obj, const char *key, struct json_object *value)
{
    if (value && json_object_object_add(obj, key, value) == 0)
        return 0;
    (void)json_object_put(value);
    return -1;
}

static struct json_object *layer(struct json_object *stack, const char *type)
{
    struct json_object *obj = json_object_new_object();

    if (obj && json_object_array_add(stack, obj) == 0)
        return put(obj, "type", json_object_new_string(type)) < 0 ? NULL : obj;
    (void)json_object_put(obj);
    return NULL;
}

/* The layers that drafter-peer would stack, without those that only a machine needs. */
static int describe(const struct source *s, bool read_only, struct json_object *stack)
{
    struct json_object *l = layer(stack, "file");

    if (!l || put(l, "path", json_object_new_string(s->base)) < 0 ||
        put(l, "readonly", json_object_new_boolean(1)) < 0 ||
        put(l, "shared", json_object_new_boolean(s->shared)) < 0)
        return -1;
    /* Overlays belong to a device whose size is a whole number of pages. */
    if (s->n_overlays && put(l, "round", json_object_new_uint64(BLOCK_PAGE)) < 0)
        return -1;
    if (s->sha256) {
        char text[7 + SHA256_HEX_SIZE] = "sha256:";
        digest_hex(s->sha256, text + 7);
        if (put(l, "digest", json_object_new_string(text)) < 0)
            return -1;
    }
    for (size_t i = 0; i < s->n_overlays; i++) {
        l = layer(stack, "cow");
        if (!l || put(l, "overlay", json_object_new_string(s->overlays[i])) < 0 ||
            put(l, "state", json_object_new_string(s->states[i])) < 0 ||
            put(l, "blockSize", json_object_new_uint64(s->block_size)) < 0 ||
            put(l, "readonly", json_object_new_boolean(read_only || i + 1 < s->n_overlays)) < 0)
            return -1;
    }
    return 0;
}

static int add(struct mounter *m, const struct source *s, bool read_only, const struct context *ctx,
               struct error *err)
{
    cleanup_json struct json_object *stack = json_object_new_array();

    if (m->n == ARRAY_SIZE(m->tops))
        return error_set(err, E2BIG, "device %s: there are %zu already", s->name, m->n);
    if (!stack || describe(s, read_only, stack) < 0)
        return error_oom(err);
    struct block *top = block_open_json(stack, s->name, ctx, err);
    if (!top)
        return -1;
    m->tops[m->n++] = top;
    return 0;
}

/* Adds a device of a folder, with an overlay when there is a place for it. */
static int add_file(struct mounter *m, const struct mounter_options *o, const char *dir,
                    const char *name, const char *file, const uint8_t *sha256,
                    const struct context *ctx, struct error *err)
{
    cleanup_free char *base = NULL, *overlay = NULL, *state = NULL;
    const char *od = o->overlay_dir;

    if (asprintf(&base, "%s/%s", dir, file) < 0 ||
        (od && (asprintf(&overlay, "%s/%s.overlay", od, file) < 0 ||
                asprintf(&state, "%s/%s.overlay.state", od, file) < 0)))
        return error_oom(err);
    const struct source s = {
        .name = name,
        .base = base,
        .overlays = {overlay},
        .states = {state},
        /* Nothing was changed where there is no overlay yet. */
        .n_overlays = od && !(o->read_only && access(state, F_OK) < 0) ? 1 : 0,
        .block_size = BLOCK_SIZE_DEFAULT,
        .sha256 = sha256,
    };
    return add(m, &s, o->read_only, ctx, err);
}

static int add_package(struct mounter *m, const struct mounter_options *o, const char *dir,
                       const struct context *ctx, struct error *err)
{
    cleanup_package struct package *pkg = package_open(dir, err);
    bool config = false;

    if (!pkg)
        return -1;
    for (size_t i = 0; i < pkg->n_devices; i++) {
        const struct blueprint_device *d = &pkg->devices[i];
        config = config || !strcmp(d->name, "config");
        if (add_file(m, o, dir, d->name, d->file, d->has_digest ? d->sha256 : NULL, ctx, err) < 0)
            return -1;
    }
    return config ? 0 : add_file(m, o, dir, "config", PACKAGE_CONFIG, NULL, ctx, err);
}

static int add_blueprint(struct mounter *m, const struct mounter_options *o,
                         const struct context *ctx, struct error *err)
{
    cleanup_blueprint struct blueprint *bp = blueprint_open(o->blueprint, err);

    if (!bp)
        return -1;
    for (size_t i = 0; i < bp->n_devices; i++)
        if (add_file(m, o, o->blueprint, bp->devices[i].name, bp->devices[i].file,
                     bp->devices[i].sha256, ctx, err) < 0)
            return -1;
    return 0;
}

/* A device of --devices without overlays of its own. */
static int add_base(struct mounter *m, const struct mounter_options *o, const struct device *d,
                    const struct context *ctx, struct error *err)
{
    const char *slash = strrchr(d->base, '/');
    cleanup_free char *dir = slash ? strndup(d->base, (size_t)(slash - d->base) + 1) : strdup(".");

    if (!dir)
        return error_oom(err);
    return add_file(m, o, dir, d->name, slash ? slash + 1 : d->base, NULL, ctx, err);
}

static int add_devices(struct mounter *m, const struct mounter_options *o,
                       const struct context *ctx, struct error *err)
{
    cleanup_devices struct devices list = {0};

    if (devices_parse(o->devices, strlen(o->devices), &list, err) < 0)
        return -1;
    for (size_t i = 0; i < list.count; i++) {
        const struct device *d = &list.items[i];
        if (!*d->base)
            return error_set(err, EINVAL, "device %s: has no base", d->name);
        if (!d->n_overlays) {
            if (add_base(m, o, d, ctx, err) < 0)
                return -1;
            continue;
        }
        struct source s = {.name = d->name,
                           .base = d->base,
                           .n_overlays = d->n_overlays,
                           .block_size = d->block_size,
                           .shared = d->shared};
        for (size_t j = 0; j < d->n_overlays; j++) {
            s.overlays[j] = d->overlays[j];
            s.states[j] = d->states[j];
        }
        if (add(m, &s, o->read_only, ctx, err) < 0)
            return -1;
    }
    return 0;
}

static int open_all(struct mounter *m, const struct mounter_options *o, const struct context *ctx,
                    struct error *err)
{
    if (o->overlay_dir && !o->read_only && output_make_private_dirs(o->overlay_dir, err) < 0)
        return -1;
    if (o->devices)
        return add_devices(m, o, ctx, err);
    if (o->blueprint)
        return add_blueprint(m, o, ctx, err);
    return add_package(m, o, o->package ? o->package : "out/package", ctx, err);
}

struct mounter *mounter_new(const char *path, const struct mounter_options *o,
                            const struct context *ctx, struct error *err)
{
    struct mounter *m = calloc(1, sizeof(*m));

    if (!m) {
        (void)error_oom(err);
        return NULL;
    }
    if (open_all(m, o, ctx, err) < 0)
        goto fail;
    m->mount = mount_new(path, ctx, err);
    if (!m->mount)
        goto fail;
    for (size_t i = 0; i < m->n; i++)
        if (mount_add_block(m->mount, block_name(m->tops[i]), o->mode ? o->mode : 0600, geteuid(),
                            getegid(), m->tops[i], err) < 0)
            goto fail;
    if (mount_start(m->mount, err) < 0)
        goto fail;
    log_info(context_log(ctx), "Mounted devices", log_str("path", path), log_uint("devices", m->n));
    return m;
fail:
    (void)mounter_free(m, NULL);
    return NULL;
}

int mounter_free(struct mounter *m, struct error *err)
{
    if (!m)
        return 0;
    int rc = m->mount ? mount_stop(m->mount, err) : 0;
    mount_free(m->mount);
    for (size_t i = 0; i < m->n; i++)
        if (block_close(m->tops[i], rc == 0 ? err : NULL) < 0)
            rc = -1;
    free(m);
    return rc;
}
