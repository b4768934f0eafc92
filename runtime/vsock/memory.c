// SPDX-License-Identifier: Apache-2.0
/* memory.c - guest memory, seen through the address space of the VMM's process */
#include "runtime/vsock/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int memory_set_regions(struct memory *m, const struct memory_region *regions, size_t n,
                       struct error *err)
{
    struct memory_region *copy;
    uint64_t top = 0, end;

    if (n > MEMORY_REGIONS_MAX)
        return error_set(err, E2BIG, "memory table: %zu regions, %d at most", n,
                         MEMORY_REGIONS_MAX);
    for (size_t i = 0; i < n; i++) {
        const struct memory_region *r = &regions[i];

        if (r->size == 0 || __builtin_add_overflow(r->guest, r->size - 1, &end) ||
            end == UINT64_MAX || r->user + (r->size - 1) < r->user)
            return error_set(err, EINVAL, "memory table: region %zu: impossible range", i);
        if (end > top)
            top = end;
        for (size_t k = 0; k < i; k++)
            if (r->guest <= regions[k].guest + (regions[k].size - 1) && regions[k].guest <= end)
                return error_set(err, EINVAL, "memory table: regions %zu and %zu overlap", k, i);
    }
    copy = calloc(n ? n : 1, sizeof(*copy));
    if (!copy)
        return error_oom(err);
    if (n)
        memcpy(copy, regions, n * sizeof(*copy));
    free(m->regions);
    m->regions = copy;
    m->n_regions = n;
    m->log_size = top / MEMORY_LOG_PAGE / 8 + 1;
    return 0;
}

void memory_clear(struct memory *m)
{
    free(m->regions);
    m->regions = NULL;
    m->n_regions = 0;
    m->logging = false;
    m->log = 0;
}

int memory_translate(const struct memory *m, uint64_t guest, uint64_t len, struct iovec *iov,
                     size_t *n, size_t max, struct error *err)
{
    while (len > 0) {
        const struct memory_region *r = NULL;
        uint64_t part;

        for (size_t i = 0; i < m->n_regions && !r; i++)
            if (guest >= m->regions[i].guest && guest - m->regions[i].guest < m->regions[i].size)
                r = &m->regions[i];
        if (!r)
            return error_set(err, EFAULT, "address 0x%" PRIx64 " is not guest memory", guest);
        if (*n == max)
            return error_set(err, E2BIG, "more than %zu pieces of memory", max);
        part = r->size - (guest - r->guest);
        if (part > len)
            part = len;
        iov[(*n)++] = (struct iovec){
            .iov_base = (void *)(uintptr_t)(r->user + (guest - r->guest)), // NOLINT
            .iov_len = part,
        };
        guest += part; /* no wrap: regions end below 2^64 - 1 */
        len -= part;
    }
    return 0;
}

