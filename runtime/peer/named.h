/* SPDX-License-Identifier: Apache-2.0 */
/* named.h - --devices of drafter-registry and drafter-terminator: names and files
 *
 *     [{"name": "memory", "input": "out/package/memory.bin", "blockSize": 65536}, ...]   registry
 *     [{"name": "memory", "output": "out/package/memory.bin"}, ...]                      terminator
 */
#ifndef RUNTIME_PEER_NAMED_H
#define RUNTIME_PEER_NAMED_H

#include "blueprint/blueprint.h"
#include "runtime/base/json.h"

struct named {
    const char *name, *path; /* of the document */
    uint32_t block_size;     /* bytes; the default where nothing is said, or for an output */
};

struct named_list {
    struct json_object *doc; /* owned: named_clear() */
    struct named items[BLUEPRINT_DEVICES_MAX];
    size_t n;
};

/* path_key: "input" (blockSize may be there too) or "output". Names are checked, and unique.
 * Returns 0; ret is to be cleared in every case. */
int named_parse(const char *text, const char *path_key, struct named_list *ret, struct error *err);
void named_clear(struct named_list *list);

const struct named *named_find(const struct named_list *list, const char *name); /* NULL = none */

#define cleanup_named CLEANUP(named_clear)

#endif
