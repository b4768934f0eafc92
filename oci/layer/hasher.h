/* SPDX-License-Identifier: Apache-2.0 */
/* hasher.h - SHA-256 in a thread of its own; inside of oci/layer
 *
 * The bytes stay the caller's: it may change them once hasher_wait() says that no more than so many
 * later pieces are still to be hashed.
 */
#ifndef OCI_LAYER_HASHER_H
#define OCI_LAYER_HASHER_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/digest.h"
#include "runtime/base/error.h"

#define HASHER_DEPTH 4 /* pieces that may wait */

struct hasher;

/* The caller owns the result: hasher_free(). NULL on failure. */
struct hasher *hasher_new(struct error *err);
void hasher_free(struct hasher *h); /* NULL is fine; drops what waits */

/* Queues a piece; waits while HASHER_DEPTH are queued. */
void hasher_add(struct hasher *h, const void *data, size_t len);
/* Waits until at most `pieces` are left. */
void hasher_wait(struct hasher *h, unsigned pieces);
/* Waits for all and gives their hash. Returns 0. */
int hasher_final(struct hasher *h, uint8_t ret_sum[SHA256_SIZE], struct error *err);

DEFINE_CLEANUP(cleanup_hasher_p, struct hasher *, hasher_free)
#define cleanup_hasher CLEANUP(cleanup_hasher_p)

#endif
