// SPDX-License-Identifier: Apache-2.0
/* trailer.c - drafter.json, the last entry of an archive, and the names in one */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "blueprint/pack/private.h"
#include "runtime/base/json.h"
#include "runtime/base/parse.h"

#define FORMAT_NAME "drafter-archive"

int pack_check_name(const char *name, struct error *err)
{
    if (!strcmp(name, BLUEPRINT_MANIFEST))
        return 0;
    if (!strcmp(name, PACK_TRAILER))
        return error_set(err, EINVAL, "name \"%s\": is the archive's own", name);
    return blueprint_check_file(name, err);
}

bool pack_private(const char *name)
{
    enum blueprint_role role = blueprint_role_of(name);

    return role == BLUEPRINT_MEMORY || role == BLUEPRINT_STATE;
}

const char *pack_file_of(const char *name, char buf[BLUEPRINT_FILE_MAX + 1])
{
    if (blueprint_check_name(name, NULL) == 0)
        return blueprint_file_name(name, buf);
    (void)snprintf(buf, BLUEPRINT_FILE_MAX + 1, "%s", name);
    return buf;
}

char *pack_trailer_format(const struct pack_item *items, size_t n, struct error *err)
{
    cleanup_json struct json_object *doc = json_object_new_object();
    struct json_object *list = json_object_new_array();

    if (json_add(doc, "format", json_object_new_string(FORMAT_NAME), err) < 0 ||
        json_add(doc, "version", json_object_new_uint64(PACK_VERSION), err) < 0) {
        (void)json_object_put(list);
        return NULL;
    }
    if (json_add(doc, "entries", list, err) < 0)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        char hex[SHA256_HEX_SIZE];
        struct json_object *obj = json_object_new_object();
        if (json_append(list, obj, err) < 0)
            return NULL;
        digest_hex(items[i].sum, hex);
        if (json_add(obj, "name", json_object_new_string(items[i].name), err) < 0 ||
            json_add(obj, "file", json_object_new_string(items[i].file), err) < 0 ||
            json_add(obj, "size", json_object_new_uint64(items[i].size), err) < 0 ||
            json_add(obj, "chunks", json_object_new_string(hex), err) < 0)
            return NULL;
    }
    char *text = json_format(doc);
    if (!text)
        (void)error_oom(err);
    return text;
}

static struct pack_item *find(struct pack_listing *l, const char *name)
{
    for (size_t i = 0; i < l->n_items; i++)
        if (!strcmp(l->items[i].name, name))
            return &l->items[i];
    return NULL;
}

static int check_entry(struct json_object *obj, struct pack_listing *l, bool *seen,
                       struct error *err)
{
    const char *name, *file, *hex;
    uint64_t size;
    uint8_t sum[SHA256_SIZE];

    if (json_required(json_get_string(obj, "name", PACK_TRAILER, &name, err), "name", PACK_TRAILER,
                      err) < 0)
        return -1;
    if (json_required(json_get_string(obj, "file", name, &file, err), "file", name, err) < 0 ||
        json_required(json_get_u64(obj, "size", 0, BLUEPRINT_SIZE_MAX, name, &size, err), "size",
                      name, err) < 0 ||
        json_required(json_get_string(obj, "chunks", name, &hex, err), "chunks", name, err) < 0)
        return -1;
    if (parse_hex(hex, strlen(hex), sum, SHA256_SIZE) < 0)
        return error_set(err, EBADMSG, "%s: \"chunks\" is no SHA-256", name);
    if (pack_check_name(file, err) < 0)
        return error_wrap(err, "entry %s", name);
    struct pack_item *item = find(l, name);
    if (!item)
        return error_set(err, EBADMSG, "missing device: %s: " PACK_TRAILER " names it", name);
    if (seen[item - l->items])
        return error_set(err, EBADMSG, "entry %s: " PACK_TRAILER " names it twice", name);
    seen[item - l->items] = true;
    if (item->size != size)
        return error_set(err, EBADMSG,
                         "entry %s: has %" PRIu64 " bytes, " PACK_TRAILER " says %" PRIu64, name,
                         item->size, size);
    if (item->hashed && memcmp(item->sum, sum, SHA256_SIZE))
        return error_set(err, EBADMSG,
                         "entry %s: is damaged: it has not the digest that " PACK_TRAILER " says",
                         name);
    memcpy(item->sum, sum, SHA256_SIZE);
    (void)snprintf(item->file, sizeof(item->file), "%s", file);
    return 0;
}

int pack_trailer_check(const char *text, size_t len, struct pack_listing *l, struct error *err)
{
    cleanup_json struct json_object *doc = json_parse(text, len, PACK_TRAILER, err);
    bool seen[PACK_ENTRIES_MAX] = {false};
    struct json_object *list;

    if (!doc)
        return -1;
    if (json_check_format(doc, PACK_TRAILER, FORMAT_NAME, PACK_VERSION,
                          "unpack it with the program that made it", err) < 0)
        return -1;
    if (json_required(json_get_array(doc, "entries", PACK_TRAILER, &list, err), "entries",
                      PACK_TRAILER, err) < 0)
        return -1;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *obj = json_object_array_get_idx(list, i);
        if (!json_object_is_type(obj, json_type_object))
            return error_set(err, EBADMSG, PACK_TRAILER ": entries[%zu]: is no object", i);
        if (check_entry(obj, l, seen, err) < 0)
            return -1;
    }
    for (size_t i = 0; i < l->n_items; i++) {
        if (!seen[i])
            return error_set(err, EBADMSG, "entry %s: " PACK_TRAILER " does not name it",
                             l->items[i].name);
        for (size_t j = 0; j < i; j++)
            if (!strcmp(l->items[i].file, l->items[j].file))
                return error_set(err, EBADMSG, "entry %s: its file name %s is also that of %s",
                                 l->items[i].name, l->items[i].file, l->items[j].name);
    }
    l->has_digests = true;
    return 0;
}
