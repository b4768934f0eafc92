/* SPDX-License-Identifier: Apache-2.0 */
/* owners.h - a folder unpacked without root: which owners are meant; inside of oci/tree
 *
 * Such a folder says so itself: by our sidecar (sidecar.h), or by umoci's umoci.json. Both files
 * are the unpackers' bookkeeping and do not become part of the tree, nor do umoci's sha256_*.mtree.
 */
#ifndef OCI_TREE_OWNERS_H
#define OCI_TREE_OWNERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/error.h"

struct id_range {
    uint64_t inside, host, size;
};

struct id_map {
    struct id_range *ranges;
    size_t n;
};

/* Zero it first; owners_destroy() afterwards. */
struct owners {
    struct id_map uids, gids;
    bool umoci; /* umoci's bookkeeping is there */
};

/* Reads what the folder open at rootfd says of its owners; nothing there is no error. *ret_sidecar
 * gets the open sidecar, which the caller closes, or stays as it is without one. Errors: EBADMSG
 * and those of reading. Returns 0. */
int owners_read(struct owners *o, int rootfd, int *ret_sidecar, struct error *err);

/* The id inside that is meant by one on disk; itself where nothing maps it. */
uint32_t owners_map(const struct id_map *map, uint32_t id);

/* Whether `name` at the top of the folder (open at dirfd) is an unpacker's bookkeeping. */
bool owners_is_bookkeeping(const struct owners *o, int dirfd, const char *name);

void owners_destroy(struct owners *o);

#endif
