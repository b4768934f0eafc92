// SPDX-License-Identifier: Apache-2.0
/* drafter-terminator.c - takes a machine over and keeps it as a package */
#include "runtime/peer/options.h"
#include "runtime/peer/terminate.h"

struct opts {
    const char *raddr, *output, *devices, *trace;
    struct transport_options transport;
    uint64_t status_fd;
    bool replace, keep_running;
};

static const struct option options[] = {
    OPTION(struct opts, raddr, .name = "raddr", .kind = OPTION_STRING, .arg = "ADDRESS",
           .def = "localhost:1337",
           .help = "The peer or registry that listens there: HOST:PORT, unix:PATH, "
                   "tls:HOST:PORT, fd:N, stdio."),
    OPTION(struct opts, output, .name = "output", .letter = 'o', .kind = OPTION_STRING,
           .arg = "DIR",
           .help = "The package to make; default out/package, unless --devices is given."),
    OPTION(struct opts, devices, .name = "devices", .kind = OPTION_TEXT, .arg = "JSON|@FILE",
           .help = "Instead of a folder: an array of {\"name\", \"output\"}, as upstream has it; "
                   "\"state\" and \"config\" must be there."),
    OPTION(struct opts, keep_running, .name = "keep-running", .letter = 'k', .kind = OPTION_FLAG,
           .help = "Take a copy: the source's machine stands still until everything has "
                   "arrived, and runs on there."),
    OPTION(struct opts, replace, .name = "replace", .kind = OPTION_FLAG,
           .help = "Put what arrives in the place of what is there, when it is whole."),
    TLS_OPTIONS(struct opts, transport),
    STATUS_OPTION(struct opts, status_fd),
    TRACE_OPTION(struct opts, trace),
};

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opts;
    cleanup_named struct named_list list = {0};
    struct terminate_options to = {
        .raddr = o->raddr,
        .transport = o->transport,
        .output = o->output    ? o->output
                  : o->devices ? NULL
                               : "out/package",
        .devices = &list,
        .replace = o->replace,
        .keep_running = o->keep_running,
        .status_fd = status_fd(o->status_fd),
        .trace = o->trace,
    };

    (void)argc, (void)argv;
    if (o->output && o->devices)
        return error_set(err, ERROR_USAGE, "--output and --devices: one of them, not both");
    if (transport_check_address(o->raddr, false, err) < 0 ||
        (o->devices && named_parse(o->devices, "output", &list, err) < 0))
        return error_usage(err);
    return terminate_run(&to, ctx, err);
}

int main(int argc, char **argv)
{
    static const struct command cmd = {
        .name = "drafter-terminator",
        .summary = "take a machine over from a peer and keep it as a package",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .options_size = sizeof(struct opts),
        .run = run,
    };

    return command_main(&cmd, argc, argv);
}
