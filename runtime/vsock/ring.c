// SPDX-License-Identifier: Apache-2.0
/* ring.c - the device's side of a split virtqueue */
#include "runtime/vsock/ring.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/bytes.h"

#define AVAIL_NO_INTERRUPT 1u
#define USED_NO_NOTIFY 1u
#define USED_ENTRY_SIZE 8
#define AVAIL_READ_TRIES 64

int ring_set_num(struct ring *r, uint32_t num, struct error *err)
{
    if (num == 0 || num > RING_SIZE_MAX || (num & (num - 1)))
        return error_set(err, EINVAL, "ring: %" PRIu32 " entries: not a power of two up to %d", num,
                         RING_SIZE_MAX);
    r->num = num;
    return 0;
}

int ring_set_addr(struct ring *r, uint64_t desc, uint64_t avail, uint64_t used, struct error *err)
{
    if (desc % 16 || avail % 2 || used % 4)
        return error_set(err, EINVAL, "ring: its parts are not aligned to 16, 2 and 4 bytes");
    r->desc = desc;
    r->avail = avail;
    r->used = used;
    return 0;
}

void ring_destroy(struct ring *r)
{
    free(r->heads);
    free(r->table);
    free(r->raw);
    free(r->used_entries);
    *r = (struct ring){0};
}

/* Writes flags and idx of the used ring. One aligned word when the ring is so aligned (Linux's
 * are), so that a guest never sees half of the index; a ring aligned to 4 only, which the
 * specification allows, takes the chance that the kernel's copy of 4 bytes is one store. */
static int write_used_head(struct ring *r, const struct memory *m, struct error *err)
{
    uint8_t word[8];

    put_le16(word, r->quiet && !r->event_idx ? USED_NO_NOTIFY : 0);
    put_le16(word + 2, r->flushed);
    memcpy(word + 4, r->used_entries, 4); /* id of the first entry */
    return memory_write_at(m, word, r->used % 8 ? 4 : 8, r->used, err);
}

int ring_start(struct ring *r, const struct memory *m, bool event_idx, bool indirect,
               struct error *err)
{
    uint8_t head[4];

    if (r->num == 0 || r->desc == 0 || r->avail == 0 || r->used == 0)
        return error_set(err, EINVAL, "ring: started before it was set up");
    free(r->heads);
    free(r->table);
    free(r->raw);
    free(r->used_entries);
    r->heads = calloc(r->num, sizeof(*r->heads));
    r->table = calloc(r->num, sizeof(*r->table));
    r->raw = malloc((size_t)RING_SIZE_MAX * RING_DESC_SIZE);
    r->used_entries = malloc((size_t)r->num * USED_ENTRY_SIZE);
    if (!r->heads || !r->table || !r->raw || !r->used_entries)
        return error_oom(err);
    /* The old entries are read so that the word with the first one can be written back. */
    if (memory_read_at(m, head, sizeof(head), r->used, err) < 0 ||
        memory_read_at(m, r->used_entries, (size_t)r->num * USED_ENTRY_SIZE, r->used + 4, err) < 0)
        return error_wrap(err, "ring: used ring");
    r->used_idx = r->flushed = get_le16(head + 2);
    r->seen_avail = r->last_avail;
    r->event_idx = event_idx;
    r->indirect = indirect;
    r->quiet = false;
    return ring_want_kick(r, m, true, err);
}

/* Reads avail.idx: two reads that agree are no torn one, since between two values that the low
 * byte's turn would garble the guest has to add 256 entries. */
static int read_avail_idx(const struct ring *r, const struct memory *m, uint16_t *ret,
                          struct error *err)
{
    uint8_t a[2], b[2];

    if (memory_read_at(m, a, sizeof(a), r->avail + 2, err) < 0)
        return error_wrap(err, "ring: available index");
    for (int i = 0; i < AVAIL_READ_TRIES; i++) {
        if (memory_read_at(m, b, sizeof(b), r->avail + 2, err) < 0)
            return error_wrap(err, "ring: available index");
        if (memcmp(a, b, sizeof(a)) == 0) {
            *ret = get_le16(a);
            return 0;
        }
        memcpy(a, b, sizeof(a));
    }
    return error_set(err, EBADMSG, "ring: the available index does not come to rest");
}

