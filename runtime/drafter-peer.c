// SPDX-License-Identifier: Apache-2.0
/* drafter-peer.c - resumes a machine, keeps it, hands it on */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "runtime/peer/options.h"
#include "runtime/peer/run.h"

struct opts {
    struct vm_opts vm;
    const char *package, *blueprint, *devices, *overlay_dir, *package_cache, *raddr, *laddr,
        *metrics;
    const char *trace, *cpu_template, *boot_args;
    struct transport_options transport;
    uint64_t cpus, memory_mib, concurrency, rescue_timeout, bandwidth, downtime_limit, zstd_level;
    uint64_t idle_timeout, retake_timeout;
    uint64_t status_fd;
    bool mock, verify, take_back, fresh, no_postcopy, early_postcopy;
};

static const struct option options[] = {
    OPTION(struct opts, package, .name = "package", .kind = OPTION_STRING, .arg = "DIR|FILE",
           .help = "The package to resume, a folder or an archive of drafter-packager; default "
                   "out/package, unless another start is given. "
                   "With --raddr it may be absent: it becomes what arrives."),
    OPTION(struct opts, blueprint, .name = "blueprint", .kind = OPTION_STRING, .arg = "DIR",
           .help = "Boot the machine of this blueprint, or resume it where it was suspended."),
    OPTION(struct opts, devices, .name = "devices", .kind = OPTION_TEXT, .arg = "JSON|@FILE",
           .help = "The machine's devices one by one, as upstream has them."),
    OPTION(struct opts, overlay_dir, .name = "overlay-dir", .kind = OPTION_STRING, .arg = "DIR",
           .def = "out/overlay",
           .help = "Where a package's or blueprint's machine writes; one for every machine."),
    OPTION(struct opts, package_cache, .name = "package-cache", .kind = OPTION_STRING, .arg = "DIR",
           .def = "out/packages",
           .help = "Where an archive is extracted, once for all machines: in a folder named by its "
                   "SHA-256."),
    OPTION(struct opts, fresh, .name = "fresh", .kind = OPTION_FLAG,
           .help = "Drop what the machine wrote in earlier runs."),
    OPTION(struct opts, verify, .name = "verify", .kind = OPTION_FLAG,
           .help = "Compare the package's files with their digests before anything starts."),
    OPTION(struct opts, raddr, .name = "raddr", .kind = OPTION_STRING, .arg = "ADDRESS",
           .help = "Take the machine over from the peer that listens there: HOST:PORT, unix:PATH, "
                   "tls:HOST:PORT, fd:N, stdio."),
    OPTION(struct opts, laddr, .name = "laddr", .kind = OPTION_STRING, .arg = "ADDRESS",
           .help = "Listen there for a peer that wants the machine."),
    OPTION(struct opts, take_back, .name = "take-back", .kind = OPTION_FLAG,
           .help = "The machine does not run where it was moved to: run it here again."),
    OPTION(struct opts, concurrency, .name = "concurrency", .kind = OPTION_UINT, .arg = "N",
           .def = "0", .max = 1024,
           .help =
               "Threads that read, compress and send, 16 at most; 0: one for every processor, 4 at "
               "most."),
    OPTION(struct opts, no_postcopy, .name = "disable-postcopy-migration", .kind = OPTION_FLAG,
           .help = "Run the machine only when all its data is there."),
    OPTION(struct opts, early_postcopy, .name = "early-postcopy", .kind = OPTION_FLAG,
           .help = "Suspend at once and let nearly all data follow."),
    SEND_OPTIONS(struct opts, bandwidth, zstd_level),
    OPTION(struct opts, downtime_limit, .name = "downtime-limit", .kind = OPTION_DURATION,
           .arg = "TIME", .def = "0",
           .help = "Give a migration up and run on when the machine has stood still for so long; "
                   "0: never."),
    TLS_OPTIONS(struct opts, transport),
    TLS_LISTEN_OPTIONS(struct opts, transport),
    OPTION(struct opts, idle_timeout, .name = "idle-timeout", .kind = OPTION_DURATION,
           .arg = "TIME", .def = "30s", .min = 1,
           .help = "A migration's other side that is silent for longer is taken for lost."),
    OPTION(struct opts, retake_timeout, .name = "retake-timeout", .kind = OPTION_DURATION,
           .arg = "TIME", .def = "1m", .min = 1,
           .help = "How long a side that was lost is looked for once it may have the machine."),
    OPTION(struct opts, mock, .name = "mock", .kind = OPTION_FLAG,
           .help = "No machine: open, serve and keep its devices only."),
    OPTION(struct opts, metrics, .name = "metrics", .kind = OPTION_STRING, .arg = "ADDRESS",
           .help = "Serve GET /metrics there, as Prometheus text; empty: do not."),
    STATUS_OPTION(struct opts, status_fd),
    TRACE_OPTION(struct opts, trace),
    OPTION(struct opts, rescue_timeout, .name = "rescue-timeout", .kind = OPTION_DURATION,
           .arg = "TIME", .def = "1m", .help = "Accepted for upstream's sake; of no effect."),
    OPTION(struct opts, cpus, .name = "cpu-count", .kind = OPTION_UINT, .arg = "N", .def = "1",
           .min = 1, .max = VMM_CPUS_MAX, .help = "Booting a blueprint: virtual CPUs."),
    OPTION(struct opts, memory_mib, .name = "memory-size", .kind = OPTION_UINT, .arg = "MIB",
           .def = "1024", .min = 1, .max = VMM_MEMORY_MIB_MAX,
           .help = "Booting a blueprint: guest memory in MiB."),
    OPTION(struct opts, cpu_template, .name = "cpu-template", .kind = OPTION_STRING, .arg = "NAME",
           .def = "None",
           .help = "Booting a blueprint: CPU template or model; None: the driver's."),
    OPTION(struct opts, boot_args, .name = "boot-args", .kind = OPTION_STRING, .arg = "TEXT",
           .help = "Booting a blueprint: kernel command line instead of its own."),
    VM_OPTIONS(struct opts, vm),
};

