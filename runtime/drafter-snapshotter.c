// SPDX-License-Identifier: Apache-2.0
/* drafter-snapshotter.c - boots a blueprint once and keeps it as a package */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "blueprint/blueprint.h"
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
           .help = "Firecracker: synchronous disks instead of io_uring."),
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

static uint32_t port(uint64_t given, uint32_t usual, uint32_t blueprint)
{
    return given == usual ? blueprint : (uint32_t)given;
}

/* The devices of a blueprint, then the three that are made. Paths are of the blueprint's folder. */
static int from_blueprint(const struct blueprint *bp, struct snapshot_device *devices,
                          char *paths[SNAPSHOT_DEVICES_MAX], struct error *err)
{
    static const char *const made[][2] = {
        {"state", "state.bin"}, {"memory", "memory.bin"}, {"config", "config.json"}};
    size_t n = 0;

    if (bp->n_devices + ARRAY_SIZE(made) > SNAPSHOT_DEVICES_MAX)
        return error_set(err, E2BIG, "blueprint %s: %zu devices are too many", bp->dir,
                         bp->n_devices);
    for (; n < bp->n_devices; n++) {
        const struct blueprint_device *d = &bp->devices[n];
        if (asprintf(&paths[n], "%s/%s", bp->dir, d->file) < 0) {
            paths[n] = NULL;
            return error_oom(err);
        }
        devices[n] =
            (struct snapshot_device){.name = d->name, .input = paths[n], .output = d->file};
    }
    for (size_t i = 0; i < ARRAY_SIZE(made); i++)
        devices[n++] =
            (struct snapshot_device){.name = made[i][0], .input = "", .output = made[i][1]};
    return (int)n;
}

static const char *input_of(const struct snapshot_options *so, const char *name)
{
    for (size_t i = 0; i < so->n_devices; i++)
        if (strcmp(so->devices[i].name, name) == 0)
            return so->devices[i].input;
    return NULL;
}

static int make(const struct opts *o, struct snapshot_options *so, const struct context *ctx,
                struct error *err)
{
    cleanup_vm_setup struct vm_setup setup = {.nic = VMM_NIC_NONE};

    if (vm_setup_choose(&o->vm, VMM_AUTO, VMM_ACCEL_AUTO, input_of(so, "kernel"), ctx, &setup,
                        err) < 0)
        return -1;
    vm_setup_fill(&setup, &o->vm, &so->vmm);
    so->nic = vm_setup_nic(&setup, &o->vm);
    so->vms = o->vm.base;
    so->cpus = (uint32_t)o->cpus;
    so->memory_mib = (uint32_t)o->memory_mib;
    so->cpu_model = strcmp(o->cpu_template, "None") != 0 ? o->cpu_template : NULL;
    so->io_engine_sync = o->io_engine_sync;
    so->timeout_ns = o->vm.resume_timeout;
    so->until = o->until;
    return snapshot_make(so, ctx, err);
}

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opts;
    struct snapshot_device devices[SNAPSHOT_DEVICES_MAX];
    char *paths[SNAPSHOT_DEVICES_MAX] = {0};
    cleanup_json struct json_object *owner = NULL;
    cleanup_blueprint struct blueprint *bp = NULL;
    struct snapshot_options so = {.devices = devices,
                                  .boot_args = o->boot_args,
                                  .liveness_port = (uint32_t)o->liveness_port,
                                  .agent_port = (uint32_t)o->agent_port};
    int n;

    (void)argc, (void)argv;
    if (o->devices && o->blueprint)
        return error_set(err, ERROR_USAGE, "--devices and --blueprint: one of them, not both");
    if (o->devices) {
        n = snapshot_devices_parse(o->devices, devices, &owner, err);
    } else {
        bp = blueprint_open(o->blueprint ? o->blueprint : "out/blueprint", err);
        if (!bp)
            return -1;
        n = from_blueprint(bp, devices, paths, err);
        so.package = o->output;
        so.boot_args = o->boot_args ? o->boot_args : bp->boot_args;
        so.liveness_port = port(o->liveness_port, BLUEPRINT_LIVENESS_PORT, bp->liveness_port);
        so.agent_port = port(o->agent_port, BLUEPRINT_AGENT_PORT, bp->agent_port);
    }
    if (n >= 0)
        so.n_devices = (size_t)n;
    int rc = n < 0 ? -1 : make(o, &so, ctx, err);
    for (size_t i = 0; i < SNAPSHOT_DEVICES_MAX; i++)
        free(paths[i]);
    return rc;
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
