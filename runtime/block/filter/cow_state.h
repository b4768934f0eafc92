/* SPDX-License-Identifier: Apache-2.0 */
/* cow_state.h - the file that says which blocks live in an overlay; for cow.c, tests and fuzzers
 *
 * Format, version 1, integers little-endian, everything in units of 4096 bytes:
 *
 *     0      header       1      copy of the header
 *     2 + 2i page i, slot 0      3 + 2i page i, slot 1
 *
 *     header:  0 magic "DRFTCOW\n"   8 version u32   12 compatible features u32
 *              16 incompatible features u32   20 block size u32   24 device size u64
 *              32 generation u64   40 blocks in the overlay u64   48 id, 16 random bytes
 *              64 base: size u64, mtime (ns) i64, inode u64, has digest u64, SHA-256
 *              128 SHA-256 over the checksums of all pages   160 zeros   4064 SHA-256 of what is
 * before page:    0 generation u64   8 page number u64   16 a bit per block, 32384 of them 4064
 * SHA-256 of what is before.   A page of zeros: no block, checksum zeros.
 *
 * Crash rule. A commit writes the pages that changed into the slots that are not in use, with a new
 * generation; syncs; writes the header, which names the new set of pages by their checksums: that
 * is the instant of the commit; syncs; and writes the header's copy. Whatever was torn before that
 * instant is not looked at, and whatever is damaged after it does not match and is refused.
 */
#ifndef RUNTIME_BLOCK_FILTER_COW_STATE_H
#define RUNTIME_BLOCK_FILTER_COW_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/block/block.h"

#define COW_STATE_PAGE 4096u
#define COW_STATE_BITS 32384u                    /* of one page */
#define COW_STATE_BLOCKS_MAX (UINT64_C(1) << 28) /* blocks a device may have */

struct cow_header {
    uint32_t block_size; /* bytes, a power of two */
    uint64_t size;       /* of the device, bytes */
    uint64_t generation;
    uint64_t count; /* blocks in the overlay */
    uint8_t id[16];
    struct block_identity base;
    uint8_t pages[SHA256_SIZE];
};

/* Bytes to a header and back; no I/O. What a header says is checked against every limit. */
int cow_header_decode(const uint8_t buf[COW_STATE_PAGE], struct cow_header *ret, struct error *err);
int cow_header_encode(const struct cow_header *h, uint8_t ret_buf[COW_STATE_PAGE],
                      struct error *err);

struct cow_state;

/* Reads the state from fd, or, when there is none yet (empty, or no header was written), begins one
 * with the geometry and identity in `want`. A state of another device, base or format, or a torn
 * or truncated one, is refused by name. fd stays the caller's and must outlive the state. what: the
 * file's name. readonly: a missing state is an error. *ret_fresh (may be NULL): it was begun now.
 * The caller owns the result: cow_state_free(). */
struct cow_state *cow_state_open(int fd, const char *what, const struct cow_header *want,
                                 bool readonly, bool *ret_fresh, struct error *err);
void cow_state_free(struct cow_state *s);

/* True when the block lives in the overlay. Any thread, no lock. */
bool cow_state_has(const struct cow_state *s, uint64_t block);

/* First block from `from` on, and before `end`, whose answer is not `has`; else end. */
uint64_t cow_state_run(const struct cow_state *s, uint64_t from, uint64_t end, bool has);

/* Says that the block's data is in the overlay (written, not necessarily synced). In memory, until
 * the next commit. Any thread. */
void cow_state_set(struct cow_state *s, uint64_t block);

/* Makes what was set before the call, and the overlay's data, durable. overlay_fd is synced first.
 * One at a time (the caller's lock). After a failure the state is broken: what is on disk is
 * the last good commit, and every later commit fails too, since the kernel may have dropped
 * pages it could not write. */
int cow_state_commit(struct cow_state *s, int overlay_fd, const char *overlay, struct error *err);

/* The header as last committed. */
const struct cow_header *cow_state_header(const struct cow_state *s);

/* Blocks in the overlay, those not committed yet included. */
uint64_t cow_state_count(const struct cow_state *s);

#endif
