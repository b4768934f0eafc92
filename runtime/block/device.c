// SPDX-License-Identifier: Apache-2.0
/* device.c - a VM's devices as people write them: --devices, a JSON array; see device.h */
#include "runtime/block/device.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/json.h"
#include "runtime/block/layer.h"

#define ROUND 4096u /* a VMM wants whole sectors, a mapped memory whole pages */
#define COUNT_MAX UINT32_MAX

static const char *const keys[] = {
    "name",           "base",
    "overlay",        "state",
    "blockSize",      "expiry",
    "maxDirtyBlocks", "minCycles",
    "maxCycles",      "cycleThrottle",
    "makeMigratable", "shared",
    "sharedbase",     "s3sync",
    "s3accesskey",    "s3secretkey",
    "s3endpoint",     "s3secure",
    "s3bucket",       "s3concurrency",
    "skipsilo",       NULL,
};

static void device_free(struct device *d)
{
    free(d->name);
    free(d->base);
    for (size_t i = 0; i < DEVICE_OVERLAYS_MAX; i++) {
        free(d->overlays[i]);
        free(d->states[i]);
    }
}

void devices_free(struct devices *d)
{
    for (size_t i = 0; i < d->count; i++)
        device_free(&d->items[i]);
    free(d->items);
    *d = (struct devices){0};
}

/* "a b c" into copies; blanks at the ends or two in a row make no empty path. */
static int split(const char *text, const char *what, const char *key, char **ret, size_t *ret_n,
                 struct error *err)
{
    *ret_n = 0;
    while (*(text += strspn(text, " "))) {
        size_t len = strcspn(text, " ");
        if (*ret_n == DEVICE_OVERLAYS_MAX)
            return error_set(err, E2BIG, "%s: %s: more than %d paths", what, key,
                             DEVICE_OVERLAYS_MAX);
        if (!(ret[*ret_n] = strndup(text, len)))
            return error_oom(err);
        (*ret_n)++;
        text += len;
    }
    return 0;
}

static int get_text(struct json_object *obj, const char *key, const char *what, const char **ret,
                    struct error *err)
{
    *ret = "";
    return json_get_string(obj, key, what, ret, err) < 0 ? -1 : 0;
}

static int parse_name(struct json_object *obj, const char *what, struct device *d,
                      struct error *err)
{
    const char *name;

    if (json_required(json_get_string(obj, "name", what, &name, err), "name", what, err) < 0)
        return -1;
    size_t len = strlen(name);
    if (len == 0 || len > DEVICE_NAME_MAX || strchr(name, '/') || !strcmp(name, ".") ||
        !strcmp(name, ".."))
        return error_set(err, EINVAL, "%s: name \"%.80s\" is not a file name of 1 to %d bytes",
                         what, name, DEVICE_NAME_MAX);
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return error_set(err, EINVAL, "%s: name: contains a control character", what);
    d->name = strdup(name);
    return d->name ? 0 : error_oom(err);
}

static int parse_paths(struct json_object *obj, const char *what, struct device *d,
                       struct error *err)
{
    const char *base, *overlay, *state;
    size_t n_states;

    if (get_text(obj, "base", what, &base, err) < 0 ||
        get_text(obj, "overlay", what, &overlay, err) < 0 ||
        get_text(obj, "state", what, &state, err) < 0)
        return -1;
    if (!(d->base = strdup(base)))
        return error_oom(err);
    if (split(overlay, what, "overlay", d->overlays, &d->n_overlays, err) < 0 ||
        split(state, what, "state", d->states, &n_states, err) < 0)
        return -1;
    if (d->n_overlays != n_states)
        return error_set(err, EINVAL,
                         "%s: %zu overlays and %zu states: each overlay needs a state file", what,
                         d->n_overlays, n_states);
    for (size_t i = 0; i < d->n_overlays; i++)
        for (size_t k = 0; k < d->n_overlays; k++)
            if (!strcmp(d->overlays[i], d->states[k]) ||
                (i != k &&
                 (!strcmp(d->overlays[i], d->overlays[k]) || !strcmp(d->states[i], d->states[k]))))
                return error_set(err, EINVAL, "%s: a file is named twice among overlay and state",
                                 what);
    return 0;
}

