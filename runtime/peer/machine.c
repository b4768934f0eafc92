// SPDX-License-Identifier: Apache-2.0
/* machine.c - what a peer's machine is: chosen for a start, described for the next one
 *
 * A machine that stood still is what its config says; one that boots is what blueprint and options
 * say; of upstream's package only Firecracker's state knows.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/io.h"
#include "runtime/base/output.h"
#include "runtime/peer/peer.h"

/* ---- Chosen ------------------------------------------------------------------------------- */

static int foreign_machine(struct peer *p, struct error *err)
{
    const struct plan_device *memory = plan_find(p->plan, "memory");
    uint64_t size;

    cleanup_close int fd = open(memory->d.base, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "device memory: %s", memory->d.base);
    return io_size(fd, memory->d.base, &size, err) < 0
               ? -1
               : package_foreign_machine(size, &p->machine, err);
}

static int boot_machine(struct peer *p)
{
    p->machine = (struct vmm_machine){.kernel = "kernel",
                                      .initrd = plan_find(p->plan, "initrd") ? "initrd" : NULL,
                                      .boot_args = p->o->boot_args ? p->o->boot_args
                                                                   : p->plan->bp->boot_args,
                                      .cpus = p->o->cpus,
                                      .memory_mib = p->o->memory_mib,
                                      .cpu_model = p->o->cpu_model,
                                      .vsock = true,
                                      .rng = true};
    return 0;
}

static int list_disks(struct peer *p, struct error *err)
{
    size_t n = 0;

    if (p->machine.disks) {
        for (size_t i = 0; i < p->machine.n_disks; i++)
            if (!plan_find(p->plan, p->machine.disks[i].name))
                return error_set(err, EINVAL, "devices: the machine's disk \"%s\" is missing",
                                 p->machine.disks[i].name);
        return 0;
    }
    for (size_t i = 0; i < p->plan->count; i++) {
        const struct plan_device *d = &p->plan->items[i];
        if (d->role != BLUEPRINT_ROOT && d->role != BLUEPRINT_DISK)
            continue;
        if (n == VMM_DISKS_MAX)
            return error_set(err, E2BIG, "device %s: a machine has at most %d disks", d->d.name,
                             VMM_DISKS_MAX);
        p->disks[n++] = (struct vmm_disk){.name = d->d.name};
    }
    p->machine.disks = p->disks;
    p->machine.n_disks = n;
    return 0;
}

int peer_choose(struct peer *p, struct error *err)
{
    const struct package *pkg = p->plan->pkg;
    const struct plan_device *kernel = plan_find(p->plan, "kernel");
    enum vmm_hypervisor wish;
    bool had_nic = true;

    if (vmm_hypervisor_parse(p->o->vm->hypervisor, &wish, err) < 0)
        return -1;
    if (!p->boots && !pkg)
        return error_set(err, ENOENT,
                         "devices: \"config\" is missing: what the machine was is not "
                         "known");
    if (p->boots) {
        boot_machine(p);
    } else if (pkg->foreign) {
        if (foreign_machine(p, err) < 0)
            return -1;
    } else {
        if (package_check_host(pkg, wish, err) < 0)
            return -1;
        p->machine = *pkg->machine;
        had_nic = pkg->machine->nic.kind != VMM_NIC_NONE;
    }
    if (vm_setup_choose(p->o->vm, p->machine.hypervisor, p->machine.accel,
                        p->boots && kernel ? kernel->d.base : NULL, p->ctx, &p->setup, err) < 0)
        return -1;
    p->machine.hypervisor = p->setup.choice.hypervisor;
    p->machine.accel = p->setup.choice.accel;
    struct vmm_nic nic = vm_setup_nic(&p->setup, p->o->vm);
    if (!p->boots && pkg && !pkg->foreign) { /* what the guest saw stays; where it leads is ours */
        nic.mac = pkg->machine->nic.mac;
        nic.id = pkg->machine->nic.id;
        if (had_nic && nic.kind == VMM_NIC_NONE && p->machine.hypervisor == VMM_QEMU)
            nic.kind = VMM_NIC_USER; /* the device must be there: it leads nowhere else */
        if (!had_nic)
            nic = (struct vmm_nic){.kind = VMM_NIC_NONE};
    }
    p->machine.nic = nic;
    return list_disks(p, err);
}

/* ---- Described ---------------------------------------------------------------------------- */

static struct package *describe(struct peer *p, struct error *err)
{
    const struct package *was = p->plan->pkg;
    cleanup_package struct package *pkg = package_new(err);
    const struct vmm *vmm = assembly_vmm(p->a);
    cleanup_free char *text = vmm_machine_format(vmm ? vmm_machine(vmm) : &p->machine, err);

    if (!pkg || !text)
        return NULL;
    pkg->machine = vmm_machine_parse(text, strlen(text), err);
    if (!pkg->machine)
        return NULL;
    pkg->liveness_port = was ? was->liveness_port : p->plan->bp ? p->plan->bp->liveness_port : 0;
    pkg->agent_port = was ? was->agent_port : p->plan->bp ? p->plan->bp->agent_port : 0;
    for (size_t i = 0; i < p->plan->count; i++) {
        const struct plan_device *d = &p->plan->items[i];
        struct block *b = assembly_block(p->a, d->d.name);
        struct blueprint_device dev = {.size = b ? block_size(b) : 0};
        char buf[BLUEPRINT_FILE_MAX + 1];
        if (d->read_only || !b)
            continue;
        (void)snprintf(dev.name, sizeof(dev.name), "%s", d->d.name);
        (void)snprintf(dev.file, sizeof(dev.file), "%s", blueprint_file_name(d->d.name, buf));
        if (package_add_device(pkg, &dev, err) < 0)
            return NULL;
    }
    return steal_ptr(&pkg);
}

char *peer_describe(struct peer *p, struct error *err)
{
    /* Without a machine: what its config says, as far as there is one. */
    if (p->o->mock && (!p->plan->pkg || p->plan->pkg->foreign)) {
        char *none = strdup("{}");
        if (!none)
            (void)error_oom(err);
        return none;
    }
    if (p->o->mock)
        return package_format(p->plan->pkg, err);
    cleanup_package struct package *pkg = describe(p, err);

    return pkg ? package_format(pkg, err) : NULL;
}

/* A machine that was booted or taken in gets a config once there is something to go on from. */
int peer_write_config(struct peer *p, struct error *err)
{
    if (!p->plan->write_config)
        return 0;
    cleanup_package struct package *pkg = describe(p, err);
    cleanup_output struct output *out =
        pkg ? output_begin(p->plan->config, OUTPUT_FILE, 0600, err) : NULL;
    if (!out || package_write_config(pkg, output_fd(out), p->plan->config, err) < 0)
        return -1;
    return output_commit(&out, true, err);
}
