/* SPDX-License-Identifier: Apache-2.0 */
/* vsock.h - vsock over UNIX sockets for a VMM that speaks vhost (QEMU)
 *
 *     guest  --virtio-vsock rings in guest memory-->  this module  --AF_UNIX-->  programs on the
 * host
 *                                                          ^
 *     QEMU: -device vhost-vsock-pci,vhostfd=N   --ioctl-->  a file of our FUSE mount
 *
 * Theory of operation: QEMU's vhost-vsock device hands its queues to whoever answers the vhost
 * ioctls (linux/vhost.h) on its fd. Here that is a file of the VM's FUSE mount, so neither the
 * vhost_vsock kernel module nor a context id that is unique on the host is needed. What a guest and
 * the host see is the interface of Firecracker's vsock device:
 *
 * - guest to host: a guest that connects to CID 2, port P, is connected to the UNIX socket
 *   `<uds_path>_P`; nobody listening there (or a symlink there) refuses the guest's connect;
 * - host to guest: a program connects to `uds_path`, writes "CONNECT P\n", reads "OK HOSTPORT\n",
 * and from there on speaks with whoever listens on port P in the guest. Nobody listening, or no
 *   answer within VSOCK_REQUEST_TIMEOUT_NS: the connection is closed without an OK.
 *
 * Streams only (virtio 1.2, section 5.10). Both directions have flow control end to end: a
 * program that does not read stalls its own stream and nothing else. Half-closed streams work both
 * ways.
 *
 * Stopping the VM (QMP stop, the end of QEMU) closes all streams; QEMU sends the guest a transport
 * reset after it loads a state, so the guest closes its streams too, and its listeners stay.
 *
 * Guest memory is read and written with process_vm_readv(2) and process_vm_writev(2) through QEMU's
 * own address space. That is deliberate: a mapping of our own of a memory file that this very
 * process serves through FUSE could fault with our mmap lock held, waiting for a worker that needs
 * the lock. What is written that way reaches the memory file as the guest's own writes do.
 *
 * Queue work is done in a thread of its own, never in a worker of the mount, since touching guest
 * memory may need such a worker. Needed of the system: pidfd_getfd(2) and process_vm_readv(2) on
 * QEMU, that is CAP_SYS_PTRACE, or the same uid and (where Yama restricts ptrace) QEMU being a
 * descendant.
 */
#ifndef RUNTIME_VSOCK_VSOCK_H
#define RUNTIME_VSOCK_VSOCK_H

#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/context.h"
#include "runtime/base/error.h"

struct mount;
struct vsock;

#define VSOCK_CONNECTIONS_MAX 4096 /* streams at once; a guest's further connects are refused */
#define VSOCK_REQUEST_TIMEOUT_NS (10 * UINT64_C(1000000000)) /* for the guest's answer */

struct vsock_options {
    const char
        *uds_path; /* the listening socket; its folder exists; the last part is short enough for
                    * "_PORT" behind it (95 bytes) */
    uint64_t guest_cid; /* >= 3, below 2^32 - 1; the VMM tells the same one, or we refuse it */
    uid_t uid;          /* owner of the file and of the listening socket */
    gid_t gid;
};

struct vsock_stats {
    uint64_t connections;    /* at the moment */
    uint64_t accepted;       /* host to guest, answered by the guest */
    uint64_t connected;      /* guest to host, answered by us */
    uint64_t refused;        /* in either direction */
    uint64_t bytes_to_guest; /* payload */
    uint64_t bytes_from_guest;
    uint64_t packets_dropped; /* malformed ones */
    int running;              /* the VMM has started the device */
    int failed;               /* the guest broke its rings; nothing moves until the next start */
};

/* Adds file `name` (mode 0600, uid and gid of opt) to the mount, which may be serving already. opt
 * is copied. ctx (may be NULL) is kept, for its log. The caller owns the result: vsock_free(), but
 * only after mount_stop(), since the mount has no way to take a file back. NULL on failure. */
struct vsock *vsock_new(struct mount *mount, const char *name, const struct vsock_options *opt,
                        const struct context *ctx, struct error *err);

/* Makes the listening socket (in place of a socket that stood there) and the thread. Returns 0. */
int vsock_start(struct vsock *v, struct error *err);

/* Opens the device for a VMM: the fd belongs into `vhostfd=` of "-device
 * vhost-vsock-pci,...,guest-cid=CID" and to no second process; the caller closes its own copy when
 * the VMM runs, so that the VMM's end is seen. A device has one user at a time (EBUSY). The mount
 * serves. Returns the fd, close-on-exec. */
int vsock_open(struct vsock *v, struct error *err);

/* Closes all streams and the listening socket, removes the socket, ends the thread. A VMM that
 * still runs sees a silent device. A second call does nothing. */
void vsock_stop(struct vsock *v);

void vsock_stats(struct vsock *v, struct vsock_stats *ret_stats);

/* vsock_stop(), then frees. NULL is fine. */
void vsock_free(struct vsock *v);

DEFINE_CLEANUP(cleanup_vsock_p, struct vsock *, vsock_free)
#define cleanup_vsock CLEANUP(cleanup_vsock_p)

#endif
