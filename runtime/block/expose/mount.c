// SPDX-License-Identifier: Apache-2.0
/* mount.c - the life of a mount: files, worker threads, start and stop
 *
 * Theory of operation: libfuse's low-level session gives us the kernel's requests, one buffer each.
 * Worker threads read the session's descriptor, which is non-blocking; when nothing is there they
 * poll it together with an eventfd that mount_stop() writes. So workers end without signals or
 * cancellation, whatever the kernel does. A worker that finds itself the last idle one starts
 * another, up to MOUNT_WORKERS_MAX: requests may wait long (an absent block), and others must get
 * past them.
 *
 * mount_stop() works from the user's end to ours: fsync every file while workers still serve,
 * detach the mount so that nobody opens anew, end the workers, close the descriptor. The last one
 * breaks the connection: a user's pending and later requests fail with ENOTCONN.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include "runtime/base/spawn.h"
#include "runtime/block/expose/mount_private.h"

#define WORKERS_START 4
#define WATCHER_NAPS 500 /* of 10 ms, for a watcher to do its work */
#define READ_AHEAD_KIB 1024u

struct mount *mount_new(const char *path, const struct context *ctx, struct error *err)
{
    struct mount *m = calloc(1, sizeof(*m));

    if (!m) {
        error_oom(err);
        return NULL;
    }
    m->ctx = ctx;
    m->read_ahead_kib = READ_AHEAD_KIB;
    m->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    m->path = strdup(path);
    if (m->stop_fd < 0 || !m->path) {
        error_sys(err, "mount %s: eventfd", path);
        if (m->stop_fd >= 0)
            (void)close(m->stop_fd);
        free(m->path);
        free(m);
        return NULL;
    }
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->news, NULL);
    return m;
}

const char *mount_path(const struct mount *m)
{
    return m->path;
}

int mount_add(struct mount *m, const char *name, unsigned mode, uid_t uid, gid_t gid, uint64_t size,
              const struct mount_file_ops *ops, void *self, struct error *err)
{
    size_t len = strlen(name);

    if (len == 0 || len > NAME_MAX || strchr(name, '/') || !strcmp(name, ".") ||
        !strcmp(name, ".."))
        return error_set(err, EINVAL, "mount %s: \"%s\" is not a file name", m->path, name);
    lock_scope(&m->lock);
    size_t n = atomic_load(&m->n_files);
    for (size_t i = 0; i < n; i++)
        if (strcmp(m->files[i].name, name) == 0)
            return error_set(err, EEXIST, "mount %s: there is a file %s already", m->path, name);
    if (n == MOUNT_FILES_MAX)
        return error_set(err, EMFILE, "mount %s: more than %d files", m->path, MOUNT_FILES_MAX);
    struct mount_file *f = &m->files[n];
    (void)memcpy(f->name, name, len + 1);
    f->ops = ops;
    f->self = self;
    f->size = size;
    atomic_store(&f->mode, mode & 0777);
    atomic_store(&f->uid, uid);
    atomic_store(&f->gid, gid);
    (void)clock_gettime(CLOCK_REALTIME, &f->mtime);
    /* Requests look at files below n_files without a lock: count a file when it is complete. */
    atomic_store(&m->n_files, n + 1);
    (void)pthread_cond_broadcast(&m->news);
    return 0;
}

void mount_hold(struct mount *m)
{
    lock_scope(&m->lock);
    m->held = true;
}

void mount_release(struct mount *m)
{
    lock_scope(&m->lock);
    m->held = false;
    (void)pthread_cond_broadcast(&m->news);
}

bool mount_wait_file(struct mount *m, size_t n)
{
    lock_scope(&m->lock);
    while (m->held && atomic_load(&m->n_files) == n)
        (void)pthread_cond_wait(&m->news, &m->lock);
    return atomic_load(&m->n_files) > n;
}

/* ---- workers ---- */

static void *worker(void *opaque);

