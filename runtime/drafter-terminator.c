// SPDX-License-Identifier: Apache-2.0
/* drafter-terminator.c - takes a machine over and keeps it as a package */
#include <errno.h>

#include "runtime/base/command.h"
#include "runtime/peer/terminate.h"

struct opts {
    const char *raddr, *output, *devices, *tls_cert, *tls_key, *tls_ca, *trace;
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
    OPTION(struct opts, tls_cert, .name = "tls-cert", .kind = OPTION_STRING, .arg = "FILE",
           .help = "Our certificate chain for tls: addresses, PEM."),
    OPTION(struct opts, tls_key, .name = "tls-key", .kind = OPTION_STRING, .arg = "FILE",
           .help = "Its private key, PEM."),
    OPTION(struct opts, tls_ca, .name = "tls-ca", .kind = OPTION_STRING, .arg = "FILE",
           .help = "Who signs the other side's certificate, PEM."),
    OPTION(struct opts, status_fd, .name = "status-fd", .kind = OPTION_UINT, .arg = "FD",
           .def = "0", .max = 65535,
           .help = "Descriptor that gets events, one JSON object a line; 0: none."),
    OPTION(struct opts, trace, .name = "trace", .kind = OPTION_STRING, .arg = "FILE",
           .help = "Write which range moved when; tools/plot-migration draws it."),
};

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opts;
    cleanup_named struct named_list list = {0};
    struct terminate_options to = {
        .raddr = o->raddr,
        .transport = {.tls_cert = o->tls_cert, .tls_key = o->tls_key, .tls_ca = o->tls_ca},
        .output = o->output    ? o->output
                  : o->devices ? NULL
                               : "out/package",
        .devices = &list,
        .replace = o->replace,
        .keep_running = o->keep_running,
        .status_fd = o->status_fd ? (int)o->status_fd : -1,
        .trace = o->trace,
    };

    (void)argc, (void)argv;
    if (o->output && o->devices)
        return error_set(err, ERROR_USAGE, "--output and --devices: one of them, not both");
    if (transport_check_address(o->raddr, false, err) < 0 ||
        (o->devices && named_parse(o->devices, "output", &list, err) < 0)) {
        if (err)
            err->code = ERROR_USAGE;
        return -1;
    }
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
