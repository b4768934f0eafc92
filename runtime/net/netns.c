// SPDX-License-Identifier: Apache-2.0
/* netns.c - named network namespaces, as `ip netns` keeps them (ip-netns(8)), and whose they are */
#include "runtime/net/netns.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"
#include "runtime/base/output.h"
#include "runtime/net/net.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* asm-generic/socket.h, Linux 5.14 */
#endif

#define MARK_DIR NET_STATE_DIR "/netns"
#define MARK_MAX 64
#define PATH_SIZE 128

_Static_assert(sizeof(NET_NAMESPACE_DIR) <= 11, "and is told from longer ones in mountinfo");
_Static_assert(sizeof(MARK_DIR "/") + NET_NAME_MAX < PATH_SIZE, "a path holds any name");

struct run_in {
    int fd;
    int (*fn)(void *opaque, struct error *err);
    void *opaque;
    struct error *err;
    int rc;
};

static void *run_in_thread(void *opaque)
{
    struct run_in *r = opaque;

    if (setns(r->fd, CLONE_NEWNET) < 0)
        r->rc = error_sys(r->err, "enter a network namespace");
    else
        r->rc = r->fn(r->opaque, r->err);
    return NULL;
}

int net_run_in(int netns_fd, int (*fn)(void *opaque, struct error *err), void *opaque,
               struct error *err)
{
    struct run_in r = {.fd = netns_fd, .fn = fn, .opaque = opaque, .err = err};
    pthread_t thread;

    int rc = pthread_create(&thread, NULL, run_in_thread, &r);
    if (rc != 0)
        return error_num(err, rc, "start a thread");
    (void)pthread_join(thread, NULL);
    return r.rc;
}

/* A name that is one component of a path. */
static bool plain_name(const char *name)
{
    return *name && strlen(name) < NET_NAME_MAX && !strchr(name, '/') && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

int net_open_namespace(const char *name, struct error *err)
{
    char path[PATH_SIZE];
    struct statfs fs;

    if (!plain_name(name))
        return error_set(err, EINVAL, "network namespace \"%s\": not a name", name);
    (void)snprintf(path, sizeof(path), NET_NAMESPACE_DIR "/%s", name);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return error_set(err, ENOENT,
                         "network namespace %s is not there; start drafter-nat, or make it with "
                         "'ip netns add'",
                         name);
    if (fd < 0)
        return error_sys(err, "network namespace %s", name);
    if (fstatfs(fd, &fs) < 0)
        return error_sys(err, "network namespace %s", name);
    if (fs.f_type != NSFS_MAGIC)
        return error_set(err, ENOENT, "network namespace %s: %s is a file, but no namespace", name,
                         path);
    return steal_fd(&fd);
}

int netns_cookie(uint64_t *ret, struct error *err)
{
    cleanup_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof(*ret);

    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret, &len) < 0)
        return error_sys(err, "read the cookie of a network namespace (Linux 5.14 has them)");
    return 0;
}

static int cookie_of(void *opaque, struct error *err)
{
    return netns_cookie(opaque, err);
}

int netns_prepare(struct error *err)
{
    if (output_make_dirs(MARK_DIR, err) < 0 || output_make_dirs(NET_NAMESPACE_DIR, err) < 0)
        return -1;
    /* Shared, so that a name made here is one in every mount namespace, and gone there when it is
     * removed here; only a mount point can be made so. */
    if (mount("", NET_NAMESPACE_DIR, "none", MS_SHARED | MS_REC, NULL) == 0)
        return 0;
    if (errno != EINVAL ||
        mount(NET_NAMESPACE_DIR, NET_NAMESPACE_DIR, "none", MS_BIND | MS_REC, NULL) < 0 ||
        mount("", NET_NAMESPACE_DIR, "none", MS_SHARED | MS_REC, NULL) < 0)
        return error_sys(err, "make %s a shared mount", NET_NAMESPACE_DIR);
    return 0;
}

bool netns_names_hidden(void)
{
    /* "ID PARENT MAJ:MIN ROOT POINT OPTIONS [TAG...] - ...", proc(5); the last one is on top */
    cleanup_fclose FILE *f = fopen("/proc/self/mountinfo", "re");
    char line[4096], point[sizeof(NET_NAMESPACE_DIR) + 1];
    bool hidden = false;

    while (f && fgets(line, sizeof(line), f)) {
        char *end = strstr(line, " - ");
        if (!end || sscanf(line, "%*s %*s %*s %*s %11s", point) != 1 ||
            strcmp(point, NET_NAMESPACE_DIR) != 0)
            continue;
        *end = '\0';
        hidden = strstr(line, " master:") != NULL;
    }
    return hidden;
}