/* Starts one more worker; the lock is held. A mount with fewer workers than wanted still serves. */
static bool add_worker(struct mount *m)
{
    if (m->n_workers == MOUNT_WORKERS_MAX ||
        pthread_create(&m->workers[m->n_workers], NULL, worker, m) != 0)
        return false;
    m->n_workers++;
    return true;
}

/* Called by a worker that takes a request: is anyone left to take the next? */
static void leave_idle(struct mount *m)
{
    if (atomic_fetch_sub(&m->idle, 1) > 1)
        return;
    lock_scope(&m->lock);
    if (!atomic_load(&m->stopping))
        (void)add_worker(m);
}

static void *worker(void *opaque)
{
    struct mount *m = opaque;
    struct fuse_buf buf = {0};
    struct pollfd fds[2] = {
        {.fd = fuse_session_fd(m->session), .events = POLLIN},
        {.fd = m->stop_fd, .events = POLLIN},
    };

    atomic_fetch_add(&m->idle, 1);
    while (!fuse_session_exited(m->session) && !atomic_load(&m->stopping)) {
        int n = fuse_session_receive_buf(m->session, &buf);
        if (n == -EINTR)
            continue;
        if (n == -EAGAIN) {
            if (poll(fds, 2, -1) < 0 && errno != EINTR)
                break;
            continue;
        }
        if (n <= 0) /* detached, or broken: libfuse has noted the end of the session */
            break;
        leave_idle(m);
        fuse_session_process_buf(m->session, &buf);
        atomic_fetch_add(&m->idle, 1);
    }
    atomic_fetch_sub(&m->idle, 1);
    free(buf.mem);
    return NULL;
}

static void join_workers(struct mount *m)
{
    atomic_store(&m->stopping, true);
    (void)eventfd_write(m->stop_fd, 1);
    for (;;) {
        pthread_t thread;
        {
            lock_scope(&m->lock);
            if (m->n_workers == 0)
                return;
            thread = m->workers[--m->n_workers];
        }
        (void)pthread_join(thread, NULL);
    }
}

/* ---- start ---- */

/* The kernel gives a FUSE mount 1 % of the dirty limit and 128 KiB of read-ahead. A guest's memory
 * needs the whole limit: measured, a guest that writes memory runs 40 % slower without. What cannot
 * be set does not keep us from the rest: strict_limit is of Linux 6.2, and Debian 12 has 6.1.
 * Documentation/ABI/testing/sysfs-class-bdi. */
static void lift_limits(const struct mount *m)
{
    char path[128], first[128] = "", read_ahead[16];
    int why = 0;
    const struct {
        const char *file, *value;
    } limits[] = {{"strict_limit", "0"}, {"max_ratio", "100"}, {"read_ahead_kb", read_ahead}};

    (void)snprintf(read_ahead, sizeof(read_ahead), "%u", m->read_ahead_kib);

    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        (void)snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/%s", major(m->dev), minor(m->dev),
                       limits[i].file);
        cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
        if ((fd < 0 || write(fd, limits[i].value, strlen(limits[i].value)) < 0) && !why) {
            why = errno;
            (void)snprintf(first, sizeof(first), "%s", path);
        }
    }
    if (why)
        log_warn(context_log(m->ctx),
                 "limits of the mount stay low, guest memory is slower, ignoring",
                 log_str("path", first), log_str("error", strerror(why)));
}

/* Detaches the mount on the folder. As an ordinary user through fusermount3, which may. */
static int detach(const char *path, struct error *err)
{
    if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        return 0;
    if (errno != EPERM)
        return error_sys(err, "mount %s: detach", path);
    const char *argv[] = {"fusermount3", "-u", "-z", "-q", "--", path, NULL};
    struct spawn_options opt = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    return spawn_run(&opt, NULL, 4096, NULL, err);
}

/* A dead mount answers ENOTCONN to everything. Not stat(2): its answer may be a cached one. */
static bool is_dead(const struct mount *m)
{
    struct statvfs fs;

    return statvfs(m->path, &fs) < 0 && errno == ENOTCONN;
}

/* The dead mount of an earlier process is its watcher's to detach. We give it time: a watcher that
 * has seen the mount dead, and acts after we have mounted on the folder, would detach ours. */
