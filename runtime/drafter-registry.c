// SPDX-License-Identifier: Apache-2.0
/* drafter-registry.c - serves a package to any number of peers */
#include "runtime/peer/options.h"
#include "runtime/peer/registry.h"

struct opts {
    const char *package, *devices, *laddr;
    struct transport_options transport;
    uint64_t pulls, concurrency, bandwidth, zstd_level, status_fd, answer_timeout;
    bool no_verify, no_postcopy;
};

static const struct option options[] = {
    OPTION(struct opts, package, .name = "package", .letter = 'p', .kind = OPTION_STRING,
           .arg = "DIR",
           .help = "The package to serve; default out/package, unless --devices is given."),
    OPTION(struct opts, devices, .name = "devices", .kind = OPTION_TEXT, .arg = "JSON|@FILE",
           .help = "Instead of a package: an array of {\"name\", \"input\", \"blockSize\"}, as "
                   "upstream has it; \"state\", \"memory\" and \"config\" must be there."),
    OPTION(struct opts, laddr, .name = "laddr", .kind = OPTION_STRING, .arg = "ADDRESS",
           .def = ":1600",
           .help = "Listen there: HOST:PORT, unix:PATH, tls:HOST:PORT, fd:N, stdio."),
    OPTION(struct opts, pulls, .name = "pulls", .kind = OPTION_UINT, .arg = "N", .def = "64",
           .min = 1, .max = REGISTRY_PULLS_MAX,
           .help = "Serve so many at once; more are turned away."),
    OPTION(struct opts, concurrency, .name = "concurrency", .kind = OPTION_UINT, .arg = "N",
           .def = "0", .max = 1024,
           .help = "Threads of each pull that read, compress and send; 0: one for every "
                   "processor, 4 at most."),
    OPTION(struct opts, no_postcopy, .name = "disable-postcopy-migration", .kind = OPTION_FLAG,
           .help = "Let a puller run the machine only when all its data is there."),
    OPTION(struct opts, no_verify, .name = "no-verify", .kind = OPTION_FLAG,
           .help = "Do not compare the package's files with their digests first. Then all of it "
                   "travels, whatever a puller has."),
    OPTION(struct opts, answer_timeout, .name = "answer-timeout", .kind = OPTION_DURATION,
           .arg = "TIME", .def = "30m",
           .help =
               "Give a puller up that takes nothing and does not say what is due for so long; 0: "
               "never."),
    SEND_OPTIONS(struct opts, bandwidth, zstd_level),
    TLS_OPTIONS(struct opts, transport),
    TLS_LISTEN_OPTIONS(struct opts, transport),
    STATUS_OPTION(struct opts, status_fd),
};

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opts;
    cleanup_named struct named_list list = {0};
    struct registry_options ro = {
        .package = o->package   ? o->package
                   : o->devices ? NULL
                                : "out/package",
        .devices = &list,
        .laddr = o->laddr,
        .transport = o->transport,
        .pulls = (unsigned)o->pulls,
        .concurrency = (unsigned)o->concurrency,
        .no_verify = o->no_verify,
        .postcopy_off = o->no_postcopy,
        .zstd_level = (int)o->zstd_level,
        .bandwidth = o->bandwidth,
        .answer_ns = o->answer_timeout,
        .status_fd = status_fd(o->status_fd),
    };

    (void)argc, (void)argv;
    if (o->package && o->devices)
        return error_set(err, ERROR_USAGE, "--package and --devices: one of them, not both");
    if (transport_check_address(o->laddr, true, err) < 0 ||
        (o->devices && named_parse(o->devices, "input", &list, err) < 0))
        return error_usage(err);
    return registry_run(&ro, ctx, err);
}

int main(int argc, char **argv)
{
    static const struct command cmd = {
        .name = "drafter-registry",
        .summary = "serve a package to any number of peers at once",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .options_size = sizeof(struct opts),
        .run = run,
    };

    return command_main(&cmd, argc, argv);
}
