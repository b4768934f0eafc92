// SPDX-License-Identifier: Apache-2.0
/* drafter-liveness.c - runs in the guest once it is up: tells the host by connecting to it
 *
 * No byte is sent either way: that the connection comes about is the message.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>

#include "blueprint/guest/dial.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/command.h"

#define MSEC UINT64_C(1000000)

struct opts {
    uint64_t vsock_port, vsock_timeout;
    const char *connect;
};

static const struct option options[] = {
    OPTION(struct opts, vsock_port, .name = "vsock-port", .kind = OPTION_UINT, .arg = "PORT",
           .def = "25", .max = UINT32_MAX - 1, .help = "The host's vsock port to connect to."),
    OPTION(struct opts, vsock_timeout, .name = "vsock-timeout", .kind = OPTION_DURATION,
           .arg = "DURATION", .def = "1m",
           .help = "How long to try; then the exit status is 1 and the error says why."),
    OPTION(struct opts, connect, .name = "connect", .kind = OPTION_STRING, .arg = "unix:PATH",
           .def = "",
           .help = "For tests without a machine: connect to this UNIX socket instead of the host."),
};

/* Waits for fd (-1: for nothing) until deadline. Returns 1 when it is ready, 0 at the deadline. */
static int wait_until(const struct context *ctx, int fd, uint64_t deadline, struct error *err)
{
    struct pollfd p[2] = {{.fd = ctx->cancel->fd, .events = POLLIN}, {.fd = fd, .events = POLLOUT}};

    for (;;) {
        uint64_t now = dial_now();
        if (context_check(ctx, err) < 0)
            return -1;
        if (now >= deadline)
            return 0;
        uint64_t ms = (deadline - now + MSEC - 1) / MSEC;
        if (poll(p, 2, (int)(ms < 3600000 ? ms : 3600000)) < 0 && errno != EINTR)
            return error_sys(err, "poll");
        if (p[1].revents)
            return 1;
    }
}

/* One attempt. Returns 0 when the host was reached. */
static int attempt(const struct dial_target *target, const struct context *ctx, uint64_t deadline,
                   struct error *err)
{
    int raw = -1;

    int rc = dial_start(target, &raw, err);
    cleanup_close int fd = raw;
    if (rc <= 0)
        return rc;
    rc = wait_until(ctx, fd, deadline, err);
    if (rc < 0)
        return -1;
    if (rc == 0)
        return error_set(err, ETIMEDOUT, "the host does not answer the connect");
    return dial_finish(target, fd, err);
}

static int run(const void *opaque, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opaque;
    const uint64_t start = dial_now();
    const uint64_t deadline = start + o->vsock_timeout;
    struct dial_target target;
    uint64_t pause = 0;

    (void)argc;
    (void)argv;
    if (dial_parse(o->connect, o->vsock_port, &target, err) < 0)
        return -1;
    while (attempt(&target, ctx, deadline, err) < 0) {
        uint64_t now = dial_now();
        if (context_check(ctx, NULL) < 0)
            return -1;
        if (now >= deadline)
            return error_wrap(err, "gave up after %llu ms",
                              (unsigned long long)((now - start) / MSEC));
        pause = dial_pause(pause, now - start);
        struct error stop;
        if (wait_until(ctx, -1, now + pause < deadline ? now + pause : deadline, &stop) < 0) {
            *err = stop;
            return -1;
        }
    }
    log_info(ctx->log, "Told the host that this machine is up");
    return 0;
}

static const struct command command = {
    .name = "drafter-liveness",
    .summary = "runs in the guest once it is up: tells the host by connecting to it",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .options_size = sizeof(struct opts),
    .run = run,
};

int main(int argc, char **argv)
{
    return command_main(&command, argc, argv);
}