/* Returns 1, or 0 when there is none or it is not one of our writing. */
static int read_mark(const char *name, uint64_t *ret_cookie, uint64_t *ret_host)
{
    char path[PATH_SIZE], nl;
    struct error ignored;

    (void)snprintf(path, sizeof(path), MARK_DIR "/%s", name);
    cleanup_free char *text = io_read_file(AT_FDCWD, path, MARK_MAX, NULL, &ignored);
    return text && sscanf(text, "%" SCNu64 " %" SCNu64 "%c", ret_cookie, ret_host, &nl) == 3 &&
           nl == '\n';
}

int netns_look(const char *name, uint64_t host, enum netns_owner *ret, struct error *err)
{
    uint64_t cookie = 0, of = 0, found = 0;
    const bool marked = read_mark(name, &cookie, &of);
    char path[PATH_SIZE];
    struct error why;

    (void)snprintf(path, sizeof(path), NET_NAMESPACE_DIR "/%s", name);
    if (access(path, F_OK) < 0) {
        *ret = marked && of == host ? NETNS_REMAINS : NETNS_ABSENT;
        return 0;
    }
    cleanup_close int fd = net_open_namespace(name, &why);
    if (!marked || of != host)
        *ret = NETNS_FOREIGN;
    else if (fd < 0)
        *ret = NETNS_REMAINS; /* an empty file: the mount was not reached */
    else if (net_run_in(fd, cookie_of, &found, err) < 0)
        return error_wrap(err, "network namespace %s", name);
    else
        *ret = found == cookie ? NETNS_OURS : NETNS_FOREIGN;
    return 0;
}

static int write_mark(const char *name, uint64_t cookie, uint64_t host, struct error *err)
{
    char path[PATH_SIZE], text[MARK_MAX];

    (void)snprintf(path, sizeof(path), MARK_DIR "/%s", name);
    int n = snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64 "\n", cookie, host);
    cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return error_sys(err, "%s", path);
    return io_write(fd, text, (size_t)n, path, err);
}

int netns_create(const char *name, uint64_t host, struct error *err)
{
    char path[PATH_SIZE];
    uint64_t cookie;

    if (unshare(CLONE_NEWNET) < 0)
        return error_sys(err, "make a network namespace");
    /* The mark first: what stands under the name without it is not ours. */
    if (netns_cookie(&cookie, err) < 0 || write_mark(name, cookie, host, err) < 0)
        return -1;
    (void)snprintf(path, sizeof(path), NET_NAMESPACE_DIR "/%s", name);
    cleanup_close int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    if (fd < 0) {
        int rc = error_sys(err, "%s", path);
        (void)snprintf(path, sizeof(path), MARK_DIR "/%s", name);
        (void)unlink(path);
        return rc;
    }
    if (mount("/proc/thread-self/ns/net", path, "none", MS_BIND, NULL) < 0) {
        int rc = error_sys(err, "mount a network namespace on %s", path);
        struct error ignored;
        (void)netns_remove(name, &ignored);
        return rc;
    }
    return 0;
}

int netns_remove(const char *name, struct error *err)
{
    char path[PATH_SIZE];

    (void)snprintf(path, sizeof(path), NET_NAMESPACE_DIR "/%s", name);
    if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
        return error_sys(err, "unmount %s", path);
    if (unlink(path) < 0 && errno != ENOENT)
        return error_sys(err, "remove %s", path);
    (void)snprintf(path, sizeof(path), MARK_DIR "/%s", name);
    if (unlink(path) < 0 && errno != ENOENT)
        return error_sys(err, "remove %s", path);
    return 0;
}

int netns_each_mark(uint64_t host, int (*take)(const char *name, void *opaque, struct error *err),
                    void *opaque, struct error *err)
{
    cleanup_closedir DIR *dir = opendir(MARK_DIR);
    const struct dirent *e;
    uint64_t cookie, of;

    if (!dir)
        return error_sys(err, "read %s", MARK_DIR);
    while ((e = readdir(dir)))
        if (plain_name(e->d_name) && read_mark(e->d_name, &cookie, &of) && of == host &&
            take(e->d_name, opaque, err) < 0)
            return -1;
    return 0;
}
