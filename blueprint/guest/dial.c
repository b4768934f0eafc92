// SPDX-License-Identifier: Apache-2.0
/* dial.c - how the guest's programs reach their host */
#include "blueprint/guest/dial.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "runtime/base/cleanup.h"

#define MSEC UINT64_C(1000000)
#define FAST_TIME (3000 * MSEC)
#define FAST_PAUSE (25 * MSEC)
#define SLOW_PAUSE (1000 * MSEC)

int dial_parse(const char *connect, uint64_t port, struct dial_target *ret_target,
               struct error *err)
{
    struct sockaddr_un sa;

    if (!connect || !*connect) {
        *ret_target = (struct dial_target){.port = (uint32_t)port};
        return 0;
    }
    if (strncmp(connect, "unix:", 5) != 0 || !connect[5])
        return error_set(err, ERROR_USAGE, "--connect %s: is not unix:PATH", connect);
    if (strlen(connect + 5) >= sizeof(sa.sun_path))
        return error_set(
            err, ERROR_USAGE,
            "--connect %s: the path is longer than the %zu bytes a UNIX socket can have", connect,
            sizeof(sa.sun_path) - 1);
    *ret_target = (struct dial_target){.unix_path = connect + 5};
    return 0;
}

static int explain(const struct dial_target *t, struct error *err)
{
    if (t->unix_path)
        return error_sys(err, "connect to %s", t->unix_path);
    /* Firecracker and the kernel reset a call to a port nobody listens on. */
    if (errno == ECONNRESET)
        return error_set(err, ECONNREFUSED, "connect to vsock port %u of the host: nobody listens",
                         t->port);
    return error_sys(err, "connect to vsock port %u of the host", t->port);
}

int dial_socket(const struct dial_target *target, struct error *err)
{
    const bool is_unix = target->unix_path;
    int fd = socket(is_unix ? AF_UNIX : AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return error_sys(err, is_unix
                                  ? "UNIX socket"
                                  : "vsock socket: no vsock device, or its driver is not loaded");
    return fd;
}

int dial_connect(const struct dial_target *target, int fd, struct error *err)
{
    struct sockaddr_vm vm = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = target->port};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int rc;

    if (target->unix_path) {
        memcpy(un.sun_path, target->unix_path, strlen(target->unix_path));
        rc = connect(fd, (struct sockaddr *)&un, sizeof(un));
    } else {
        rc = connect(fd, (struct sockaddr *)&vm, sizeof(vm));
    }
    if (rc < 0 && errno != EINPROGRESS)
        return explain(target, err);
    return rc < 0;
}

int dial_start(const struct dial_target *target, int *ret_fd, struct error *err)
{
    cleanup_close int fd = dial_socket(target, err);
    int rc = fd < 0 ? -1 : dial_connect(target, fd, err);

    if (rc >= 0)
        *ret_fd = steal_fd(&fd);
    return rc;
}

int dial_finish(const struct dial_target *target, int fd, struct error *err)
{
    int soerr = 0;
    socklen_t len = sizeof(soerr);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &soerr, &len) < 0)
        soerr = errno;
    errno = soerr;
    return soerr ? explain(target, err) : 0;
}

uint64_t dial_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 * MSEC + (uint64_t)ts.tv_nsec;
}

uint64_t dial_pause(uint64_t pause_ns, uint64_t lost_ns)
{
    const uint64_t most = lost_ns < FAST_TIME ? FAST_PAUSE : SLOW_PAUSE;
    const uint64_t next = pause_ns ? 2 * pause_ns : MSEC;

    return next < most ? next : most;
}