static int parse_numbers(struct json_object *obj, const char *what, struct device *d,
                         struct error *err)
{
    uint64_t block_size_v = 0;

    d->expiry_ns = 1000000000;
    d->max_dirty_blocks = 200;
    d->min_cycles = 5;
    d->max_cycles = 20;
    d->cycle_throttle_ns = 500000000;
    if (json_get_u64(obj, "blockSize", 0, BLOCK_SIZE_MAX, what, &block_size_v, err) < 0 ||
        param_duration(obj, "expiry", what, &d->expiry_ns, err) < 0 ||
        json_get_u64(obj, "maxDirtyBlocks", 0, COUNT_MAX, what, &d->max_dirty_blocks, err) < 0 ||
        json_get_u64(obj, "minCycles", 0, COUNT_MAX, what, &d->min_cycles, err) < 0 ||
        json_get_u64(obj, "maxCycles", 0, COUNT_MAX, what, &d->max_cycles, err) < 0 ||
        param_duration(obj, "cycleThrottle", what, &d->cycle_throttle_ns, err) < 0)
        return -1;
    if (block_size_v == 0)
        block_size_v = BLOCK_SIZE_DEFAULT;
    if (block_size_v < BLOCK_SIZE_MIN || (block_size_v & (block_size_v - 1)))
        return error_set(err, EINVAL, "%s: blockSize: %llu is not a power of two from %u to %u",
                         what, (unsigned long long)block_size_v, BLOCK_SIZE_MIN, BLOCK_SIZE_MAX);
    d->block_size = (uint32_t)block_size_v;
    return 0;
}

static int parse_flags(struct json_object *obj, const char *what, struct device *d,
                       struct error *err)
{
    bool s3 = false, unused_flag;
    const char *unused_text;
    uint64_t unused_count;

    d->make_migratable = true;
    if (json_get_bool(obj, "makeMigratable", what, &d->make_migratable, err) < 0 ||
        json_get_bool(obj, "shared", what, &d->shared, err) < 0 ||
        json_get_bool(obj, "sharedbase", what, &d->sharedbase, err) < 0 ||
        json_get_bool(obj, "skipsilo", what, &d->skipsilo, err) < 0 ||
        json_get_bool(obj, "s3sync", what, &s3, err) < 0 ||
        json_get_string(obj, "s3accesskey", what, &unused_text, err) < 0 ||
        json_get_string(obj, "s3secretkey", what, &unused_text, err) < 0 ||
        json_get_string(obj, "s3endpoint", what, &unused_text, err) < 0 ||
        json_get_string(obj, "s3bucket", what, &unused_text, err) < 0 ||
        json_get_bool(obj, "s3secure", what, &unused_flag, err) < 0 ||
        json_get_u64(obj, "s3concurrency", 0, COUNT_MAX, what, &unused_count, err) < 0)
        return -1;
    if (s3)
        return error_set(err, ENOTSUP,
                         "%s: s3sync: true is refused: this program does not upload to S3; set it "
                         "to false",
                         what);
    if (d->shared && d->n_overlays)
        return error_set(err, EINVAL,
                         "%s: shared: a shared base has no overlay; remove overlay and state, or "
                         "set shared to false",
                         what);
    if (d->shared)
        d->make_migratable = false;
    return 0;
}

static int parse_device(struct json_object *obj, size_t index, struct device *d, struct error *err)
{
    char what[128];

    (void)snprintf(what, sizeof(what), "devices[%zu]", index);
    if (!json_object_is_type(obj, json_type_object))
        return error_set(err, EBADMSG, "%s: not a JSON object", what);
    if (parse_name(obj, what, d, err) < 0)
        return -1;
    (void)snprintf(what, sizeof(what), "device %s", d->name);
    if (json_only_keys(obj, keys, what, err) < 0 || parse_paths(obj, what, d, err) < 0 ||
        parse_numbers(obj, what, d, err) < 0)
        return -1;
    return parse_flags(obj, what, d, err);
}

