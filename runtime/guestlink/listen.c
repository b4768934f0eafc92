// SPDX-License-Identifier: Apache-2.0
/* listen.c - the listening sockets of the guest link */
#include "runtime/guestlink/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#define BACKLOG 16

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int open_folder(const char *path, struct error *err)
{
    const size_t len = (size_t)(last_part(path) - path);

    cleanup_free char *dir = len ? strndup(path, len) : strdup(".");
    if (!dir)
        return error_oom(err);
    int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "open folder %s", dir);
    return fd;
}

/* The address is built on the folder's descriptor when the path itself is too long for it. */
static int fill_address(const struct guest_listener *l, struct sockaddr_un *sa, struct error *err)
{
    int n;

    *sa = (struct sockaddr_un){.sun_family = AF_UNIX};
    n = snprintf(sa->sun_path, sizeof(sa->sun_path), "%s", l->path);
    if (n >= (int)sizeof(sa->sun_path))
        n = snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d/%s", l->dir,
                     last_part(l->path));
    if (n >= (int)sizeof(sa->sun_path))
        return error_set(err, ENAMETOOLONG,
                         "%s: its last part is too long for the name of a UNIX socket", l->path);
    return 0;
}

/* Removes what a process that died left; only a socket can be that. */
static int remove_stale(const struct guest_listener *l, struct error *err)
{
    struct stat st;

    if (fstatat(l->dir, last_part(l->path), &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : error_sys(err, "%s", l->path);
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, EEXIST, "%s: exists and is no socket; remove it", l->path);
    if (unlinkat(l->dir, last_part(l->path), 0) < 0 && errno != ENOENT)
        return error_sys(err, "remove old socket %s", l->path);
    return 0;
}

static int bind_and_listen(struct guest_listener *l, const struct guestlink_address *address,
                           struct error *err)
{
    const char *name = last_part(l->path);
    struct sockaddr_un sa;
    struct stat st;

    if (fill_address(l, &sa, err) < 0 || remove_stale(l, err) < 0)
        return -1;
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0)
        return error_sys(err, "UNIX socket");
    /* The mode of an unbound socket becomes the mode of its file (bind(2) on Linux applies the
     * umask to it): nobody finds it open for a moment. */
    if (fchmod(l->fd, 0600) < 0)
        return error_sys(err, "mode of socket %s", l->path);
    if (bind(l->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        return error_sys(err, "bind socket %s", l->path);
    if (fstatat(l->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return error_sys(err, "%s", l->path);
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    if ((address->uid != (uid_t)-1 || address->gid != (gid_t)-1) &&
        fchownat(l->dir, name, address->uid, address->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return error_sys(err, "give socket %s to uid %d, gid %d", l->path, (int)address->uid,
                         (int)address->gid);
    if (listen(l->fd, BACKLOG) < 0)
        return error_sys(err, "listen on %s", l->path);
    return 0;
}

int guest_listener_open(const struct guestlink_address *address,
                        struct guest_listener *ret_listener, struct error *err)
{
    struct guest_listener l = GUEST_LISTENER_INIT;

    if (asprintf(&l.path, "%s_%u", address->vsock_path, address->port) < 0)
        return error_oom(err);
    l.dir = open_folder(l.path, err);
    if (l.dir < 0 || bind_and_listen(&l, address, err) < 0) {
        guest_listener_close(&l);
        return -1;
    }
    *ret_listener = l;
    return 0;
}

int guest_listener_accept(const struct guest_listener *listener)
{
    return accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

void guest_listener_close(struct guest_listener *listener)
{
    struct stat st;

    if (listener->ino != 0 &&
        fstatat(listener->dir, last_part(listener->path), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        st.st_dev == listener->dev && st.st_ino == listener->ino)
        (void)unlinkat(listener->dir, last_part(listener->path), 0);
    cleanup_close_p(&listener->fd);
    cleanup_close_p(&listener->dir);
    cleanup_free_p(&listener->path);
    listener->ino = 0;
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

uint64_t guest_deadline(uint64_t ns)
{
    uint64_t sum;

    return __builtin_add_overflow(now_ns(), ns, &sum) ? UINT64_MAX : sum;
}

int guest_poll(struct pollfd *fds, unsigned n, uint64_t deadline, const struct context *ctx,
               struct error *err)
{
    fds[0] = (struct pollfd){.fd = ctx && ctx->cancel ? ctx->cancel->fd : -1, .events = POLLIN};
    for (;;) {
        if (context_check(ctx, err) < 0)
            return -1;
        uint64_t now = now_ns();
        uint64_t ms = deadline > now ? (deadline - now + 999999) / 1000000 : 0;
        int rc = poll(fds, n, (int)(ms < 1000000 ? ms : 1000000));
        if (rc < 0 && errno != EINTR)
            return error_sys(err, "poll");
        if (rc > 0)
            for (unsigned i = 1; i < n; i++)
                if (fds[i].revents)
                    return 1;
        if (rc == 0 && now_ns() >= deadline)
            return 0;
    }
}
