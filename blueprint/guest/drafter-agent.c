// SPDX-License-Identifier: Apache-2.0
/* drafter-agent.c - runs in the guest: does what the host asks before a suspend and after a resume
 */
#include "blueprint/guest/agent.h"
#include "runtime/base/command.h"

struct opts {
    uint64_t vsock_port, vsock_timeout;
    const char *shell_cmd, *before_suspend_cmd, *after_resume_cmd, *connect;
};

static const struct option options[] = {
    OPTION(struct opts, vsock_port, .name = "vsock-port", .kind = OPTION_UINT, .arg = "PORT",
           .def = "26", .max = UINT32_MAX - 1, .help = "The host's vsock port to connect to."),
    OPTION(struct opts, vsock_timeout, .name = "vsock-timeout", .kind = OPTION_DURATION,
           .arg = "DURATION", .def = "1m",
           .help = "How long one attempt to connect may take at most; attempts go on for ever."),
    OPTION(struct opts, shell_cmd, .name = "shell-cmd", .kind = OPTION_STRING, .arg = "SHELL",
           .def = "sh", .help = "The shell that runs the commands, as SHELL -c COMMAND."),
    OPTION(struct opts, before_suspend_cmd, .name = "before-suspend-cmd", .kind = OPTION_STRING,
           .arg = "COMMAND", .def = "",
           .help = "Command to run before the machine is suspended; the host waits for its end and "
                   "a failure stops the suspend."),
    OPTION(struct opts, after_resume_cmd, .name = "after-resume-cmd", .kind = OPTION_STRING,
           .arg = "COMMAND", .def = "",
           .help = "Command to run after the machine was resumed, when clock and random pool are "
                   "right again."),
    OPTION(struct opts, connect, .name = "connect", .kind = OPTION_STRING, .arg = "unix:PATH",
           .def = "",
           .help = "For tests without a machine: connect to this UNIX socket instead of the host, "
                   "and leave clock and random pool alone."),
};

static int run(const void *opaque, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opaque;
    struct agent_options ao = {.dial_timeout_ns = o->vsock_timeout,
                               .shell = o->shell_cmd,
                               .before_suspend = o->before_suspend_cmd,
                               .after_resume = o->after_resume_cmd};

    (void)argc;
    (void)argv;
    if (o->vsock_timeout == 0)
        return error_set(err, ERROR_USAGE, "--vsock-timeout: must be more than 0");
    if (dial_parse(o->connect, o->vsock_port, &ao.target, err) < 0)
        return -1;
    ao.dry_resume = ao.target.unix_path;
    return agent_run(&ao, ctx, err);
}

static const struct command command = {
    .name = "drafter-agent",
    .summary = "runs in the guest: does what the host asks before a suspend and after a resume",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .options_size = sizeof(struct opts),
    .run = run,
};

int main(int argc, char **argv)
{
    return command_main(&command, argc, argv);
}
