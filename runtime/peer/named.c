// SPDX-License-Identifier: Apache-2.0
/* named.c - --devices of drafter-registry and drafter-terminator */
#include "runtime/peer/named.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/block/block.h"

const struct named *named_find(const struct named_list *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->items[i].name, name) == 0)
            return &list->items[i];
    return NULL;
}

static int parse_one(struct json_object *obj, const char *path_key, const char *what,
                     struct named_list *list, struct error *err)
{
    bool input = strcmp(path_key, "input") == 0;
    const char *keys[] = {"name", path_key, input ? "blockSize" : NULL, NULL};
    struct named *d = &list->items[list->n];
    uint64_t size = BLOCK_SIZE_DEFAULT;

    if (!json_object_is_type(obj, json_type_object))
        return error_set(err, EINVAL, "%s: must be an object", what);
    if (json_only_keys(obj, keys, what, err) < 0 ||
        json_required(json_get_string(obj, "name", what, &d->name, err), "name", what, err) < 0 ||
        json_required(json_get_string(obj, path_key, what, &d->path, err), path_key, what, err) <
            0 ||
        blueprint_check_name(d->name, err) < 0 ||
        (input &&
         json_get_u64(obj, "blockSize", BLOCK_SIZE_MIN, BLOCK_SIZE_MAX, what, &size, err) < 0))
        return -1;
    if (size & (size - 1))
        return error_set(err, EINVAL, "%s: blockSize: must be a power of two", what);
    if (!*d->path || named_find(list, d->name))
        return error_set(err, EINVAL, "%s: %s %s", what, d->name,
                         *d->path ? "is named twice" : "has no file");
    d->block_size = (uint32_t)size;
    list->n++;
    return 0;
}

int named_parse(const char *text, const char *path_key, struct named_list *ret, struct error *err)
{
    memset(ret, 0, sizeof(*ret));
    ret->doc = json_parse(text, strlen(text), "--devices", err);
    if (!ret->doc)
        return -1;
    if (!json_object_is_type(ret->doc, json_type_array))
        return error_set(err, EINVAL, "--devices: must be an array");
    size_t n = json_object_array_length(ret->doc);
    if (n < 1 || n > BLUEPRINT_DEVICES_MAX)
        return error_set(err, EINVAL, "--devices: %zu devices, must be 1 to %d", n,
                         BLUEPRINT_DEVICES_MAX);
    for (size_t i = 0; i < n; i++) {
        char what[40];
        (void)snprintf(what, sizeof(what), "--devices[%zu]", i);
        if (parse_one(json_object_array_get_idx(ret->doc, i), path_key, what, ret, err) < 0)
            return -1;
    }
    return 0;
}

void named_clear(struct named_list *list)
{
    if (list->doc)
        (void)json_object_put(list->doc);
    memset(list, 0, sizeof(*list));
}
