// SPDX-License-Identifier: Apache-2.0
/* drafter-snapshotter.c - boots a blueprint once and keeps it as a package */
#include <string.h>

#include "runtime/base/json.h"
#include "runtime/snapshot/snapshot.h"
#include "runtime/snapshot/vm_options.h"

struct opts {
    struct vm_opts vm;
    const char *blueprint, *output, *devices, *cpu_template, *boot_args, *until;
    uint64_t cpus, memory_mib, liveness_port, agent_port;
    bool io_engine_sync;
};

static const struct option options[] = {
    OPTION(struct opts, blueprint, .name = "blueprint", .kind = OPTION_STRING, .arg = "DIR",
           .help = "The blueprint to boot; default out/blueprint, unless --devices is given."),
    OPTION(struct opts, output, .name = "output", .kind = OPTION_STRING, .arg = "DIR",
           .def = "out/package", .help = "The package to make of a blueprint."),
    OPTION(struct opts, devices, .name = "devices", .kind = OPTION_TEXT, .arg = "JSON|@FILE",
           .help = "Instead of a blueprint: an array of {\"name\", \"input\", \"output\"}, as "
                   "upstream has it."),
    OPTION(struct opts, cpus, .name = "cpu-count", .kind = OPTION_UINT, .arg = "N", .def = "1",
           .min = 1, .max = VMM_CPUS_MAX, .help = "Virtual CPUs."),
    OPTION(struct opts, memory_mib, .name = "memory-size", .kind = OPTION_UINT, .arg = "MIB",
           .def = "1024", .min = 1, .max = VMM_MEMORY_MIB_MAX, .help = "Guest memory in MiB."),
    OPTION(struct opts, cpu_template, .name = "cpu-template", .kind = OPTION_STRING, .arg = "NAME",
           .def = "None",
           .help = "Firecracker's static CPU template (C3, T2, T2S, T2CL, T2A, V1N1), or a CPU "
                   "model of QEMU; None: chosen by the driver."),
    OPTION(struct opts, boot_args, .name = "boot-args", .kind = OPTION_STRING, .arg = "TEXT",
           .help = "Kernel command line; default: the blueprint's, or one that suits both "
                   "hypervisors."),
    OPTION(struct opts, io_engine_sync, .name = "io-engine-sync", .kind = OPTION_FLAG,
           .help =
               "Firecracker: synchronous disks instead of io_uring; before 1.15 they are in any "
               "case."),
    OPTION(struct opts, liveness_port, .name = "liveness-vsock-port", .kind = OPTION_UINT,
           .arg = "PORT", .def = "25", .max = UINT32_MAX - 1,
           .help = "Where the guest calls when it is up; 0: it does not. A blueprint's own port "
                   "counts unless this is given differently."),
    OPTION(struct opts, agent_port, .name = "agent-vsock-port", .kind = OPTION_UINT, .arg = "PORT",
           .def = "26", .max = UINT32_MAX - 1,
           .help = "Where the guest's agent calls; 0: it has none."),
    OPTION(struct opts, until, .name = "until", .kind = OPTION_STRING, .arg = "REGEX",
           .help = "Take the guest for up when a line of its console matches this extended "
                   "regular expression, instead of waiting for its call."),
    VM_OPTIONS(struct opts, vm),
};

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opts;
    struct snapshot_device devices[SNAPSHOT_DEVICES_MAX];
    cleanup_json struct json_object *owner = NULL;
    struct snapshot_options so = {
        .cpus = (uint32_t)o->cpus,
        .memory_mib = (uint32_t)o->memory_mib,
        .cpu_model = strcmp(o->cpu_template, "None") != 0 ? o->cpu_template : NULL,
        .boot_args = o->boot_args,
        .io_engine_sync = o->io_engine_sync,
        .liveness_port = (uint32_t)o->liveness_port,
        .agent_port = (uint32_t)o->agent_port,
        .until = o->until,
    };

    (void)argc, (void)argv;
    if (o->devices && o->blueprint)
        return error_set(err, ERROR_USAGE, "--devices and --blueprint: one of them, not both");
    if (o->devices) {
        int n = snapshot_devices_parse(o->devices, devices, &owner, err);
        if (n < 0)
            return -1;
        so.devices = devices;
        so.n_devices = (size_t)n;
        return snapshot_with(&so, &o->vm, ctx, err);
    }
    so.package = o->output;
    return snapshot_blueprint(o->blueprint ? o->blueprint : "out/blueprint", &so, &o->vm, ctx, err);
}

int main(int argc, char **argv)
{
    static const struct command cmd = {
        .name = "drafter-snapshotter",
        .summary = "boot a blueprint once and keep the running machine as a package",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .options_size = sizeof(struct opts),
        .run = run,
    };

    return command_main(&cmd, argc, argv);
}
