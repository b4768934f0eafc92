/* SPDX-License-Identifier: Apache-2.0 */
/* queues.h - runs the two rings of a vsock device against its streams
 *
 * Between ring.h and device.h, and like both without I/O of its own: packets are taken off the
 * transmit ring and given to the device, the device's packets go into buffers of the receive ring.
 * A device that is full stops the first, a guest that gives no buffers the second; either goes on
 * when the other end moves. One thread at a time.
 */
#ifndef RUNTIME_VSOCK_QUEUES_H
#define RUNTIME_VSOCK_QUEUES_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/error.h"
#include "runtime/vsock/device.h"
#include "runtime/vsock/memory.h"
#include "runtime/vsock/ring.h"

#define QUEUES_RX 0 /* to the guest; the numbers are virtio's */
#define QUEUES_TX 1
#define QUEUES 2
#define QUEUES_BATCH 512 /* packets that one queues_pump() moves, about */

struct queues {
    struct device *device; /* the owner's, as are the next three */
    struct memory memory;
    void (*notify)(void *opaque, unsigned ring); /* the guest wants an interrupt */
    void *opaque;
    struct ring rings[QUEUES];
    bool tx_work;     /* the guest may have put something into its transmit ring */
    bool rx_starving; /* packets wait for buffers of the guest; a kick will tell */
    uint64_t due;     /* when queues_pump() must be called again; UINT64_MAX = need not */
    uint8_t *scratch; /* one packet */
};

/* Takes up both rings where they stand. Returns 0. */
int queues_start(struct queues *q, bool event_idx, bool indirect, struct error *err);

/* The guest has kicked a ring. Returns 0, or -1 when the ring is broken. */
int queues_kick(struct queues *q, unsigned ring, struct error *err);

/* Moves packets both ways. *ret_more: there is more that could move now. Returns 0, or -1 when the
 * guest broke a ring: the device must be reset and the rings not be used before queues_start(). */
int queues_pump(struct queues *q, uint64_t now, bool *ret_more, struct error *err);

/* Before the rings of a guest that broke none are stopped: writes what was held back. Returns 0. */
int queues_halt(struct queues *q, struct error *err);

void queues_destroy(struct queues *q); /* rings, memory table and scratch, not the device */

#endif
