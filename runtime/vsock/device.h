/* SPDX-License-Identifier: Apache-2.0 */
/* device.h - the streams of a vsock device: packets on one side, byte streams on the other
 *
 * Theory of operation: this is the state machine of virtio 1.2, section 5.10, for stream sockets.
 * It does no I/O: packets from the guest come in through device_receive(), packets for it are asked
 * for with device_next(), and the host's ends of the streams are reached through struct
 * device_host. So the whole of it runs in tests against made-up guests and hosts. One thread at a
 * time.
 *
 *     guest  ---- device_receive() ---->  +--------+  ---- write, shutdown, close ---->  host's
 *            <--- device_next() --------  | conns  |  <--- read, device_ready() -------  streams
 *                                         +--------+
 *
 * Memory is bounded: bytes from the guest that the host does not take yet are kept up to the credit
 * that the stream was given (DEVICE_BUFFER_BIG for as long as there are few streams, else
 * DEVICE_BUFFER_SMALL), and a guest that sends more than its credit loses the stream; bytes for the
 * guest stay in the host's socket until the guest has credit and a buffer for them. Answers to
 * packets of unknown streams queue up to DEVICE_RESETS_MAX; then device_receive() must wait
 * (device_full()).
 */
#ifndef RUNTIME_VSOCK_DEVICE_H
#define RUNTIME_VSOCK_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/vsock/packet.h"

#define DEVICE_BUFFER_BIG (256u << 10)
#define DEVICE_BUFFER_SMALL (32u << 10)
#define DEVICE_BIG_STREAMS 64 /* streams that may have the big buffer */
#define DEVICE_RESETS_MAX 1024
#define DEVICE_PAYLOAD_MAX (64u << 10) /* of one packet; Linux sends and takes no more */
#define DEVICE_CONNECT_RETRY_NS (5 * UINT64_C(1000000))
#define DEVICE_CONNECT_TIMEOUT_NS (2 * UINT64_C(1000000000)) /* a Linux guest waits no longer */
#define DEVICE_CLOSE_TIMEOUT_NS (8 * UINT64_C(1000000000))   /* as Linux waits for the answer */

struct device;
struct conn;

/* The host's ends. `stream` is what connect or device_open() brought. Calls come from within the
 * device's functions and do not call back into them. */
struct device_host {
    /* The guest connects to a port. Returns 0 with *ret_stream, or a negative errno value; -EAGAIN:
     * not yet, to be asked again. */
    int (*connect)(void *self, uint32_t port, struct conn *conn, void **ret_stream);
    /* The guest has taken a connection of the host's: device_open() succeeded. */
    void (*established)(void *self, void *stream, uint32_t host_port);
    /* As read(2) and send(2) do without blocking: a count, 0 at the end (read), or -errno. */
    ssize_t (*read)(void *self, void *stream, void *buf, size_t len);
    ssize_t (*write)(void *self, void *stream, const void *buf, size_t len);
    void (*shutdown)(void *self, void *stream, int how); /* as shutdown(2) */
    void (*close)(void *self, void *stream);             /* the stream is not used after it */
};

struct device_counters {
    uint64_t accepted, connected, refused, bytes_to_guest, bytes_from_guest, dropped;
};

/* guest_cid: which the guest has. max: streams at once. first_port: where ports for the host's ends
 * begin (random is best: a stream that a restored guest still knows must not be met again).
 * host, self: outlive the device. Returns NULL on failure. */
struct device *device_new(uint64_t guest_cid, size_t max, uint32_t first_port,
                          const struct device_host *host, void *self, const struct log *log,
                          struct error *err);
void device_free(struct device *d); /* closes all streams. NULL is fine */

/* Ends all streams towards the guest, in silence: it has gone or is told by other means. What it
 * sent before still goes to the host, as after a close by the guest. */
void device_reset(struct device *d);

/* Closes all streams at once. */
void device_drop(struct device *d);

/* A packet of the guest, header and payload, of len bytes in all. Malformed ones are dropped,
 * counted and logged at debug level. now: a monotonic time in ns, as in all functions here. */
void device_receive(struct device *d, const uint8_t *data, size_t len, uint64_t now);

/* True when device_receive() must not be called before device_next() has taken something. */
bool device_full(const struct device *d);

/* True when device_next() may have a packet. */
bool device_pending(const struct device *d);

/* Makes the next packet for the guest in buf, of which there are `size` bytes, more than the
 * header's. Returns its length, or 0 when there is none. */
size_t device_next(struct device *d, uint8_t *buf, size_t size, uint64_t now);

/* The host opens a stream to a port of the guest. Returns the connection, owned by the device and
 * valid until the stream is closed, or NULL when there are too many. */
struct conn *device_open(struct device *d, uint32_t port, void *stream, uint64_t timeout_ns,
                         uint64_t now, struct error *err);

/* The stream may be read or written (again), or (hup) its other end is closed for good. */
void device_ready(struct device *d, struct conn *c, bool readable, bool writable, bool hup,
                  uint64_t now);

/* Does what time asks for. Returns when it wants to be called next, UINT64_MAX = need not. */
uint64_t device_tick(struct device *d, uint64_t now);

size_t device_streams(const struct device *d);
const struct device_counters *device_count(const struct device *d);

#endif
