/* SPDX-License-Identifier: Apache-2.0 */
/* memory.h - guest memory, seen through the address space of the VMM's process
 *
 * Theory of operation: the vhost table says which guest-physical range stands at which address of
 * the VMM. Nothing is mapped here; bytes are copied by process_vm_readv(2) and process_vm_writev(2)
 * (or by what a test puts in their place), so an address that the guest or the VMM made up is an
 * error value and never a fault.
 *
 * The kernel's copy may go byte by byte: a number that the other side changes meanwhile can be read
 * torn, and one that we change can be seen torn. ring.c says how it lives with that.
 *
 * While the VMM asks for it (VHOST_F_LOG_ALL), every write also marks its pages in the VMM's dirty
 * log.
 */
#ifndef RUNTIME_VSOCK_MEMORY_H
#define RUNTIME_VSOCK_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "runtime/base/error.h"

#define MEMORY_REGIONS_MAX 509 /* what QEMU and the kernel's vhost take at most is 509, too */
#define MEMORY_IOV_MAX 128     /* pieces of one copy, at most */
#define MEMORY_LOG_PAGE 4096   /* VHOST_PAGE_SIZE */

struct memory_region {
    uint64_t guest; /* guest-physical address */
    uint64_t size;
    uint64_t user; /* address in the VMM */
};

struct memory {
    pid_t pid; /* of the VMM */
    struct memory_region *regions;
    size_t n_regions;
    uint64_t log;      /* address in the VMM of the dirty log, a bit per page of guest memory */
    uint64_t log_size; /* bytes it must have for the regions that there are */
    bool logging;
    /* Copies between local bytes and addresses of the VMM; both lists are of the same total.
     * Returns 0, or -1 with errno set. NULL: process_vm_readv and process_vm_writev on pid. */
    int (*copy)(void *opaque, bool to_guest, void *local, size_t len, const struct iovec *remote,
                size_t n_remote);
    void *opaque;
};

/* Takes a copy of the table after checking it: sizes, sums, overlaps in guest addresses. */
int memory_set_regions(struct memory *m, const struct memory_region *regions, size_t n,
                       struct error *err);
void memory_clear(struct memory *m);

/* Translates a guest range to VMM ranges and appends them to iov[*n], at most `max` in all. Returns
 * 0, or -1 with *err set when a byte of it is no guest memory or there are too many pieces. */
int memory_translate(const struct memory *m, uint64_t guest, uint64_t len, struct iovec *iov,
                     size_t *n, size_t max, struct error *err);

/* Copies len bytes from (to) the remote pieces, whose total is at least len. Returns 0. */
int memory_read(const struct memory *m, void *buf, size_t len, const struct iovec *remote,
                size_t n_remote, struct error *err);
int memory_write(const struct memory *m, const void *buf, size_t len, const struct iovec *remote,
                 size_t n_remote, struct error *err);

/* The same for one contiguous range at an address of the VMM. */
int memory_read_at(const struct memory *m, void *buf, size_t len, uint64_t user, struct error *err);
int memory_write_at(const struct memory *m, const void *buf, size_t len, uint64_t user,
                    struct error *err);

#endif
