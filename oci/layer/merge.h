/* SPDX-License-Identifier: Apache-2.0 */
/* merge.h - one tar entry onto the tree; inside of oci/layer */
#ifndef OCI_LAYER_MERGE_H
#define OCI_LAYER_MERGE_H

#include "oci/layer/store.h"
#include "oci/layer/tar.h"

/* Applies one entry of layer store->layer. base: where the layer's stream begins in the spool.
 * Returns 0. */
int merge_entry(struct layer_store *store, const struct tar_entry *entry, uint64_t base,
                struct error *err);

#endif
