/* SPDX-License-Identifier: Apache-2.0 */
/* store.h - the spool and the running totals; inside of oci/layer */
#ifndef OCI_LAYER_STORE_H
#define OCI_LAYER_STORE_H

#include "oci/layer/layer.h"

struct layer_store {
    struct tree *tree;
    const struct context *ctx;
    struct layer_limits limits;
    int spool;
    uint64_t spool_size;               /* bytes in it, holes at its end included */
    uint64_t bytes, entries, metadata; /* used of the limits so far */
    uint32_t layer;                    /* the one being applied; counts from 1 */
};

#endif
