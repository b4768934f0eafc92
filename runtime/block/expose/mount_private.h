/* SPDX-License-Identifier: Apache-2.0 */
/* mount_private.h - what mount.c and mount_ops.c share; not for other files */
#ifndef RUNTIME_BLOCK_EXPOSE_MOUNT_PRIVATE_H
#define RUNTIME_BLOCK_EXPOSE_MOUNT_PRIVATE_H

#define FUSE_USE_VERSION 35

#include <fuse_lowlevel.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "runtime/block/expose/mount.h"

#define MOUNT_SPARE_MAX 4
#define FIRST_FILE (FUSE_ROOT_ID + 1) /* inode of files[0] */

struct mount_file {
    char name[NAME_MAX + 1];
    const struct mount_file_ops *ops;
    void *self;
    uint64_t size;
    atomic_uint mode, uid, gid; /* as chmod(2) and chown(2) left them */
    atomic_bool lazy;           /* see mount_set_lazy() */
    struct timespec mtime;
};

struct mount {
    char *path;
    const struct context *ctx;
    struct fuse_session *session;
    bool mounted;
    unsigned read_ahead_kib;
    dev_t dev; /* of the mount; 0 = not known yet */
    int stop_fd;
    pthread_t watcher_starter; /* joined before the two below are looked at */
    bool has_watcher_starter;
    struct error watcher_error; /* why there is none */
    pid_t watcher;              /* 0 = none */
    int watcher_fd;
    atomic_bool stopping;
    atomic_uint idle; /* workers without a request */
    atomic_int lost;  /* errno of a flush that failed; 0 = none did */

    pthread_mutex_t lock; /* guards workers, spare, and additions to files */
    unsigned n_workers;
    pthread_t workers[MOUNT_WORKERS_MAX];
    char *spare[MOUNT_SPARE_MAX]; /* buffers of MOUNT_IO_MAX bytes that nobody uses now */
    unsigned n_spare;
    bool held;           /* lookups of unknown names wait; guarded by lock */
    pthread_cond_t news; /* a file was added, or held ended */
    atomic_size_t n_files;
    struct mount_file files[MOUNT_FILES_MAX]; /* those below n_files never change place */
};

extern const struct fuse_lowlevel_ops mount_fuse_ops;

/* While lookups are held: waits until there are more than n files. Returns whether there are. */
bool mount_wait_file(struct mount *m, size_t n);

/* Detaches and ends without flushing. */
int mount_end(struct mount *m, struct error *err);

/* See watcher.c. Returns 0; how it went is for mount_wait_watched() to say. */
int watcher_start(struct mount *m, struct error *err);
void watcher_end(struct mount *m);

#endif
