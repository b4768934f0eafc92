/* SPDX-License-Identifier: Apache-2.0 */
/* vsock_guest.h - a guest's memory and its end of the rings, for tests of runtime/vsock
 *
 * Guest memory is one buffer that appears in two ranges, at addresses of the "VMM" that lead
 * nowhere in this process: a copy that runs outside of the ranges fails as process_vm_readv(2)
 * does.
 */
#ifndef TESTS_LIB_VSOCK_GUEST_H
#define TESTS_LIB_VSOCK_GUEST_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "runtime/base/bytes.h"
#include "runtime/vsock/queues.h"

#define GUEST_RAM (512u << 10)
#define GUEST_LOW (256u << 10) /* guest-physical 0 up to here, then ... */
#define GUEST_HIGH (1u << 30)  /* ... from here on the rest */
#define GUEST_USER UINT64_C(0x7f0000000000)
#define GUEST_USER_HIGH UINT64_C(0x7f8000000000)
#define GUEST_NUM_MAX 128

/* Where the rings stand (guest-physical = offset in ram): desc, avail, used of ring i. */
#define GUEST_DESC(i) (0x1000u + (i)*0x3000u)
#define GUEST_AVAIL(i) (0x2000u + (i)*0x3000u)
#define GUEST_USED(i) (0x3000u + (i)*0x3000u)
#define GUEST_HEAP 0x8000u

struct guest {
    uint8_t ram[GUEST_RAM];
    uint32_t num;
    uint16_t avail[QUEUES], used[QUEUES];
    unsigned notified[QUEUES];
};

static inline uint8_t *guest_at(struct guest *g, uint64_t user, uint64_t len)
{
    uint64_t at;

    if (user >= GUEST_USER && user - GUEST_USER < GUEST_LOW)
        at = user - GUEST_USER;
    else if (user >= GUEST_USER_HIGH && user - GUEST_USER_HIGH < GUEST_RAM - GUEST_LOW)
        at = user - GUEST_USER_HIGH + GUEST_LOW;
    else
        return NULL;
    if (len > (at < GUEST_LOW ? GUEST_LOW : GUEST_RAM) - at)
        return NULL;
    return g->ram + at;
}

static inline int guest_copy(void *opaque, bool to_guest, void *local, size_t len,
                             const struct iovec *remote, size_t n)
{
    uint8_t *p = local;

    for (size_t i = 0; i < n; i++) {
        uint8_t *ram = guest_at(opaque, (uintptr_t)remote[i].iov_base, remote[i].iov_len);

        if (!ram || remote[i].iov_len > len) {
            errno = EFAULT;
            return -1;
        }
        if (to_guest)
            memcpy(ram, p, remote[i].iov_len);
        else
            memcpy(p, ram, remote[i].iov_len);
        p += remote[i].iov_len;
        len -= remote[i].iov_len;
    }
    return 0;
}

static inline void guest_notify(void *opaque, unsigned ring)
{
    ((struct guest *)opaque)->notified[ring]++;
}

static inline int guest_setup(struct guest *g, struct queues *q, uint32_t num, struct error *err)
{
    const struct memory_region regions[] = {
        {.guest = 0, .size = GUEST_LOW, .user = GUEST_USER},
        {.guest = GUEST_HIGH, .size = GUEST_RAM - GUEST_LOW, .user = GUEST_USER_HIGH},
    };

    g->num = num;
    q->memory.copy = guest_copy;
    q->memory.opaque = g;
    q->notify = guest_notify;
    q->opaque = g;
    if (memory_set_regions(&q->memory, regions, 2, err) < 0)
        return -1;
    for (unsigned i = 0; i < QUEUES; i++)
        if (ring_set_num(&q->rings[i], num, err) < 0 ||
            ring_set_addr(&q->rings[i], GUEST_USER + GUEST_DESC(i), GUEST_USER + GUEST_AVAIL(i),
                          GUEST_USER + GUEST_USED(i), err) < 0)
            return -1;
    return 0;
}

static inline void guest_desc(struct guest *g, unsigned ring, unsigned i, uint64_t addr,
                              uint32_t len, uint16_t flags, uint16_t next)
{
    uint8_t *d = g->ram + GUEST_DESC(ring) + 16 * i;

    put_le64(d, addr);
    put_le32(d + 8, len);
    put_le16(d + 12, flags);
    put_le16(d + 14, next);
}

static inline void guest_avail(struct guest *g, unsigned ring, uint16_t head)
{
    put_le16(g->ram + GUEST_AVAIL(ring) + 4 + 2 * (g->avail[ring] % g->num), head);
    put_le16(g->ram + GUEST_AVAIL(ring) + 2, ++g->avail[ring]);
}

/* The next entry the device has used, or false. */
static inline bool guest_used(struct guest *g, unsigned ring, uint32_t *head, uint32_t *len)
{
    const uint8_t *u = g->ram + GUEST_USED(ring);

    if (get_le16(u + 2) == g->used[ring])
        return false;
    u += 4 + 8 * (g->used[ring]++ % g->num);
    *head = get_le32(u);
    *len = get_le32(u + 4);
    return true;
}

#endif
