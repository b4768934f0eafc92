// SPDX-License-Identifier: Apache-2.0
/* guestctl.c - the host's side of a guest's liveness ping and agent, by hand
 *
 * Both sockets are listened on before anything is waited for, so a machine that starts after
 * "Listening" was printed misses neither.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "runtime/base/command.h"
#include "runtime/guestlink/guestlink.h"

struct opts {
    const char *vsock_path;
    uint64_t liveness_port, agent_port, timeout;
};

static const struct option options[] = {
    OPTION(struct opts, vsock_path, .name = "vsock-path", .kind = OPTION_STRING, .arg = "SOCKET",
           .required = true,
           .help = "The machine's vsock device; a guest's call to port P arrives at SOCKET_P."),
    OPTION(struct opts, liveness_port, .name = "liveness-vsock-port", .kind = OPTION_UINT,
           .arg = "PORT", .def = "25", .max = UINT32_MAX - 1,
           .help = "Port of the liveness ping; 0 = the guest sends none."),
    OPTION(struct opts, agent_port, .name = "agent-vsock-port", .kind = OPTION_UINT, .arg = "PORT",
           .def = "26", .max = UINT32_MAX - 1,
           .help = "Port of the agent; 0 = the guest has none."),
    OPTION(struct opts, timeout, .name = "timeout", .kind = OPTION_DURATION, .arg = "DURATION",
           .def = "1m", .help = "How long to wait for each act."),
};

static const char *const acts[] = {"liveness", "before-suspend", "after-resume"};

static uint64_t now_ns(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int say(const char *what, uint64_t since, struct error *err)
{
    if (printf("%s\t%.1f ms\n", what, (double)(now_ns() - since) / 1e6) < 0 || fflush(stdout) != 0)
        return error_sys(err, "standard output: write");
    return 0;
}

static int run(const void *opaque, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opaque;
    struct guestlink_address at = {.vsock_path = o->vsock_path,
                                   .port = (uint32_t)o->liveness_port,
                                   .uid = (uid_t)-1,
                                   .gid = (gid_t)-1};
    cleanup_liveness struct guestlink_liveness *liveness = NULL;
    cleanup_agent struct guestlink_agent *agent = NULL;

    for (int i = 0; i < argc; i++) {
        bool known = false;
        for (size_t j = 0; j < ARRAY_SIZE(acts); j++)
            known = known || !strcmp(argv[i], acts[j]);
        if (!known)
            return error_set(err, ERROR_USAGE,
                             "\"%s\": must be liveness, before-suspend or after-resume", argv[i]);
    }
    if (guestlink_liveness_listen(&at, &liveness, err) < 0)
        return -1;
    at.port = (uint32_t)o->agent_port;
    if (guestlink_agent_listen(&at, context_log(ctx), &agent, err) < 0)
        return -1;
    log_info(context_log(ctx), "Listening", log_str("vsock", o->vsock_path));
    for (int i = 0; i < argc; i++) {
        uint64_t start = now_ns();
        int rc;
        if (!strcmp(argv[i], "liveness"))
            rc = guestlink_liveness_wait(liveness, o->timeout, ctx, err);
        else if (!strcmp(argv[i], "before-suspend"))
            rc = guestlink_agent_before_suspend(agent, o->timeout, ctx, err);
        else
            rc = guestlink_agent_after_resume(agent, o->timeout, ctx, err);
        if (rc < 0)
            return error_wrap(err, "%s", argv[i]);
        if (say(argv[i], start, err) < 0)
            return -1;
    }
    return 0;
}

static const struct command command = {
    .name = "guestctl",
    .summary = "wait for a guest's liveness ping, ask its agent, by hand",
    .operands = "ACT...",
    .min_operands = 1,
    .max_operands = -1,
    .options = options,
    .n_options = ARRAY_SIZE(options),
    .options_size = sizeof(struct opts),
    .run = run,
};

int main(int argc, char **argv)
{
    return command_main(&command, argc, argv);
}
