/* SPDX-License-Identifier: Apache-2.0 */
/* ring.h - the device's side of a split virtqueue (virtio 1.2, section 2.7)
 *
 * Theory of operation: everything in a ring is written by a guest that may be hostile, so each
 * number is copied once and checked then. A guest that breaks a rule of the ring's structure (an
 * index that runs ahead of the ring, a descriptor outside of the table, a chain that loops, an
 * address outside of its memory) gets an error from ring_next(); the ring is of no further use.
 *
 * Work goes in batches: ring_next() reads the available entries and the whole descriptor table at
 * once and then hands out chain by chain; ring_push() collects used entries, and ring_flush()
 * writes them and then the index.
 *
 * Torn numbers (memory.h): avail.idx is read until two reads agree. used.idx is written together
 * with flags and the first used entry, which are the device's as well, as one aligned word of 8
 * bytes, which the kernel copies as one. The thresholds for notifications may be torn without harm:
 * either side writes its threshold before it looks at the index again, so who read a half-written
 * threshold is seen by that look.
 */
#ifndef RUNTIME_VSOCK_RING_H
#define RUNTIME_VSOCK_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "runtime/base/error.h"
#include "runtime/vsock/memory.h"

#define RING_SIZE_MAX 1024 /* QEMU's VIRTQUEUE_MAX_SIZE */
#define RING_PIECES_MAX 96 /* memory ranges of one chain; Linux uses up to 19 */

#define RING_DESC_SIZE 16
#define RING_DESC_NEXT 1u
#define RING_DESC_WRITE 2u
#define RING_DESC_INDIRECT 4u

struct ring_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct ring {
    uint32_t num;               /* entries; 0 = not set up */
    uint64_t desc, avail, used; /* addresses in the VMM */
    uint16_t last_avail;        /* next available entry to take */
    uint16_t used_idx;          /* next used entry to write, those not flushed included */
    bool event_idx, indirect;   /* features the guest has acknowledged */
    /* What is private to ring.c */
    uint16_t seen_avail;     /* entries below it have been read into heads[] */
    uint16_t flushed;        /* used entries below it have been written */
    bool quiet;              /* the guest has been asked not to notify */
    uint16_t *heads;         /* num entries */
    struct ring_desc *table; /* num entries */
    uint8_t *raw;            /* scratch: a table of RING_SIZE_MAX descriptors */
    uint8_t *used_entries;   /* num entries of 8 bytes, as in memory */
};

/* One request of the guest: ranges the device may read, then ranges it may write. */
struct ring_chain {
    uint16_t head;
    size_t n_out, n_in;
    size_t out_len, in_len;
    struct iovec out[RING_PIECES_MAX], in[RING_PIECES_MAX];
};

/* Number of entries of a ring that is stopped; its other fields stay. */
int ring_set_num(struct ring *r, uint32_t num, struct error *err);
int ring_set_addr(struct ring *r, uint64_t desc, uint64_t avail, uint64_t used, struct error *err);

/* Before the first ring_next() after a start: takes up at last_avail and at the used index that
 * stands in memory. */
int ring_start(struct ring *r, const struct memory *m, bool event_idx, bool indirect,
               struct error *err);

/* Takes the next request. Returns 1, 0 when there is none, or -1 when the ring is broken. */
int ring_next(struct ring *r, const struct memory *m, struct ring_chain *ret_chain,
              struct error *err);

/* Gives back the request that ring_next() handed out last; it comes again. */
void ring_unget(struct ring *r);

/* The request is done; `len` bytes were written into its writable ranges. Visible after
 * ring_flush(). */
void ring_push(struct ring *r, uint16_t head, uint32_t len);

/* Used entries that ring_flush() would write. */
uint16_t ring_unflushed(const struct ring *r);

/* Writes what was pushed. *ret_notify: the guest wants an interrupt for it. Returns 0 or -1. */
int ring_flush(struct ring *r, const struct memory *m, bool *ret_notify, struct error *err);

/* Asks the guest to notify of new requests, or (a hint) not to. After asking for notifications the
 * caller must look with ring_next() once more. */
int ring_want_kick(struct ring *r, const struct memory *m, bool want, struct error *err);

void ring_destroy(struct ring *r); /* a zeroed struct is fine */

#endif