static void decode_desc(const uint8_t *raw, struct ring_desc *d)
{
    d->addr = get_le64(raw);
    d->len = get_le32(raw + 8);
    d->flags = get_le16(raw + 12);
    d->next = get_le16(raw + 14);
}

/* Reads the new available entries and the descriptor table. Returns how many entries are new. */
static int refill(struct ring *r, const struct memory *m, struct error *err)
{
    uint32_t first = r->last_avail % r->num, n, run;
    uint8_t entries[RING_SIZE_MAX * 2];
    struct iovec remote[3];
    size_t pieces = 0;
    uint16_t idx = 0;

    if (read_avail_idx(r, m, &idx, err) < 0)
        return -1;
    n = (uint16_t)(idx - r->last_avail);
    if (n == 0)
        return 0;
    if (n > r->num)
        return error_set(err, EBADMSG,
                         "ring: available index %u runs ahead of %u by more than its %u entries",
                         idx, r->last_avail, r->num);
    atomic_thread_fence(memory_order_acquire); /* entries are read after the index */
    run = r->num - first < n ? r->num - first : n;
    remote[pieces++] = (struct iovec){(void *)(uintptr_t)(r->avail + 4 + 2 * first), 2 * run};
    if (run < n)
        remote[pieces++] = (struct iovec){(void *)(uintptr_t)(r->avail + 4), 2 * (n - run)};
    if (memory_read(m, entries, 2 * n, remote, pieces, err) < 0 ||
        memory_read_at(m, r->raw, (size_t)r->num * RING_DESC_SIZE, r->desc, err) < 0)
        return error_wrap(err, "ring: descriptors");
    for (uint32_t i = 0; i < n; i++)
        r->heads[(first + i) % r->num] = get_le16(entries + 2 * i);
    for (uint32_t i = 0; i < r->num; i++)
        decode_desc(r->raw + (size_t)i * RING_DESC_SIZE, &r->table[i]);
    r->seen_avail = idx;
    return (int)n;
}

/* Adds one descriptor's range to the chain. */
static int add_piece(const struct memory *m, const struct ring_desc *d, struct ring_chain *c,
                     struct error *err)
{
    bool in = d->flags & RING_DESC_WRITE;
    size_t *total = in ? &c->in_len : &c->out_len;

    if (!in && c->n_in > 0)
        return error_set(err, EBADMSG, "ring: a readable descriptor behind a writable one");
    if (memory_translate(m, d->addr, d->len, in ? c->in : c->out, in ? &c->n_in : &c->n_out,
                         RING_PIECES_MAX, err) < 0)
        return error_wrap(err, "ring: descriptor");
    *total += d->len; /* at most RING_PIECES_MAX times 2^32 */
    return 0;
}

/* Follows a chain through a table of n descriptors; an indirect one leads into a table of its own.
 */
static int walk(struct ring *r, const struct memory *m, const struct ring_desc *table, uint32_t n,
                uint32_t at, struct ring_chain *c, struct error *err)
{
    bool nested = table == NULL;

    for (uint32_t seen = 0; seen < n; seen++) {
        struct ring_desc d;

        if (at >= n)
            return error_set(err, EBADMSG, "ring: descriptor %u of %u", at, n);
        if (nested)
            decode_desc(r->raw + (size_t)at * RING_DESC_SIZE, &d);
        else
            d = table[at];
        if (d.flags & RING_DESC_INDIRECT) {
            struct iovec remote[RING_PIECES_MAX];
            size_t pieces = 0;

            if (nested || !r->indirect || (d.flags & RING_DESC_NEXT))
                return error_set(err, EBADMSG, "ring: an indirect descriptor where none may be");
            if (d.len == 0 || d.len % RING_DESC_SIZE || d.len / RING_DESC_SIZE > RING_SIZE_MAX)
                return error_set(err, EBADMSG, "ring: an indirect table of %" PRIu32 " bytes",
                                 d.len);
            if (memory_translate(m, d.addr, d.len, remote, &pieces, RING_PIECES_MAX, err) < 0 ||
                memory_read(m, r->raw, d.len, remote, pieces, err) < 0)
                return error_wrap(err, "ring: indirect table");
            return walk(r, m, NULL, d.len / RING_DESC_SIZE, 0, c, err);
        }
        if (add_piece(m, &d, c, err) < 0)
            return -1;
        if (!(d.flags & RING_DESC_NEXT))
            return 0;
        at = d.next;
    }
    return error_set(err, EBADMSG, "ring: a chain of descriptors loops");
}

