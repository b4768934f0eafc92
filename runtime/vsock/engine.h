/* SPDX-License-Identifier: Apache-2.0 */
/* engine.h - the parts of a vsock device and the thread that moves its bytes; private to this
 * folder
 *
 * Lock order: `lock` is the only one. It guards everything below it in struct vsock. The thread
 * holds it while it works off a batch of events, which includes copying guest memory; the ioctls of
 * the VMM (in workers of the mount) wait for it. A copy may need another worker of the mount, never
 * the one that waits: the VMM issues one ioctl at a time and the mount has many workers.
 */
#ifndef RUNTIME_VSOCK_ENGINE_H
#define RUNTIME_VSOCK_ENGINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/vsock/device.h"
#include "runtime/vsock/queues.h"
#include "runtime/vsock/vsock.h"

#define ENGINE_HELLOS_MAX 1024 /* host connections that have not yet said what they want */
#define ENGINE_HELLO_TIMEOUT_NS (10 * UINT64_C(1000000000))
#define ENGINE_HELLO_LEN_MAX 32 /* "CONNECT 4294967295\n" has 19 */

struct stream;

struct vsock {
    const struct log *log;
    struct mount *mount;
    char *name;      /* of the file in the mount */
    char *uds_path;  /* as given */
    const char *uds; /* its last part, inside uds_path */
    uint64_t cid;
    uid_t uid;
    gid_t gid;

    pthread_t thread;
    bool started;        /* touched by start and stop only */
    pthread_cond_t turn; /* no ioctl waits for the lock */

    pthread_mutex_t lock;
    unsigned waiters; /* ioctls that wait for the lock; the thread lets them go first */
    bool quit;
    int epoll, wake, listener, dir;
    bool listening; /* the listener is in the epoll set */
    struct queues queues;
    int kick[QUEUES], call[QUEUES];
    bool running, failed;
    struct stream *hellos; /* streams that have not said what they want */
    size_t n_hellos;
    struct stream *dead; /* closed, freed after the batch of events that may still name them */

    /* the VMM */
    bool open;
    pid_t owner; /* 0 = none */
    int owner_fd;
    uint64_t features;
};

/* Takes the lock ahead of the thread. */
void engine_lock(struct vsock *v);
void engine_unlock(struct vsock *v);

/* Makes the sets and the device; nothing runs yet. */
int engine_init(struct vsock *v, struct error *err);
void engine_destroy(struct vsock *v);

/* Listener and thread. */
int engine_start(struct vsock *v, struct error *err);
void engine_stop(struct vsock *v);

/* With the lock held: the VMM starts and stops the rings; replaces an eventfd (takes fd; -1 =
 * none). */
int engine_run(struct vsock *v, struct error *err);
void engine_halt(struct vsock *v);
int engine_set_kick(struct vsock *v, unsigned ring, int fd, struct error *err);
void engine_set_owner_fd(struct vsock *v, int pidfd);

#endif