/* A terminal that types into a guest passes every key on; Ctrl-C too, so a signal ends the peer. */
static void set_raw(const struct opts *o, struct termios *ret_was, bool *ret_changed)
{
    struct termios raw;

    *ret_changed = false;
    if (!o->vm.enable_input || tcgetattr(STDIN_FILENO, ret_was) < 0)
        return;
    raw = *ret_was;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST;
    *ret_changed = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opts;
    struct termios was;
    bool raw;
    struct peer_options po = {
        .vm = &o->vm,
        .mock = o->mock,
        .verify = o->verify,
        .take_back = o->take_back,
        .fresh = o->fresh,
        .cpus = (uint32_t)o->cpus,
        .memory_mib = (uint32_t)o->memory_mib,
        .cpu_model = strcmp(o->cpu_template, "None") != 0 ? o->cpu_template : NULL,
        .boot_args = o->boot_args,
        .raddr = o->raddr,
        .laddr = o->laddr,
        .transport = o->transport,
        .postcopy = o->no_postcopy      ? MIGRATE_POSTCOPY_OFF
                    : o->early_postcopy ? MIGRATE_POSTCOPY_EARLY
                                        : MIGRATE_POSTCOPY_LAST,
        .concurrency = (unsigned)o->concurrency,
        .zstd_level = (int)o->zstd_level,
        .bandwidth = o->bandwidth,
        .downtime_limit_ns = o->downtime_limit,
        .idle_ns = o->idle_timeout,
        .retake_ns = o->retake_timeout,
        .status_fd = status_fd(o->status_fd),
        .trace = o->trace,
    };

    (void)argc, (void)argv;
    if (o->no_postcopy && o->early_postcopy)
        return error_set(err, ERROR_USAGE,
                         "--disable-postcopy-migration and --early-postcopy contradict each other");
    if ((po.laddr && *po.laddr && transport_check_address(po.laddr, true, err) < 0) ||
        (po.raddr && *po.raddr && transport_check_address(po.raddr, false, err) < 0))
        return error_usage(err);
    const struct plan_wish wish = {.package = o->package,
                                   .blueprint = o->blueprint,
                                   .devices = o->devices,
                                   .overlay_dir = o->overlay_dir,
                                   .package_cache = o->package_cache,
                                   .into = o->raddr && *o->raddr};
    struct plan *plan = plan_of_wish(&wish, ctx, err);
    if (!plan)
        return -1;
    set_raw(o, &was, &raw);
    sigset_t usr1;
    (void)sigemptyset(&usr1);
    (void)sigaddset(&usr1, SIGUSR1);
    po.cancel_fd = signalfd(-1, &usr1, SFD_CLOEXEC | SFD_NONBLOCK); /* blocked in main() */
    int rc = peer_run(plan, &po, o->metrics, ctx, err);
    if (po.cancel_fd >= 0)
        (void)close(po.cancel_fd);
    if (raw)
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &was);
    return rc;
}

int main(int argc, char **argv)
{
    static const struct command cmd = {
        .name = "drafter-peer",
        .summary = "run a machine from a package, keep it, and move it to other hosts",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .options_size = sizeof(struct opts),
        .run = run,
    };

    /* It calls a migration off: read from a descriptor, in no thread delivered. */
    sigset_t usr1;
    (void)sigemptyset(&usr1);
    (void)sigaddset(&usr1, SIGUSR1);
    (void)sigprocmask(SIG_BLOCK, &usr1, NULL);
    return command_main(&cmd, argc, argv);
}
