// SPDX-License-Identifier: Apache-2.0
/* notify.c - telling who started us how we are (sd_notify(3): the protocol, without the library) */
#include "runtime/base/notify.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"

int notify_state(const char *state, struct error *err)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};

    if (!path || !*path)
        return 0;
    const size_t len = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || len >= sizeof(to.sun_path))
        return error_set(err, EINVAL, "NOTIFY_SOCKET \"%s\": not a path of a socket", path);
    memcpy(to.sun_path, path, len);
    if (path[0] == '@')
        to.sun_path[0] = '\0'; /* the abstract name space, unix(7) */
    cleanup_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to,
                         (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
        return error_sys(err, "notify %s", path);
    return 0;
}

int notify_ready_fd(int fd, struct error *err)
{
    cleanup_close int mine = fd;

    return fd < 0 ? 0 : io_write(mine, "ready\n", 6, "the ready descriptor", err);
}
