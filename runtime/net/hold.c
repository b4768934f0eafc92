// SPDX-License-Identifier: Apache-2.0
/* hold.c - changes of the host's settings that several processes want, and that are set back */
#include "runtime/net/hold.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "runtime/base/io.h"
#include "runtime/base/output.h"
#include "runtime/net/net.h"

#define VALUE_MAX 32
#define LOCK_PATH NET_STATE_DIR "/lock"

struct hold {
    int fd;
    char file[192];
    char sysctl[128];
    char value[VALUE_MAX], before[VALUE_MAX];
};

static int sysctl_read(const char *sysctl, char value[VALUE_MAX], struct error *err)
{
    char path[160];

    (void)snprintf(path, sizeof(path), "/proc/sys/%s", sysctl);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "%s", path);
    ssize_t n = io_read(fd, value, VALUE_MAX - 1, path, err);
    if (n < 0)
        return -1;
    value[n] = '\0';
    value[strcspn(value, "\n")] = '\0';
    return 0;
}

static int sysctl_write(const char *sysctl, const char *value, struct error *err)
{
    char path[160];

    (void)snprintf(path, sizeof(path), "/proc/sys/%s", sysctl);
    cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "%s", path);
    return io_write(fd, value, strlen(value), path, err);
}

/* Serialises; closed to unlock. */
static int lock_all(struct error *err)
{
    if (output_make_dirs(NET_STATE_DIR, err) < 0)
        return -1;
    cleanup_close int fd = open(LOCK_PATH, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_sys(err, "%s", LOCK_PATH);
    while (flock(fd, LOCK_EX) < 0)
        if (errno != EINTR)
            return error_sys(err, "lock %s", LOCK_PATH);
    return steal_fd(&fd);
}

static void hold_free(struct hold *h)
{
    cleanup_close_p(&h->fd);
    free(h);
}

DEFINE_CLEANUP(cleanup_hold_p, struct hold *, hold_free)

/* With the lock held. now: the sysctl's value. Returns 1 when held, 0 when there is nothing to do.
 */
static int take(struct hold *h, const char *now, struct error *err)
{
    struct stat st;

    h->fd = open(h->file, O_RDWR | O_CLOEXEC);
    if (h->fd < 0 && errno == ENOENT) {
        if (strcmp(now, h->value) == 0)
            return 0;
        h->fd = open(h->file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    }
    /* Never waits: an exclusive lock is held only with the lock of all. */
    if (h->fd < 0 || flock(h->fd, LOCK_SH) < 0 || fstat(h->fd, &st) < 0)
        return error_sys(err, "%s", h->file);
    if (st.st_size == 0) { /* new, or its maker was killed before he changed anything */
        memcpy(h->before, now, VALUE_MAX);
        if (io_pwrite(h->fd, now, strlen(now), 0, h->file, err) < 0)
            return -1;
    } else {
        ssize_t n = io_pread(h->fd, h->before, VALUE_MAX - 1, 0, h->file, err);
        if (n < 0)
            return -1;
        h->before[n] = '\0';
    }
    return 1;
}

int hold_sysctl(uint64_t host, const char *sysctl, const char *value, struct hold **ret,
                struct error *err)
{
    CLEANUP(cleanup_hold_p) struct hold *h = calloc(1, sizeof(*h));
    char now[VALUE_MAX] = "";

    if (!h)
        return error_oom(err);
    h->fd = -1;
    (void)snprintf(h->sysctl, sizeof(h->sysctl), "%s", sysctl);
    (void)snprintf(h->value, sizeof(h->value), "%s", value);
    int n = snprintf(h->file, sizeof(h->file), NET_STATE_DIR "/sysctl-%" PRIu64 "-", host);
    (void)snprintf(h->file + n, sizeof(h->file) - (size_t)n, "%s", sysctl);
    for (char *p = h->file + n; *p; p++)
        if (*p == '/')
            *p = ',';
    cleanup_close int lock = lock_all(err);
    if (lock < 0 || sysctl_read(sysctl, now, err) < 0)
        return -1;
    int held = take(h, now, err);
    if (held < 0)
        return -1;
    if (held == 0) {
        *ret = NULL;
        return 0;
    }
    if (strcmp(now, value) != 0 && sysctl_write(sysctl, value, err) < 0) {
        if (flock(h->fd, LOCK_EX | LOCK_NB) == 0)
            (void)unlink(h->file);
        return -1;
    }
    *ret = steal_ptr(&h);
    return 0;
}

int hold_renew(const struct hold *h, struct error *err)
{
    return sysctl_write(h->sysctl, h->value, err);
}

int hold_release(struct hold *h, int *ret_last, struct error *err)
{
    CLEANUP(cleanup_hold_p) struct hold *mine = h;
    char now[VALUE_MAX] = "";
    struct error why;

    if (ret_last)
        *ret_last = 0;
    if (!h)
        return 0;
    cleanup_close int lock = lock_all(err);
    if (lock < 0)
        return -1;
    if (flock(h->fd, LOCK_EX | LOCK_NB) < 0)
        return 0; /* somebody else goes on holding it */
    if (ret_last)
        *ret_last = 1;
    int rc = sysctl_read(h->sysctl, now, &why);
    if (rc == 0 && strcmp(now, h->value) == 0)
        rc = sysctl_write(h->sysctl, h->before, &why);
    if (rc < 0 && why.code == ENOENT)
        rc = 0;
    (void)unlink(h->file);
    if (rc < 0)
        return error_set(err, why.code, "set %s back to %s: %s", h->sysctl, h->before, why.text);
    return 0;
}

/* One file of the state folder, with the lock of all held. */
static int sweep_one(const char *name, size_t prefix, struct error *err)
{
    char path[sizeof(NET_STATE_DIR) + 256], sysctl[256], before[VALUE_MAX] = "";
    struct error why;

    (void)snprintf(path, sizeof(path), NET_STATE_DIR "/%s", name);
    cleanup_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return 0; /* held */
    ssize_t n = io_pread(fd, before, sizeof(before) - 1, 0, path, err);
    if (n < 0)
        return -1;
    before[n] = '\0';
    (void)snprintf(sysctl, sizeof(sysctl), "%s", name + prefix);
    for (char *p = sysctl; *p; p++)
        if (*p == ',')
            *p = '/';
    if (n > 0 && sysctl_write(sysctl, before, &why) < 0 && why.code != ENOENT)
        return error_set(err, why.code, "set %s back to %s: %s", sysctl, before, why.text);
    (void)unlink(path);
    return 0;
}

int hold_sweep(uint64_t host, struct error *err)
{
    char prefix[64];
    const struct dirent *e;
    const int len = snprintf(prefix, sizeof(prefix), "sysctl-%" PRIu64 "-", host);
    cleanup_close int lock = lock_all(err);

    if (lock < 0)
        return -1;
    cleanup_closedir DIR *dir = opendir(NET_STATE_DIR);
    if (!dir)
        return error_sys(err, "read %s", NET_STATE_DIR);
    while ((e = readdir(dir)))
        if (strncmp(e->d_name, prefix, (size_t)len) == 0 &&
            sweep_one(e->d_name, (size_t)len, err) < 0)
            return -1;
    return 0;
}
