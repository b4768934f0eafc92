// SPDX-License-Identifier: Apache-2.0
/* from_blueprint.c - a snapshot of a blueprint, on the hypervisor that the options come to */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "blueprint/blueprint.h"
#include "runtime/snapshot/snapshot.h"
#include "runtime/snapshot/vm_options.h"

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

int snapshot_with(struct snapshot_options *so, const struct vm_opts *vm, const struct context *ctx,
                  struct error *err)
{
    cleanup_vm_setup struct vm_setup setup = {.nic = VMM_NIC_NONE};

    if (vm_setup_choose(vm, VMM_AUTO, VMM_ACCEL_AUTO, input_of(so, "kernel"), ctx, &setup, err) < 0)
        return -1;
    vm_setup_fill(&setup, vm, &so->vmm);
    so->nic = vm_setup_nic(&setup, vm);
    so->vms = vm->base;
    so->timeout_ns = vm->resume_timeout;
    return snapshot_make(so, ctx, err);
}

int snapshot_blueprint(const char *dir, struct snapshot_options *so, const struct vm_opts *vm,
                       const struct context *ctx, struct error *err)
{
    struct snapshot_device devices[SNAPSHOT_DEVICES_MAX];
    char *paths[SNAPSHOT_DEVICES_MAX] = {0};
    cleanup_blueprint struct blueprint *bp = blueprint_open(dir, err);

    if (!bp)
        return -1;
    int n = from_blueprint(bp, devices, paths, err);
    if (!so->boot_args)
        so->boot_args = bp->boot_args;
    so->liveness_port = port(so->liveness_port, BLUEPRINT_LIVENESS_PORT, bp->liveness_port);
    so->agent_port = port(so->agent_port, BLUEPRINT_AGENT_PORT, bp->agent_port);
    so->devices = devices;
    so->n_devices = n < 0 ? 0 : (size_t)n;
    int rc = n < 0 ? -1 : snapshot_with(so, vm, ctx, err);
    for (size_t i = 0; i < SNAPSHOT_DEVICES_MAX; i++)
        free(paths[i]);
    return rc;
}
