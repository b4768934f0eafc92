// SPDX-License-Identifier: Apache-2.0
/* queues.c - runs the two rings of a vsock device against its streams
 *
 * Used entries of the transmit ring are held back for a while: all a guest does with them is free
 * its packets, and each interrupt costs it more than that. They are written when there are many,
 * when the oldest is HOLD_NS old, and when the device stops.
 */
#include "runtime/vsock/queues.h"

#include <errno.h>
#include <stdlib.h>

#define HOLD_NS (10 * UINT64_C(1000000))
#define HOLD_SHARE                                                                                 \
    8                    /* of the ring: so many used entries are many; a guest without indirect   \
                          * descriptors has up to half as many packets as entries in it */
#define ROUND_PACKETS 64 /* of one ring, before the other has its turn */
#define SCRATCH (PACKET_HEADER_SIZE + DEVICE_PAYLOAD_MAX)

static int flush(struct queues *q, unsigned i, struct error *err)
{
    bool notify = false;

    if (ring_flush(&q->rings[i], &q->memory, &notify, err) < 0)
        return -1;
    if (notify && q->notify)
        q->notify(q->opaque, i);
    if (i == QUEUES_TX)
        q->due = UINT64_MAX;
    return 0;
}

static int flush_tx(struct queues *q, uint64_t now, struct error *err)
{
    uint32_t n = ring_unflushed(&q->rings[QUEUES_TX]);

    if (n == 0)
        return 0;
    if (n >= q->rings[QUEUES_TX].num / HOLD_SHARE || now >= q->due)
        return flush(q, QUEUES_TX, err);
    if (q->due == UINT64_MAX)
        q->due = now + HOLD_NS;
    return 0;
}

/* Packets of the guest. Returns how many, or -1. */
static int pump_tx(struct queues *q, uint64_t now, struct error *err)
{
    struct ring *r = &q->rings[QUEUES_TX];
    struct ring_chain chain;
    int n = 0, rc = 1;

    if (!q->tx_work || device_full(q->device))
        return 0;
    if (ring_want_kick(r, &q->memory, false, err) < 0)
        return -1;
    while (n < ROUND_PACKETS && !device_full(q->device)) {
        size_t len;

        rc = ring_next(r, &q->memory, &chain, err);
        if (rc == 0) {
            /* Ask to be told, then look once more. */
            if (ring_want_kick(r, &q->memory, true, err) < 0)
                return -1;
            rc = ring_next(r, &q->memory, &chain, err);
            if (rc == 0) {
                q->tx_work = false;
                break;
            }
        }
        if (rc < 0)
            return -1;
        /* More than a packet may hold makes device_receive() see one that is cut short. */
        len = chain.out_len < SCRATCH ? chain.out_len : SCRATCH;
        if (memory_read(&q->memory, q->scratch, len, chain.out, chain.n_out, err) < 0)
            return -1;
        device_receive(q->device, q->scratch, len, now);
        ring_push(r, chain.head, 0);
        n++;
    }
    return n;
}

/* Packets for the guest. Returns how many, or -1. */
static int pump_rx(struct queues *q, uint64_t now, struct error *err)
{
    struct ring *r = &q->rings[QUEUES_RX];
    struct ring_chain chain;
    int n = 0;

    while (n < ROUND_PACKETS && !q->rx_starving && device_pending(q->device)) {
        int rc = ring_next(r, &q->memory, &chain, err);
        size_t len;

        if (rc == 0) {
            if (ring_want_kick(r, &q->memory, true, err) < 0)
                return -1;
            rc = ring_next(r, &q->memory, &chain, err);
            if (rc == 0) {
                q->rx_starving = true;
                break;
            }
            if (rc > 0 && ring_want_kick(r, &q->memory, false, err) < 0)
                return -1;
        }
        if (rc < 0)
            return -1;
        if (chain.in_len <= PACKET_HEADER_SIZE)
            return error_set(err, EBADMSG, "a buffer of %zu bytes holds no packet", chain.in_len);
        len = chain.in_len < SCRATCH ? chain.in_len : SCRATCH;
        len = device_next(q->device, q->scratch, len, now);
        if (len == 0) {
            ring_unget(r);
            break;
        }
        if (memory_write(&q->memory, q->scratch, len, chain.in, chain.n_in, err) < 0)
            return -1;
        ring_push(r, chain.head, (uint32_t)len);
        n++;
    }
    return flush(q, QUEUES_RX, err) < 0 ? -1 : n;
}

int queues_start(struct queues *q, bool event_idx, bool indirect, struct error *err)
{
    if (!q->scratch)
        q->scratch = malloc(SCRATCH);
    if (!q->scratch)
        return error_oom(err);
    for (unsigned i = 0; i < QUEUES; i++)
        if (ring_start(&q->rings[i], &q->memory, event_idx, indirect, err) < 0)
            return -1;
    q->tx_work = true;
    q->rx_starving = false;
    q->due = UINT64_MAX;
    return ring_want_kick(&q->rings[QUEUES_RX], &q->memory, false, err);
}

int queues_kick(struct queues *q, unsigned ring, struct error *err)
{
    if (ring == QUEUES_TX)
        q->tx_work = true;
    if (ring != QUEUES_RX || !q->rx_starving)
        return 0;
    q->rx_starving = false;
    return ring_want_kick(&q->rings[QUEUES_RX], &q->memory, false, err);
}

int queues_pump(struct queues *q, uint64_t now, bool *ret_more, struct error *err)
{
    int done = 0, tx, rx;

    do {
        tx = pump_tx(q, now, err);
        if (tx < 0)
            return error_wrap(err, "transmit");
        rx = pump_rx(q, now, err);
        if (rx < 0)
            return error_wrap(err, "receive");
        if (flush_tx(q, now, err) < 0)
            return error_wrap(err, "transmit");
        done += tx + rx;
    } while (tx + rx > 0 && done < QUEUES_BATCH);
    *ret_more = tx + rx > 0;
    return 0;
}

int queues_halt(struct queues *q, struct error *err)
{
    return flush(q, QUEUES_TX, err);
}

void queues_destroy(struct queues *q)
{
    for (unsigned i = 0; i < QUEUES; i++)
        ring_destroy(&q->rings[i]);
    memory_clear(&q->memory);
    free(q->scratch);
    q->scratch = NULL;
}
