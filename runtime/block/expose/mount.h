/* SPDX-License-Identifier: Apache-2.0 */
/* mount.h - a folder of files that this process serves, through FUSE
 *
 *     VMM:  open("VM/memory"), mmap(MAP_SHARED), ioctl(vhost), fsync, ...
 *      |
 *     kernel: page cache of the mount (writeback cache: a mapped file is as fast as tmpfs)
 *      |  /dev/fuse
 *     worker threads of the mount  ->  struct mount_file_ops of the file  ->  a block stack, ...
 *
 * Theory of operation: one mount per VM, flat, on a folder of its own. Files have a fixed size,
 * like block devices: truncation is accepted and does nothing, a write past the end fails. Page
 * cache and writeback are the kernel's; what the VMM wrote reaches the file's `write` when the
 * kernel pleases and at the latest before an fsync(2) of the file returns, which ends in the file's
 * `flush`.
 *
 * What was read once the kernel keeps, also from one open to the next: who changes a file's content
 * from below the mount calls mount_forget().
 *
 * As root the mount allows other users (a jailed VMM runs with a uid of its own), file modes
 * decide, and the kernel's limits on dirty pages of FUSE mounts are lifted (/sys/class/bdi). As an
 * ordinary user fusermount3(1) mounts, and only that user sees the files.
 *
 * The end: mount_stop() flushes what the page cache still holds, detaches the mount, and breaks the
 * connection, so that a user who still has a file open gets ENOTCONN and never hangs. When the
 * process dies without that, the kernel breaks the connection at once (a mapped page that is not
 * cached gives SIGBUS), and a small process that waits for our end detaches the mount (watcher.c).
 * A mount that an earlier process left dead on the folder is detached by mount_start().
 *
 * A worker must never wait for something that needs another worker of the same mount for ever: up
 * to MOUNT_WORKERS_MAX requests are served at once.
 */
#ifndef RUNTIME_BLOCK_EXPOSE_MOUNT_H
#define RUNTIME_BLOCK_EXPOSE_MOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/context.h"
#include "runtime/base/error.h"

#define MOUNT_WORKERS_MAX 64
#define MOUNT_FILES_MAX 256
#define MOUNT_IO_MAX (1u << 20) /* bytes of one read or write request, at most */
#define MOUNT_IOCTL_MAX                                                                            \
    16384 /* bytes of an ioctl's argument: what 14 bits of _IOC_SIZE can say                       \
           */

struct block;
struct mount;

/* One ioctl(2) of a user. Argument bytes are copied by the kernel as the command's own _IOC bits
 * say (direction and size); what lies behind pointers in it is the file's business (pid, arg). */
struct mount_ioctl {
    unsigned cmd;
    uint64_t arg;   /* the argument as the caller gave it: an address in its process, or a number */
    pid_t pid;      /* thread id of the caller, in our pid namespace; 0 = outside of it */
    const void *in; /* _IOC_WRITE: in_len bytes */
    size_t in_len;
    void *
        out; /* _IOC_READ: out_len bytes, zeroed; filled in by the file, all of it is copied back */
    size_t out_len;
    int result; /* what ioctl(2) returns; 0 before */
};

/* What a file does. All optional: a file without read gives EOF, without write EACCES,
 * without ioctl ENOTTY. All return 0 or -1 with *err set; err->code is the errno the user gets.
 * Called from many threads at once. `handle` is what open left, one per open(2). */
struct mount_file_ops {
    int (*open)(void *self, void **ret_handle, struct error *err);
    void (*release)(void *self, void *handle); /* the last close of that open */
    /* len > 0, offset + len <= size of the file: the mount cuts requests to size. */
    int (*read)(void *self, void *buf, size_t len, uint64_t offset, struct error *err);
    int (*write)(void *self, const void *data, size_t len, uint64_t offset, struct error *err);
    int (*zero)(void *self, uint64_t len, uint64_t offset, struct error *err); /* fallocate(2) */
    int (*flush)(void *self, struct error *err);                               /* fsync(2) */
    /* lseek(2) with SEEK_DATA (data true) or SEEK_HOLE: first offset >= from that is so; size of
     * the file when there is none. */
    int (*seek)(void *self, uint64_t from, bool data, uint64_t *ret, struct error *err);
    int (*ioctl)(void *self, void *handle, struct mount_ioctl *io, struct error *err);
};

