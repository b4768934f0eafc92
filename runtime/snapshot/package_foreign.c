// SPDX-License-Identifier: Apache-2.0
/* package_foreign.c - packages of upstream's Drafter: what their config does not say */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/snapshot/package.h"

#define FOREIGN_MAC "02:0e:d9:fd:68:3d" /* drafter-snapshotter's default, upstream's and ours */

/* A foreign package is what stands under the names everybody uses. */
int package_find_foreign(struct package *pkg, struct error *err)
{
    static const char *const names[] = {"kernel", "initrd", "disk", "oci", "state", "memory"};
    char buf[BLUEPRINT_FILE_MAX + 1];

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct blueprint_device dev = {.has_digest = false};
        struct stat st;
        (void)snprintf(dev.name, sizeof(dev.name), "%s", names[i]);
        (void)snprintf(dev.file, sizeof(dev.file), "%s", blueprint_file_name(names[i], buf));
        if (fstatat(pkg->dirfd, dev.file, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            if (errno == ENOENT)
                continue;
            return error_sys(err, "package %s: %s", pkg->dir, dev.file);
        }
        dev.size = (uint64_t)st.st_size;
        if (package_add_device(pkg, &dev, err) < 0)
            return -1;
    }
    return 0;
}

static bool is_disk(const char *name)
{
    enum blueprint_role role = blueprint_role_of(name);

    return role == BLUEPRINT_ROOT || role == BLUEPRINT_DISK;
}

int package_foreign_machine(uint64_t memory_size, struct vmm_machine *ret, struct error *err)
{
    if (memory_size < 2 * (uint64_t)PACKAGE_ROOM ||
        memory_size / PACKAGE_ROOM - 1 > VMM_MEMORY_MIB_MAX)
        return error_set(err, EBADMSG, "device memory: %" PRIu64 " bytes are no machine's",
                         memory_size);
    *ret = (struct vmm_machine){
        .hypervisor = VMM_FIRECRACKER,
        .cpus = 1,
        .memory_mib = (uint32_t)(memory_size / PACKAGE_ROOM) - 1,
        .nic = {.kind = VMM_NIC_TAP, .mac = FOREIGN_MAC},
        .vsock = true,
    };
    return 0;
}

int package_adopt(struct package *pkg, struct error *err)
{
    const struct blueprint_device *memory = package_find(pkg, "memory");
    struct vmm_disk disks[VMM_DISKS_MAX];
    struct vmm_machine machine;

    if (!memory || !package_find(pkg, "state"))
        return error_set(err, EBADMSG, "devices: \"state\" or \"memory\" is missing");
    if (package_foreign_machine(memory->size, &machine, err) < 0)
        return -1;
    machine.disks = disks;
    for (size_t i = 0; i < pkg->n_devices; i++) {
        if (!is_disk(pkg->devices[i].name))
            continue;
        if (machine.n_disks == VMM_DISKS_MAX)
            return error_set(err, E2BIG, "device %s: a machine has at most %d disks",
                             pkg->devices[i].name, VMM_DISKS_MAX);
        disks[machine.n_disks++] = (struct vmm_disk){.name = pkg->devices[i].name};
    }
    cleanup_free char *text = vmm_machine_format(&machine, err);
    cleanup_vmm_machine struct vmm_machine *own =
        text ? vmm_machine_parse(text, strlen(text), err) : NULL;
    if (!own)
        return -1;
    pkg->architecture = strdup(blueprint_host_architecture());
    if (!pkg->architecture)
        return error_oom(err);
    pkg->machine = steal_ptr(&own);
    pkg->foreign = false;
    return 0;
}
