// SPDX-License-Identifier: Apache-2.0
/* describe.c - stacks from data and back */
#include <errno.h>
#include <string.h>

#include "runtime/base/json.h"
#include "runtime/base/parse.h"
#include "runtime/block/layer.h"

static const struct layer_type *const types[] = {
    &file_layer, &sparse_layer, &cow_layer,   &dirty_layer,
    &log_layer,  &delay_layer,  &fault_layer, &stats_layer,
};

static const struct layer_type *type_of(struct json_object *layer, const char *what,
                                        struct error *err)
{
    const char *type;

    if (json_required(json_get_string(layer, "type", what, &type, err), "type", what, err) < 0)
        return NULL;
    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        if (strcmp(types[i]->type, type) == 0)
            return types[i];
    error_set(err, EINVAL,
              "%s: type \"%s\" is none of file, sparse, cow, dirty, log, delay, fault, stats", what,
              type);
    return NULL;
}

static int check_keys(const struct layer_type *t, struct json_object *layer, const char *what,
                      struct error *err)
{
    const char *keys[32] = {"type"};
    size_t n = 1;

    for (const char *const *k = t->keys; *k && n < ARRAY_SIZE(keys) - 1; k++)
        keys[n++] = *k;
    return json_only_keys(layer, keys, what, err);
}

int param_duration(struct json_object *obj, const char *key, const char *what, uint64_t *ret_ns,
                   struct error *err)
{
    struct json_object *v = NULL;
    const char *text;
    char name[128];

    if (json_object_object_get_ex(obj, key, &v) && json_object_is_type(v, json_type_string)) {
        int rc = json_get_string(obj, key, what, &text, err);
        (void)snprintf(name, sizeof(name), "%s: %s", what, key);
        return rc == JSON_OK ? parse_duration(text, name, ret_ns, err) : rc;
    }
    return json_get_u64(obj, key, 0, INT64_MAX, what, ret_ns, err);
}

/* Takes the layers above `below` off again, closing them. */
static void unwind(struct block *top, struct block *below)
{
    while (top != below)
        top = block_take_off(top);
}

struct block *block_stack(struct block *below, struct json_object *layers, const char *name,
                          const struct context *ctx, struct error *err)
{
    struct block *top = below;
    char what[160];

    if (!name)
        name = below ? block_name(below) : "unnamed";
    if (!json_object_is_type(layers, json_type_array) || json_object_array_length(layers) == 0) {
        error_set(err, EINVAL, "device %s: a stack is a JSON array of at least one layer", name);
        return NULL;
    }
    size_t n = json_object_array_length(layers);
    if (n > BLOCK_LAYERS_MAX) {
        error_set(err, E2BIG, "device %s: %zu layers, more than %d", name, n, BLOCK_LAYERS_MAX);
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        struct json_object *layer = json_object_array_get_idx(layers, i);
        (void)snprintf(what, sizeof(what), "device %s: layer %zu", name, i);
        const struct layer_type *t = type_of(layer, what, err);
        struct block *b = NULL;
        if (t && check_keys(t, layer, what, err) == 0) {
            if (t->source == (top != NULL))
                error_set(err, EINVAL,
                          t->source ? "%s: %s is a source: it can only stand at the bottom"
                                    : "%s: %s is a filter: it needs a source below it",
                          what, t->type);
            else if (!(b = t->open(top, layer, name, ctx, err)))
                error_wrap(err, "%s (%s)", what, t->type);
        }
        if (!b) {
            unwind(top, below);
            return NULL;
        }
        top = b;
    }
    return top;
}

struct block *block_open_json(struct json_object *layers, const char *name,
                              const struct context *ctx, struct error *err)
{
    return block_stack(NULL, layers, name, ctx, err);
}

struct block *block_open(const char *text, size_t len, const char *name, const struct context *ctx,
                         struct error *err)
{
    cleanup_json struct json_object *layers = json_parse(text, len, "stack", err);

    return layers ? block_open_json(layers, name, ctx, err) : NULL;
}

static int describe_layer(const struct block *b, struct json_object *array, struct error *err)
{
    if (b->next && describe_layer(b->next, array, err) < 0)
        return -1;
    cleanup_json struct json_object *obj = json_object_new_object();
    struct json_object *type = json_object_new_string(b->ops->type);
    if (!obj || !type || json_object_object_add(obj, "type", type) < 0) {
        json_object_put(type);
        return error_oom(err);
    }
    if (b->ops->describe && b->ops->describe(b->self, obj, err) < 0)
        return error_wrap(err, "device %s: describe %s", b->name, b->ops->type);
    if (json_object_array_add(array, obj) < 0)
        return error_oom(err);
    (void)steal_ptr(&obj);
    return 0;
}

struct json_object *block_describe(const struct block *top, struct error *err)
{
    cleanup_json struct json_object *array = json_object_new_array();

    if (!array) {
        error_oom(err);
        return NULL;
    }
    if (describe_layer(top, array, err) < 0)
        return NULL;
    return steal_ptr(&array);
}
