// SPDX-License-Identifier: Apache-2.0
/* owners.c - which owners on disk mean which owners inside
 *
 * Our own sidecar (sidecar.h) says who unpacked: what is theirs on disk is root's inside. umoci's
 * umoci.json has map_options with ranges of user and group ids.
 */
#include "oci/tree/owners.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "oci/tree/sidecar.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"
#include "runtime/base/json.h"

#define UMOCI_META "umoci.json"
#define UMOCI_META_MAX (1u << 20)
#define ID_RANGES_MAX 340 /* as many as a user namespace takes (user_namespaces(7)) */

uint32_t owners_map(const struct id_map *map, uint32_t id)
{
    for (size_t i = 0; i < map->n; i++)
        if (id >= map->ranges[i].host && id - map->ranges[i].host < map->ranges[i].size)
            return (uint32_t)(map->ranges[i].inside + (id - map->ranges[i].host));
    return id;
}

static int add_range(struct id_map *map, uint64_t inside, uint64_t host, uint64_t size,
                     struct error *err)
{
    struct id_range *more = realloc(map->ranges, (map->n + 1) * sizeof(*more));

    if (!more)
        return error_oom(err);
    map->ranges = more;
    map->ranges[map->n++] = (struct id_range){.inside = inside, .host = host, .size = size};
    return 0;
}

static int umoci_ranges(struct json_object *options, const char *key, struct id_map *map,
                        struct error *err)
{
    struct json_object *list = NULL;
    int got = json_get_array(options, key, UMOCI_META ": map_options", &list, err);

    if (got != JSON_OK)
        return got < 0 ? -1 : 0;
    size_t n = json_object_array_length(list);
    if (n > ID_RANGES_MAX)
        return error_set(err, EBADMSG, UMOCI_META ": %s: %zu ranges (at most %d)", key, n,
                         ID_RANGES_MAX);
    for (size_t i = 0; i < n; i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        uint64_t inside = 0, host = 0, size = 0;
        if (!json_object_is_type(o, json_type_object) ||
            json_get_u64(o, "container_id", 0, UINT32_MAX, key, &inside, err) < 0 ||
            json_get_u64(o, "host_id", 0, UINT32_MAX, key, &host, err) < 0 ||
            json_get_u64(o, "size", 0, UINT32_MAX, key, &size, err) < 0)
            return error_wrap(err, UMOCI_META);
        if (inside + size > UINT32_MAX || host + size > UINT32_MAX)
            return error_set(err, EBADMSG, UMOCI_META ": %s: range %zu leaves 32 bits", key, i);
        if (add_range(map, inside, host, size, err) < 0)
            return -1;
    }
    return 0;
}

int owners_read(struct owners *o, int rootfd, int *ret_sidecar, struct error *err)
{
    cleanup_close int fd =
        openat(rootfd, SIDECAR_NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && sidecar_is(fd)) {
        uint32_t uid, gid;
        if (sidecar_owner(fd, SIDECAR_NAME, &uid, &gid, err) < 0 ||
            add_range(&o->uids, 0, uid, 1, err) < 0 || add_range(&o->gids, 0, gid, 1, err) < 0)
            return -1;
        *ret_sidecar = steal_fd(&fd);
        return 0;
    }
    cleanup_close int meta =
        openat(rootfd, UMOCI_META, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (meta < 0)
        return 0;
    size_t len;
    cleanup_free char *text = io_read_fd(meta, UMOCI_META_MAX, UMOCI_META, &len, err);
    if (!text)
        return -1;
    cleanup_json struct json_object *doc = json_parse(text, len, UMOCI_META, err);
    struct json_object *options = NULL;
    if (!doc)
        return -1;
    int got = json_get_object(doc, "map_options", UMOCI_META, &options, err);
    o->umoci = got == JSON_OK;
    if (got < 0)
        return -1;
    if (got == JSON_OK && (umoci_ranges(options, "uid_mappings", &o->uids, err) < 0 ||
                           umoci_ranges(options, "gid_mappings", &o->gids, err) < 0))
        return -1;
    return 0;
}

bool owners_is_bookkeeping(const struct owners *o, int dirfd, const char *name)
{
    if (strcmp(name, SIDECAR_NAME) == 0) {
        cleanup_close int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        return fd >= 0 && sidecar_is(fd);
    }
    if (strcmp(name, UMOCI_META) == 0)
        return o->umoci;
    size_t len = strlen(name);
    return strncmp(name, "sha256_", 7) == 0 && len == 7 + 64 + 6 &&
           strcmp(name + 7 + 64, ".mtree") == 0 && o->umoci;
}

void owners_destroy(struct owners *o)
{
    free(o->uids.ranges);
    free(o->gids.ranges);
    *o = (struct owners){0};
}