static int copy_vm(pid_t pid, bool to_guest, void *buf, size_t len, const struct iovec *remote,
                   size_t n)
{
    struct iovec local = {.iov_base = buf, .iov_len = len};
    ssize_t got;

    do
        got = to_guest ? process_vm_writev(pid, &local, 1, remote, n, 0)
                       : process_vm_readv(pid, &local, 1, remote, n, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -1;
    if ((size_t)got != len) { /* the call stops where a page is missing */
        errno = EFAULT;
        return -1;
    }
    return 0;
}

static int copy(const struct memory *m, bool to_guest, void *buf, size_t len,
                const struct iovec *remote, size_t n_remote, struct error *err)
{
    struct iovec cut[MEMORY_IOV_MAX];
    size_t n = 0, left = len;
    int rc;

    for (size_t i = 0; i < n_remote && left > 0; i++) {
        if (n == MEMORY_IOV_MAX)
            return error_set(err, E2BIG, "guest memory: more than %d pieces", MEMORY_IOV_MAX);
        cut[n] = remote[i];
        if (cut[n].iov_len > left)
            cut[n].iov_len = left;
        left -= cut[n++].iov_len;
    }
    if (left > 0)
        return error_set(err, EINVAL, "guest memory: range too short by %zu bytes", left);
    if (len == 0)
        return 0;
    rc = m->copy ? m->copy(m->opaque, to_guest, buf, len, cut, n)
                 : copy_vm(m->pid, to_guest, buf, len, cut, n);
    if (rc < 0)
        return error_sys(err, "guest memory at 0x%" PRIxPTR " of process %d: %s",
                         (uintptr_t)cut[0].iov_base, (int)m->pid, to_guest ? "write" : "read");
    return 0;
}

/* Sets the bits of the pages that hold [guest, guest + len). The VMM clears whole words atomically
 * while we read, set and write a byte: a bit it cleared in between may come back, which costs a
 * page sent twice. No bit is lost as long as nobody else sets bits, and nobody does: QEMU gives
 * vhost devices a log that it does not write, and this is the only such device of a VM. */
static int log_pages(const struct memory *m, uint64_t guest, uint64_t len, struct error *err)
{
    uint64_t first = guest / MEMORY_LOG_PAGE, last = (guest + len - 1) / MEMORY_LOG_PAGE;

    for (uint64_t byte = first / 8; byte <= last / 8; byte++) {
        struct iovec remote = {.iov_base = (void *)(uintptr_t)(m->log + byte), // NOLINT
                               .iov_len = 1};
        uint8_t bits, old;

        if (byte >= m->log_size)
            return error_set(err, EFAULT, "dirty log: page outside of it");
        if (copy(m, false, &bits, 1, &remote, 1, err) < 0)
            return error_wrap(err, "dirty log");
        old = bits;
        for (unsigned bit = 0; bit < 8; bit++)
            if (byte * 8 + bit >= first && byte * 8 + bit <= last)
                bits |= (uint8_t)(1u << bit);
        if (bits != old && copy(m, true, &bits, 1, &remote, 1, err) < 0)
            return error_wrap(err, "dirty log");
    }
    return 0;
}

static int log_write(const struct memory *m, size_t len, const struct iovec *remote, size_t n,
                     struct error *err)
{
    for (size_t i = 0; i < n && len > 0; i++) {
        uint64_t user = (uintptr_t)remote[i].iov_base;
        uint64_t part = remote[i].iov_len < len ? remote[i].iov_len : len;

        len -= part;
        while (part > 0) {
            const struct memory_region *r = NULL;
            uint64_t some;

            for (size_t k = 0; k < m->n_regions && !r; k++)
                if (user >= m->regions[k].user && user - m->regions[k].user < m->regions[k].size)
                    r = &m->regions[k];
            if (!r)
                return error_set(err, EFAULT, "dirty log: a write outside of guest memory");
            some = r->size - (user - r->user);
            if (some > part)
                some = part;
            if (log_pages(m, r->guest + (user - r->user), some, err) < 0)
                return -1;
            user += some;
            part -= some;
        }
    }
    return 0;
}

int memory_read(const struct memory *m, void *buf, size_t len, const struct iovec *remote,
                size_t n_remote, struct error *err)
{
    return copy(m, false, buf, len, remote, n_remote, err);
}

int memory_write(const struct memory *m, const void *buf, size_t len, const struct iovec *remote,
                 size_t n_remote, struct error *err)
{
    /* iovec has no const; the bytes are only read. */
    if (copy(m, true, (void *)(uintptr_t)buf, len, remote, n_remote, err) < 0) // NOLINT
        return -1;
    return m->logging ? log_write(m, len, remote, n_remote, err) : 0;
}

int memory_read_at(const struct memory *m, void *buf, size_t len, uint64_t user, struct error *err)
{
    struct iovec remote = {.iov_base = (void *)(uintptr_t)user, .iov_len = len}; // NOLINT

    return memory_read(m, buf, len, &remote, 1, err);
}

int memory_write_at(const struct memory *m, const void *buf, size_t len, uint64_t user,
                    struct error *err)
{
    struct iovec remote = {.iov_base = (void *)(uintptr_t)user, .iov_len = len}; // NOLINT

    return memory_write(m, buf, len, &remote, 1, err);
}
