/* SPDX-License-Identifier: Apache-2.0 */
/* chunks.h - a file's content passing through in pieces of 1 MiB, hashed (and written) by threads
 *
 * Theory of operation: a ring of buffers. The one user takes the next buffer, fills it, and hands
 * it to the pool, which computes its SHA-256 and, when the file is to be written, writes the pages
 * that are not zero. A buffer comes round again when its job is done; then its sum goes into the
 * outer hash, so sums are taken in order and memory is bounded by the ring.
 */
#ifndef BLUEPRINT_PACK_CHUNKS_H
#define BLUEPRINT_PACK_CHUNKS_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/digest.h"
#include "runtime/base/error.h"

struct chunks;

/* threads: of the pool, 0 = one per processor. The caller owns the result. NULL on failure. */
struct chunks *chunks_new(unsigned threads, struct error *err);
void chunks_free(struct chunks *c); /* waits for running jobs; NULL is fine */

/* Starts a file. fd: where the content is written (at its offset; holes are left out), -1 =
 * nowhere. fd and what (names it in errors) stay the caller's until chunks_end(). */
void chunks_begin(struct chunks *c, int fd, const char *what);

/* The next buffer, of PACK_CHUNK bytes, content undefined. NULL when a job failed. */
uint8_t *chunks_get(struct chunks *c, struct error *err);

/* Hands the buffer over that chunks_get() gave; only the last one of a file has len < PACK_CHUNK.
 * Until the next chunks_get() its content may still be read. Returns 0. */
int chunks_put(struct chunks *c, size_t len, struct error *err);

/* A piece of len zeros, without a buffer. Returns 0. */
int chunks_put_zero(struct chunks *c, size_t len, struct error *err);

/* Waits for all jobs of the file; *ret_sum is the hash of its sums. Returns 0. */
int chunks_end(struct chunks *c, uint8_t ret_sum[SHA256_SIZE], struct error *err);

DEFINE_CLEANUP(cleanup_chunks_p, struct chunks *, chunks_free)
#define cleanup_chunks CLEANUP(cleanup_chunks_p)

#endif