int ring_next(struct ring *r, const struct memory *m, struct ring_chain *ret_chain,
              struct error *err)
{
    /* An honest guest has no more than num requests open; used_entries holds no more. */
    if ((uint16_t)(r->used_idx - r->flushed) >= r->num)
        return error_set(err, EBADMSG, "ring: more requests than its %" PRIu32 " entries", r->num);
    if (r->last_avail == r->seen_avail) {
        int n = refill(r, m, err);

        if (n <= 0)
            return n;
    }
    ret_chain->head = r->heads[r->last_avail % r->num];
    ret_chain->n_out = ret_chain->n_in = ret_chain->out_len = ret_chain->in_len = 0;
    if (walk(r, m, r->table, r->num, ret_chain->head, ret_chain, err) < 0)
        return -1;
    r->last_avail++;
    return 1;
}

void ring_unget(struct ring *r)
{
    r->last_avail--;
}

void ring_push(struct ring *r, uint16_t head, uint32_t len)
{
    uint8_t *entry = r->used_entries + (size_t)(r->used_idx % r->num) * USED_ENTRY_SIZE;

    put_le32(entry, head);
    put_le32(entry + 4, len);
    r->used_idx++;
}

uint16_t ring_unflushed(const struct ring *r)
{
    return (uint16_t)(r->used_idx - r->flushed);
}

int ring_flush(struct ring *r, const struct memory *m, bool *ret_notify, struct error *err)
{
    uint16_t old = r->flushed, n = ring_unflushed(r), event;
    uint32_t first = old % r->num, run;
    uint8_t raw[2];

    if (n == 0) {
        *ret_notify = false;
        return 0;
    }
    /* n <= num: no more is pushed than was taken. */
    run = r->num - first < n ? r->num - first : n;
    if (memory_write_at(m, r->used_entries + (size_t)first * USED_ENTRY_SIZE,
                        (size_t)run * USED_ENTRY_SIZE, r->used + 4 + (uint64_t)first * 8,
                        err) < 0 ||
        (run < n && memory_write_at(m, r->used_entries, (size_t)(n - run) * USED_ENTRY_SIZE,
                                    r->used + 4, err) < 0))
        return error_wrap(err, "ring: used entries");
    atomic_thread_fence(memory_order_release); /* the index is written after the entries */
    r->flushed = r->used_idx;
    if (write_used_head(r, m, err) < 0)
        return error_wrap(err, "ring: used index");
    atomic_thread_fence(
        memory_order_seq_cst); /* the threshold is read after the index is written */
    if (!r->event_idx) {
        if (memory_read_at(m, raw, sizeof(raw), r->avail, err) < 0)
            return error_wrap(err, "ring: available flags");
        *ret_notify = !(get_le16(raw) & AVAIL_NO_INTERRUPT);
        return 0;
    }
    if (memory_read_at(m, raw, sizeof(raw), r->avail + 4 + 2 * (uint64_t)r->num, err) < 0)
        return error_wrap(err, "ring: used event");
    event = get_le16(raw);
    *ret_notify = (uint16_t)(r->flushed - event - 1) < (uint16_t)(r->flushed - old);
    return 0;
}

int ring_want_kick(struct ring *r, const struct memory *m, bool want, struct error *err)
{
    uint8_t raw[2];

    if (r->event_idx) {
        /* Without a threshold that moves the guest stays quiet by itself. */
        if (want) {
            put_le16(raw, r->last_avail);
            if (memory_write_at(m, raw, sizeof(raw),
                                r->used + 4 + (uint64_t)r->num * USED_ENTRY_SIZE, err) < 0)
                return error_wrap(err, "ring: available event");
        }
    } else if (r->quiet == want) {
        r->quiet = !want;
        if (write_used_head(r, m, err) < 0)
            return error_wrap(err, "ring: used flags");
    }
    atomic_thread_fence(memory_order_seq_cst); /* the caller's look comes after */
    return 0;
}