/* A mount on folder `path`, which must exist when mount_start() comes. ctx (may be NULL): kept, for
 * warnings. The caller owns the result: mount_free(). NULL on failure. */
struct mount *mount_new(const char *path, const struct context *ctx, struct error *err);

/* Adds a file, before mount_start() or while the mount serves. name: no '/', not "." or "..", up to
 * 255 bytes; unique. mode: permission bits. size: bytes, fixed. ops and self outlive the mount. */
int mount_add(struct mount *m, const char *name, unsigned mode, uid_t uid, gid_t gid, uint64_t size,
              const struct mount_file_ops *ops, void *self, struct error *err);

/* Adds a file whose content is the stack, which stays the caller's and is closed after
 * mount_stop(). fsync flushes the stack. */
int mount_add_block(struct mount *m, const char *name, unsigned mode, uid_t uid, gid_t gid,
                    struct block *top, struct error *err);

/* Before mount_start(): how many KiB the kernel reads ahead of its users, at most (root's mounts;
 * an ordinary user's have the kernel's 128). Default: 1024. Little is better where data comes from
 * far: who reads a page waits for all that is read with it. */
void mount_set_read_ahead(struct mount *m, unsigned kib);

/* Mounts and serves, in threads of its own. Returns when the files are there, and the process that
 * detaches the mount should we be killed. */
int mount_start(struct mount *m, struct error *err);

/* The same in two steps: the files are there after the first, that process after the second, which
 * comes two milliseconds later. Return 0. After a failure mount_stop() or mount_free() ends it. */
int mount_start_ahead(struct mount *m, struct error *err);
int mount_wait_watched(struct mount *m, struct error *err);

/* From mount_hold(), which comes before mount_start(), to mount_release(), a user who looks up a
 * name that is not there waits for mount_add() to bring it: a process can start while its files are
 * still being opened. mount_release() (any thread, also twice) lets those who wait in vain have
 * their ENOENT, as do mount_stop() and mount_free(). Such a user cannot be killed: release before.
 */
void mount_hold(struct mount *m);
void mount_release(struct mount *m);

/* fsync(2) of one file, or of all when name is NULL: what users wrote, mapped pages included, has
 * reached the file's write, and its flush has returned. Not from within a file's operation. Once
 * one has failed, all that follow do: the kernel may have dropped what it could not write. */
int mount_flush(struct mount *m, const char *name, struct error *err);

/* While lazy, an fsync(2) of the file by anybody brings what users wrote to the file's write, and
 * leaves out its flush: for who flushes the stack himself when it is due. Only for files whose
 * users expect nothing of fsync(2), such as guest memory. -1 with ENOENT: no such file. */
int mount_set_lazy(struct mount *m, const char *name, bool lazy, struct error *err);

/* Drops what the kernel keeps of one file, or of all when name is NULL: its content was changed by
 * others than users of the mount. What a user wrote is not lost, it goes to the file's write first;
 * a read that is under way is waited for. Users may have the file open, and mapped. Not from within
 * a file's operation. */
int mount_forget(struct mount *m, const char *name, struct error *err);

/* Flushes all files, detaches the mount, breaks the connection, ends the threads. A request that
 * waits inside a file's operation is waited for (block_cancel() such a stack first). The mount is
 * gone even when an error (a flush that failed) is reported. A second call does nothing. */
int mount_stop(struct mount *m, struct error *err);

/* mount_stop() without flushing, then frees everything. NULL is fine. */
void mount_free(struct mount *m);

/* The folder, as given. */
const char *mount_path(const struct mount *m);

DEFINE_CLEANUP(cleanup_mount_p, struct mount *, mount_free)
#define cleanup_mount CLEANUP(cleanup_mount_p)

#endif
