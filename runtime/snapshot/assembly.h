/* SPDX-License-Identifier: Apache-2.0 */
/* assembly.h - a machine's parts put together on this host, around one VMM process
 *
 *     VMDIR/                        vmm_place_make()
 *       devices/                    one FUSE mount: every device that the VMM opens, and the
 *                                   vhost-vsock device of QEMU
 *       disk -> devices/disk        a symlink for each: the VMM sees plain names
 *       memory -> devices/memory
 *       state                       a plain file: what vmm_load() reads and vmm_save() writes
 *       vsock.sock, vsock.sock_25, vsock.sock_26
 *
 * Theory of operation: whoever acts on a machine (snapshotter, peer, target of a migration) opens
 * block stacks, hands them over by name, and starts. The order is what makes it safe: the files are
 * there before the process, the listeners for the guest's calls before the guest; and at the end
 * the process goes before the mount, the mount before the stacks, so that a flush still finds
 * everything. assembly_close() leaves nothing behind.
 *
 * Waiting for the guest ends at once when the VMM ends (the error then has its last console lines)
 * or, where the caller wants that, with the context's cancellation. The VMM's own acts on a machine
 * that is there are not cancelled, only bounded in time: it must be able to suspend after the
 * request to stop.
 *
 * Threads: acts are one at a time, the caller's business; one thread watches the VMM.
 */
#ifndef RUNTIME_SNAPSHOT_ASSEMBLY_H
#define RUNTIME_SNAPSHOT_ASSEMBLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/context.h"
#include "runtime/base/error.h"
#include "runtime/block/block.h"
#include "runtime/vmm/vmm.h"

#define ASSEMBLY_DEVICES_MAX 64
#define ASSEMBLY_STATE_MAX (UINT64_C(80) << 20) /* bytes of a state file */

struct assembly;

/* Strings are copied where they are needed later, except those in vmm. */
struct assembly_options {
    const char *base;                   /* where the VM directory is made, as in "out/vms" */
    uint32_t liveness_port, agent_port; /* 0 = the guest has no such program */
    struct vmm_options vmm;  /* purpose, choice, user, network, console; place, vhost_vsock_fd and
                                guest_announces (of agent_port) are filled in */
    unsigned read_ahead_kib; /* mount_set_read_ahead(); 0 = its default */
};

/* Makes the VM directory. ctx outlives the assembly. The caller owns the result: assembly_close().
 * NULL on failure. */
struct assembly *assembly_new(const struct assembly_options *options, const struct context *ctx,
                              struct error *err);

/* Adds a device; before assembly_start(), unless it was expected. On success the stack is the
 * assembly's. exposed: the VMM opens it as `name`. Returns 0. */
int assembly_add(struct assembly *a, const char *name, struct block *stack, bool exposed,
                 struct error *err);

/* Says before assembly_start() that a device which the VMM opens will be added after it: the
 * process starts meanwhile, and waits where it needs the device. assembly_complete() follows the
 * last one that was added; assembly_close() may come instead. Returns 0. */
int assembly_expect(struct assembly *a, const char *name, struct error *err);
void assembly_complete(struct assembly *a);

/* Writes the plain file "state" of the VM directory. Returns 0. */
int assembly_put_state(struct assembly *a, const void *state, size_t len, struct error *err);

/* Mounts, listens and starts the process, which need not be ready when this returns. Returns 0. */
int assembly_start(struct assembly *a, const struct vmm_machine *machine, struct error *err);

/* vmm_boot(), or vmm_load() of the state. stoppable: the context's cancellation ends the process,
 * which may still be starting, and the act with ECANCELED: no guest has run yet that could lose
 * anything (or it has had the moment that a boot's last request takes). Return 0. */
int assembly_boot(struct assembly *a, bool stoppable, struct error *err);
int assembly_load(struct assembly *a, bool stoppable, struct error *err);

/* Wait for the guest's sign of life; for its agent to have done what it is asked. stoppable: the
 * context's cancellation ends the wait. Errors as in guestlink.h, and ECHILD: the VMM ended. */
int assembly_wait_liveness(struct assembly *a, uint64_t timeout_ns, bool stoppable,
                           struct error *err);
int assembly_before_suspend(struct assembly *a, uint64_t timeout_ns, bool stoppable,
                            struct error *err);
int assembly_after_resume(struct assembly *a, uint64_t timeout_ns, bool stoppable,
                          struct error *err);

/* The guest's memory and disks have reached their stacks, and those storage. Returns 0. */
int assembly_flush(struct assembly *a, struct error *err);

/* The stacks' content was changed below the VMM, which has not run the guest yet: what it read
 * until now is not what it reads from now on. See mount_forget(). Returns 0. */
int assembly_forget(struct assembly *a, struct error *err);

/* While lazy, flushes of the device (guest memory) end in its stack: block_flush() is the caller's.
 * See mount_set_lazy(). Returns 0. */
int assembly_set_lazy(struct assembly *a, const char *name, bool lazy, struct error *err);

/* Saves the paused machine: state into the plain file, which is then read. The caller frees
 * *ret_state. The stacks are flushed. Returns 0. */
int assembly_save(struct assembly *a, void **ret_state, size_t *ret_len, struct error *err);

/* A context that is cancelled with ours, or when the VMM ends. */
const struct context *assembly_stop_context(const struct assembly *a);

/* The error that says how the VMM ended, ECHILD. Returns -1. */
int assembly_ended(struct assembly *a, struct error *err);

struct vmm *assembly_vmm(struct assembly *a);        /* NULL before assembly_start() */
const char *assembly_path(const struct assembly *a); /* of the VM directory */
struct block *assembly_block(struct assembly *a, const char *name); /* NULL = none */

/* Ends the process, closes the stacks, removes the VM directory. The first failure is reported, all
 * is gone in any case. NULL is fine. Returns 0. */
int assembly_close(struct assembly *a, struct error *err);

static inline void cleanup_assembly_p(struct assembly **a)
{
    (void)assembly_close(*a, NULL);
    *a = NULL;
}
#define cleanup_assembly CLEANUP(cleanup_assembly_p)

#endif
