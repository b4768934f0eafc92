// SPDX-License-Identifier: Apache-2.0
/* watcher.c - a small process that detaches the mount when we die
 *
 * Theory of operation: libfuse's auto_unmount is meant for this and fails twice. A user's mount is
 * closed to everybody else, so the waiting fusermount3, which is root, cannot see that it is dead;
 * and as root it looks only once, which may be while the connection is just ending, and then leaves
 * the mount. So we wait ourselves: a shell in a session of its own reads from a pipe whose other
 * end only this process holds; when that ends, it asks the mount, which answers when it is alive or
 * finally dead, and detaches a dead one. PDEATHSIG would be wrong here: it is to live longer than
 * we do. To start a process takes some two milliseconds, which a thread spends beside us: a machine
 * that resumes does not wait for them.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#include "runtime/block/expose/mount_private.h"

/* $1: the folder. A live mount (of a successor that was quick) answers ls. Looked at again before
 * the second way: fusermount3 also fails when the mount has gone meanwhile. */
static const char script[] = "dead() { ! ls -- \"$1\" >/dev/null 2>&1; }; read -r _; "
                             "dead \"$1\" && ! fusermount3 -u -z -q -- \"$1\" && "
                             "dead \"$1\" && umount -l -- \"$1\"";

static int spawn_watcher(struct mount *m, struct error *err)
{
    extern char **environ;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    char sh[] = "sh", dash_c[] = "-c", text[sizeof(script)];
    int ends[2];

    char *absolute = realpath(m->path, NULL);
    if (!absolute)
        return error_sys(err, "mount %s", m->path);
    memcpy(text, script, sizeof(script));
    char *argv[] = {sh, dash_c, text, sh, absolute, NULL};
    if (pipe2(ends, O_CLOEXEC) < 0) {
        free(absolute);
        return error_sys(err, "mount %s: pipe", m->path);
    }
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_adddup2(&actions, ends[0], 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addchdir_np(&actions, "/");
    posix_spawnattr_setflags(&attr,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    int rc = posix_spawn(&m->watcher, "/bin/sh", &actions, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    free(absolute);
    (void)close(ends[0]);
    if (rc != 0) {
        (void)close(ends[1]);
        m->watcher = 0;
        return error_num(err, rc, "mount %s: start /bin/sh", m->path);
    }
    m->watcher_fd = ends[1];
    return 0;
}

static void *start(void *opaque)
{
    struct mount *m = opaque;

    (void)spawn_watcher(m, &m->watcher_error);
    return NULL;
}

int watcher_start(struct mount *m, struct error *err)
{
    int rc = pthread_create(&m->watcher_starter, NULL, start, m);

    if (rc != 0)
        return error_num(err, rc, "mount %s: start a thread", m->path);
    m->has_watcher_starter = true;
    return 0;
}

int mount_wait_watched(struct mount *m, struct error *err)
{
    if (m->has_watcher_starter)
        (void)pthread_join(m->watcher_starter, NULL);
    m->has_watcher_starter = false;
    if (m->watcher > 0)
        return 0;
    if (err)
        *err = m->watcher_error;
    return -1;
}

void watcher_end(struct mount *m)
{
    (void)mount_wait_watched(m, NULL);
    if (m->watcher <= 0)
        return;
    /* Killed first: it must not detach what someone else mounts on the folder after us. */
    (void)kill(m->watcher, SIGKILL);
    while (waitpid(m->watcher, NULL, 0) < 0 && errno == EINTR)
        continue;
    m->watcher = 0;
    (void)close(m->watcher_fd);
}