int devices_parse(const char *text, size_t len, struct devices *ret, struct error *err)
{
    cleanup_devices struct devices list = {0};

    if (len > DEVICES_TEXT_MAX)
        return error_set(err, EFBIG, "devices: %zu bytes, more than %u", len, DEVICES_TEXT_MAX);
    cleanup_json struct json_object *doc = json_parse(text, len, "devices", err);
    if (!doc)
        return -1;
    if (!json_object_is_type(doc, json_type_array))
        return error_set(err, EBADMSG, "devices: not a JSON array");
    size_t n = json_object_array_length(doc);
    if (n > DEVICES_MAX)
        return error_set(err, E2BIG, "devices: %zu, more than %d", n, DEVICES_MAX);
    if (!(list.items = calloc(n + 1, sizeof(*list.items))))
        return error_oom(err);
    for (size_t i = 0; i < n; i++) {
        list.count = i + 1; /* what is half parsed is freed too */
        if (parse_device(json_object_array_get_idx(doc, i), i, &list.items[i], err) < 0)
            return -1;
        for (size_t k = 0; k < i; k++)
            if (strcmp(list.items[i].name, list.items[k].name) == 0)
                return error_set(err, EEXIST, "devices[%zu]: there is a device %s already", i,
                                 list.items[i].name);
    }
    *ret = list;
    list = (struct devices){0};
    return 0;
}

const struct device *devices_find(const struct devices *d, const char *name)
{
    for (size_t i = 0; i < d->count; i++)
        if (strcmp(d->items[i].name, name) == 0)
            return &d->items[i];
    return NULL;
}

/* ---- to a stack ---- */

/* Appends {"type": type} and returns it, still the array's; NULL when out of memory. */
static struct json_object *add_layer(struct json_object *stack, const char *type)
{
    cleanup_json struct json_object *layer = json_object_new_object();

    if (!layer || json_object_object_add(layer, "type", json_object_new_string(type)) < 0 ||
        json_object_array_add(stack, layer) < 0)
        return NULL;
    return steal_ptr(&layer);
}

static int build(const struct device *d, struct json_object *stack)
{
    struct json_object *l = add_layer(stack, "file");

    if (json_add(l, "path", json_object_new_string(d->base), NULL) < 0 ||
        json_add(l, "readonly", json_object_new_boolean(d->n_overlays > 0), NULL) < 0 ||
        json_add(l, "shared", json_object_new_boolean(d->shared), NULL) < 0 ||
        json_add(l, "round", json_object_new_uint64(ROUND), NULL) < 0)
        return -1;
    if (d->has_base_digest) {
        char text[sizeof("sha256:") + SHA256_HEX_SIZE] = "sha256:";
        digest_hex(d->base_digest, text + strlen(text));
        if (json_add(l, "digest", json_object_new_string(text), NULL) < 0)
            return -1;
    }
    for (size_t i = 0; i < d->n_overlays; i++) {
        l = add_layer(stack, "cow");
        if (json_add(l, "overlay", json_object_new_string(d->overlays[i]), NULL) < 0 ||
            json_add(l, "state", json_object_new_string(d->states[i]), NULL) < 0 ||
            json_add(l, "blockSize", json_object_new_uint64(d->block_size), NULL) < 0 ||
            json_add(l, "readonly", json_object_new_boolean(i + 1 < d->n_overlays), NULL) < 0)
            return -1;
    }
    if (d->make_migratable) {
        l = add_layer(stack, "dirty");
        if (json_add(l, "blockSize", json_object_new_uint64(d->block_size), NULL) < 0 ||
            json_add(l, "expiry", json_object_new_uint64(d->expiry_ns), NULL) < 0)
            return -1;
    }
    return add_layer(stack, "stats") ? 0 : -1;
}

struct json_object *device_stack(const struct device *d, struct error *err)
{
    if (!*d->base) {
        error_set(err, EINVAL,
                  "device %s: has no base: give one, or the address of a peer to move it from",
                  d->name);
        return NULL;
    }
    cleanup_json struct json_object *stack = json_object_new_array();
    if (!stack || build(d, stack) < 0) {
        error_oom(err);
        return NULL;
    }
    return steal_ptr(&stack);
}