static int check_folder(const struct mount *m, struct error *err)
{
    const struct timespec nap = {.tv_nsec = 10 * 1000 * 1000};
    struct stat st;

    for (unsigned i = 0; i < WATCHER_NAPS && is_dead(m); i++)
        (void)nanosleep(&nap, NULL);
    if (is_dead(m) && detach(m->path, err) < 0)
        return -1;
    if (stat(m->path, &st) < 0)
        return error_sys(err, "mount %s", m->path);
    if (!S_ISDIR(st.st_mode))
        return error_num(err, ENOTDIR, "mount %s", m->path);
    return 0;
}

static int open_session(struct mount *m, struct error *err)
{
    /* Modes decide who may what. auto_unmount: a fusermount3 that outlives us detaches the mount.
     */
    bool root = geteuid() == 0;
    char options[] = "default_permissions,fsname=drafter,subtype=drafter,nosuid,nodev,noatime,"
                     "allow_other";
    if (!root)
        *strstr(options, ",allow_other") = '\0';
    char program[] = "drafter", dash_o[] = "-o";
    char *argv[] = {program, dash_o, options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);

    m->session = fuse_session_new(&args, &mount_fuse_ops, sizeof(mount_fuse_ops), m);
    fuse_opt_free_args(&args);
    if (!m->session)
        return error_set(err, EINVAL, "mount %s: libfuse refuses the session", m->path);
    if (fuse_session_mount(m->session, m->path) != 0) {
        fuse_session_destroy(m->session);
        m->session = NULL;
        return error_set(err, EPERM,
                         "mount %s: FUSE cannot mount; is /dev/fuse there, and fusermount3(1)?",
                         m->path);
    }
    return 0;
}

int mount_start_ahead(struct mount *m, struct error *err)
{
    struct stat st;

    if (check_folder(m, err) < 0)
        return -1;
    if (open_session(m, err) < 0)
        return -1;
    m->mounted = true;
    int fd = fuse_session_fd(m->session);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        error_sys(err, "mount %s: fcntl", m->path);
        goto fail;
    }
    {
        lock_scope(&m->lock);
        for (unsigned i = 0; i < WORKERS_START; i++)
            if (!add_worker(m) && i == 0) {
                error_set(err, EAGAIN, "mount %s: cannot start a thread", m->path);
                goto fail;
            }
    }
    /* Answered by a worker: when this returns, the mount serves. */
    if (stat(m->path, &st) < 0) {
        error_sys(err, "mount %s: look at the new mount", m->path);
        goto fail;
    }
    m->dev = st.st_dev;
    if (geteuid() == 0)
        lift_limits(m);
    if (watcher_start(m, err) < 0)
        goto fail;
    return 0;
fail:
    (void)mount_end(m, NULL);
    return -1;
}

int mount_start(struct mount *m, struct error *err)
{
    if (mount_start_ahead(m, err) < 0)
        return -1;
    if (mount_wait_watched(m, err) == 0)
        return 0;
    (void)mount_end(m, NULL);
    return -1;
}

/* ---- stop ---- */

