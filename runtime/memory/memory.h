/* SPDX-License-Identifier: Apache-2.0 */
/* memory.h - a guest's memory as a file of a mount, and which pages of it changed
 *
 *     guest --> RAM mapped MAP_SHARED by the VMM: QEMU memory-backend-file share=on, Firecracker
 *                  |                              a snapshot loaded with "shared": true
 *               page cache of the mount
 *                  |  memory_flush(): fsync
 *               [ dirty ] [ cow ] [ file ]  the device's stack
 *
 * Theory of operation: the kernel knows which pages of a shared mapping were written, because it
 * write-protects a page when it cleans it. An fsync of the file, from whatever process, sends just
 * those pages as writes to the stack, whose dirty layer notes them. So a look at the changed pages
 * costs one fsync and no pause of the guest: pages that the guest writes meanwhile belong to the
 * next look. The last look, taken while the VM is paused, is exact.
 */
#ifndef RUNTIME_MEMORY_MEMORY_H
#define RUNTIME_MEMORY_MEMORY_H

#include <sys/types.h>

#include "runtime/base/bitmap.h"
#include "runtime/block/block.h"
#include "runtime/block/expose/mount.h"

struct memory;

/* Adds the stack as file `name` of the mount, with a dirty layer on top unless it has one. The
 * stack becomes the memory's on success; the mount stays the caller's and must outlive the memory's
 * use. mode, uid, gid: of the file. The caller owns the result: memory_close() after mount_stop().
 * Returns NULL on failure, and the stack is the caller's still. */
struct memory *memory_open(struct mount *m, const char *name, unsigned mode, uid_t uid, gid_t gid,
                           struct block *stack, struct error *err);

/* Closes the stack. The mount no longer serves the file: stop it before. NULL is fine. */
int memory_close(struct memory *mem, struct error *err);

/* The file's path below the mount's folder. */
const char *memory_path(const struct memory *mem);

/* The stack; owned by the memory. Reads of it see what the last flush brought. */
struct block *memory_stack(struct memory *mem);

uint64_t memory_size(const struct memory *mem);  /* bytes */
uint64_t memory_pages(const struct memory *mem); /* bits a bitmap for memory_look() must have */

/* All that was written to mapped pages before the call is in the stack, and flushed. */
int memory_flush(struct memory *mem, struct error *err);

/* Flushes, then adds to *into the pages that changed since the last look. *ret_count (may be
 * NULL): how many. On failure nothing is forgotten. */
int memory_look(struct memory *mem, struct bitmap *into, uint64_t *ret_count, struct error *err);

#endif
