/* SPDX-License-Identifier: Apache-2.0 */
/* conn.h - one stream of a vsock device: its state and what moves through it; for device.c only
 *
 * A connection is found by its two ports. What it has to tell the guest is a set of bits
 * (`pending`); connections with any that can be told now stand in the device's ready queue.
 */
#ifndef RUNTIME_VSOCK_CONN_H
#define RUNTIME_VSOCK_CONN_H

#include "runtime/vsock/device.h"

#define DEVICE_TABLE 1024 /* hash chains */

enum conn_state {
    CONN_CONNECTING, /* the host's end is not there yet; in the timed list */
    CONN_REQUESTED,  /* the guest has not answered yet; in the timed list */
    CONN_OPEN,
    CONN_CLOSING, /* no stream any more; the guest's RST is awaited; in the timed list */
    CONN_LINGER,  /* unknown to the guest, not in the table: what is buffered goes to the host */
};

enum {
    PENDING_RST = 1u << 0, /* the last word: the connection goes with it */
    PENDING_REQUEST = 1u << 1,
    PENDING_RESPONSE = 1u << 2,
    PENDING_SHUTDOWN = 1u << 3,
    PENDING_CREDIT = 1u << 4,     /* tell ours */
    PENDING_ASK_CREDIT = 1u << 5, /* ask for theirs */
    PENDING_DATA = 1u << 6,       /* the stream can be read */
};

/* Doubly linked ring; a link that points to itself is in no list. */
struct link {
    struct link *next, *prev;
};

struct conn {
    uint32_t host_port, guest_port;
    enum conn_state state;
    void *stream; /* NULL in CONNECTING and CLOSING */
    struct conn *hash_next;
    struct link all, ready, timed;
    uint64_t deadline, retry; /* timed: when it ends; when connect is tried again */
    unsigned pending;

    /* guest to host */
    uint32_t buf_alloc; /* what we told the guest */
    uint32_t received;  /* bytes taken from the guest */
    uint32_t forwarded; /* bytes of them handed to the host; the guest's view of it is `told` */
    uint32_t told;
    uint8_t *buf; /* buf_alloc bytes once needed: a ring of buf_len bytes from buf_start */
    uint32_t buf_start, buf_len;
    bool guest_done; /* the guest sends no more */
    bool write_shut; /* the host's end has been told */
    bool host_deaf;  /* the host takes no more: what comes is thrown away */
    bool writable;

    /* host to guest */
    uint32_t sent, peer_buf_alloc, peer_fwd_cnt;
    bool host_done;  /* the host sends no more */
    bool guest_deaf; /* the guest takes no more */
    bool host_hup;   /* nobody is at the host's end */
    bool asked;      /* for credit, since the last news of it */
};

struct reset {
    uint32_t host_port, guest_port;
    uint16_t type;
};

struct device {
    uint64_t cid;
    size_t max, n;
    uint32_t next_port;
    const struct device_host *host;
    void *self;
    const struct log *log;
    struct conn *table[DEVICE_TABLE];
    struct link all, ready, timed;
    struct reset resets[DEVICE_RESETS_MAX];
    size_t resets_start, n_resets;
    struct device_counters count;
};

#define OF(l, member) ((struct conn *)((char *)(l)-offsetof(struct conn, member)))

static inline void link_init(struct link *l)
{
    l->next = l->prev = l;
}

static inline bool link_in(const struct link *l)
{
    return l->next != l;
}

static inline void link_remove(struct link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    link_init(l);
}

static inline void link_append(struct link *list, struct link *l)
{
    if (link_in(l))
        return;
    l->prev = list->prev;
    l->next = list;
    list->prev->next = l;
    list->prev = l;
}

/* NULL when there is none. Those in CONN_LINGER are not found. */
struct conn *conn_find(const struct device *d, uint32_t host_port, uint32_t guest_port);

/* In the table and counted; NULL when there are too many, or no memory. */
struct conn *conn_new(struct device *d, uint32_t host_port, uint32_t guest_port,
                      enum conn_state state);

/* Closes its stream, too. */
void conn_free(struct device *d, struct conn *c);

/* How many bytes the guest can take now. */
uint32_t conn_credit(const struct conn *c);

/* What of `pending` can be told now. */
unsigned conn_tellable(const struct conn *c);

/* Puts it into the ready queue or takes it out, after a change to what conn_tellable() looks at. */
void conn_update(struct device *d, struct conn *c);

/* Adds to `pending`. */
void conn_tell(struct device *d, struct conn *c, unsigned what);

/* Queues a reset for ports that have no connection (any more). */
void device_push_reset(struct device *d, uint32_t host_port, uint32_t guest_port, uint16_t type);

/* The connection may be gone after each of these. */

/* The guest hears RST and the connection goes; no other packet of it is owed any more. */
void conn_reset(struct device *d, struct conn *c);

/* The guest's side of the connection is over, the host may still have to take bytes. */
void conn_linger(struct device *d, struct conn *c);

/* Nothing will pass to or from the host: tells the guest, and forgets the stream. */
void conn_host_gone(struct device *d, struct conn *c, uint64_t now);

/* Hands what is buffered to the host, as far as it takes it. */
void conn_drain(struct device *d, struct conn *c, uint64_t now);

/* Payload of a stream that is open: to the host, else into the buffer. */
void conn_take(struct device *d, struct conn *c, const uint8_t *data, uint32_t len, uint64_t now);

#endif
