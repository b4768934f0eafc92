// SPDX-License-Identifier: Apache-2.0
/* extents.c - where a file has data
 *
 * A file can be in as many pieces as it has pages, an archive's map must stay short: when the list
 * is full, the length below which a hole is not worth a piece doubles until half of it is free.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "blueprint/pack/private.h"

#define GAP_MIN 4096u

void pack_extents_free(struct pack_extents *e)
{
    free(e->items);
    memset(e, 0, sizeof(*e));
}

static void shorten(struct pack_extents *e)
{
    size_t n = 0;

    for (size_t i = 0; i < e->n; i++) {
        const struct pack_extent x = e->items[i];
        struct pack_extent *last = n ? &e->items[n - 1] : NULL;
        if (last && x.offset - (last->offset + last->len) < e->gap)
            last->len = x.offset + x.len - last->offset;
        else
            e->items[n++] = x;
    }
    e->n = n;
}

int pack_extents_add(struct pack_extents *e, uint64_t offset, uint64_t len, size_t max,
                     struct error *err)
{
    if (!e->gap)
        e->gap = GAP_MIN;
    if (e->n) {
        struct pack_extent *last = &e->items[e->n - 1];
        if (offset - (last->offset + last->len) < e->gap) {
            last->len = offset + len - last->offset;
            return 0;
        }
    }
    if (e->n == max) {
        while (e->n > max / 2) {
            e->gap *= 2;
            shorten(e);
        }
        return pack_extents_add(e, offset, len, max, err);
    }
    if (e->n == e->room) {
        size_t room = e->room ? e->room * 2 : 64;
        struct pack_extent *grown = reallocarray(e->items, room, sizeof(*grown));
        if (!grown)
            return error_oom(err);
        e->items = grown;
        e->room = room;
    }
    e->items[e->n++] = (struct pack_extent){offset, len};
    return 0;
}

int pack_extents_of(int fd, uint64_t size, const char *what, struct pack_extents *ret,
                    struct error *err)
{
    uint64_t at = 0;

    while (at < size) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        if (data < 0 && errno == ENXIO) /* nothing but a hole up to the end */
            return 0;
        off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
        if (data < 0 || hole < 0) {
            if (errno != EINVAL && errno != EOPNOTSUPP)
                return error_sys(err, "%s: look for holes", what);
            data = (off_t)at;
            hole = (off_t)size;
        }
        uint64_t end = (uint64_t)hole < size ? (uint64_t)hole : size;
        if ((uint64_t)data >= end)
            return 0; /* It got shorter; reading will say so. */
        if (pack_extents_add(ret, (uint64_t)data, end - (uint64_t)data, PACK_EXTENTS_MAX, err) < 0)
            return -1;
        at = end;
    }
    return 0;
}

bool pack_extents_hole(const struct pack_extents *e, size_t *cursor, uint64_t offset, uint64_t len)
{
    while (*cursor < e->n && e->items[*cursor].offset + e->items[*cursor].len <= offset)
        ++*cursor;
    return *cursor == e->n || e->items[*cursor].offset >= offset + len;
}