static int flush_one(struct mount *m, int dirfd, const struct mount_file *f, struct error *err)
{
    cleanup_close int fd = openat(dirfd, f->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    /* A file whose mode denies even its owner was opened by nobody we would have to flush for. */
    if (fd < 0)
        return errno == EACCES ? 0 : error_sys(err, "mount %s: %s: open", m->path, f->name);
    if (fsync(fd) < 0) {
        atomic_store(&m->lost, errno);
        return error_sys(err, "mount %s: %s: flush", m->path, f->name);
    }
    return 0;
}

int mount_flush(struct mount *m, const char *name, struct error *err)
{
    struct stat st;
    bool found = false;
    int rc = 0;
    const int lost = atomic_load(&m->lost);

    if (!m->mounted)
        return error_set(err, ENOTCONN, "mount %s: flush: it is not mounted", m->path);
    cleanup_close int dirfd = open(m->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0 || fstat(dirfd, &st) < 0)
        return error_sys(err, "mount %s", m->path);
    if (st.st_dev != m->dev)
        return error_set(err, ENOTCONN, "mount %s: someone unmounted it", m->path);
    size_t n = atomic_load(&m->n_files);
    for (size_t i = 0; i < n; i++) {
        const struct mount_file *f = &m->files[i];
        if (name ? strcmp(f->name, name) != 0 : !f->ops->write)
            continue;
        found = true;
        if (flush_one(m, dirfd, f, rc == 0 ? err : NULL) < 0)
            rc = -1;
    }
    /* The kernel tells of what it could not write once, and lets the pages go (fsync(2)). */
    if (rc == 0 && lost)
        return error_set(err, lost,
                         "mount %s: flush: an earlier one failed, and what was written is lost",
                         m->path);
    if (name && !found)
        return error_set(err, ENOENT, "mount %s: no file %s", m->path, name);
    return rc;
}

int mount_forget(struct mount *m, const char *name, struct error *err)
{
    bool found = false;

    if (!m->mounted)
        return error_set(err, ENOTCONN, "mount %s: forget: it is not mounted", m->path);
    size_t n = atomic_load(&m->n_files);
    for (size_t i = 0; i < n; i++) {
        if (name && strcmp(m->files[i].name, name) != 0)
            continue;
        found = true;
        int rc = fuse_lowlevel_notify_inval_inode(m->session, FIRST_FILE + i, 0, 0);
        if (rc < 0 && rc != -ENOENT) /* ENOENT: nobody ever looked the file up */
            return error_num(err, -rc, "mount %s: %s: forget", m->path, m->files[i].name);
    }
    if (name && !found)
        return error_set(err, ENOENT, "mount %s: no file %s", m->path, name);
    return 0;
}

void mount_set_read_ahead(struct mount *m, unsigned kib)
{
    m->read_ahead_kib = kib;
}

int mount_set_lazy(struct mount *m, const char *name, bool lazy, struct error *err)
{
    size_t n = atomic_load(&m->n_files);

    for (size_t i = 0; i < n; i++)
        if (strcmp(m->files[i].name, name) == 0) {
            atomic_store(&m->files[i].lazy, lazy);
            return 0;
        }
    return error_set(err, ENOENT, "mount %s: no file %s", m->path, name);
}

/* Closes /dev/fuse, which is what breaks the connection while a user still has files open. In its
 * place comes a pipe that nobody reads: poll(2) tells POLLERR of it, as of a broken connection, by
 * which libfuse knows that there is nothing to unmount. It would detach whatever stands at the path
 * by now. */
static void break_connection(const struct mount *m)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return;
    (void)close(ends[0]);
    (void)dup3(ends[1], fuse_session_fd(m->session), O_CLOEXEC);
    (void)close(ends[1]);
}

int mount_end(struct mount *m, struct error *err)
{
    int rc = 0;

    if (!m->mounted)
        return 0;
    mount_release(m);
    m->mounted = false;
    watcher_end(m);
    struct stat st;
    /* Only detach what is ours: someone else may have unmounted and mounted since. */
    if (m->dev == 0 || (stat(m->path, &st) == 0 && st.st_dev == m->dev))
        rc = detach(m->path, err);
    join_workers(m);
    break_connection(m);
    fuse_session_unmount(m->session);
    fuse_session_destroy(m->session);
    m->session = NULL;
    return rc;
}

int mount_stop(struct mount *m, struct error *err)
{
    struct error second = ERROR_INIT;

    if (!m->mounted)
        return 0;
    int rc = mount_flush(m, NULL, err);
    if (mount_end(m, rc == 0 ? err : &second) < 0)
        rc = -1;
    return rc;
}

void mount_free(struct mount *m)
{
    if (!m)
        return;
    (void)mount_end(m, NULL);
    while (m->n_spare > 0)
        free(m->spare[--m->n_spare]);
    (void)close(m->stop_fd);
    pthread_cond_destroy(&m->news);
    pthread_mutex_destroy(&m->lock);
    free(m->path);
    free(m);
}
