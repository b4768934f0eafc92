/* SPDX-License-Identifier: Apache-2.0 */
/* command_line.h - a machine as QEMU's arguments; not for outside this module */
#ifndef RUNTIME_VMM_QEMU_COMMAND_LINE_H
#define RUNTIME_VMM_QEMU_COMMAND_LINE_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/vmm/driver.h"

/* Pinned, as a state can be loaded into the very machine type it was saved of. */
#define QEMU_MACHINE_TCG "pc-q35-7.2"
#define QEMU_MACHINE_KVM "microvm"

/* Under TCG a model that QEMU 7.2 and all later ones emulate in full ("enforce" refuses to start on
 * one that does not): x86-64-v3, so that today's containers run, less the four features of that
 * model which TCG 7.2 lacks. "max" would be another CPU with every QEMU version. */
#define QEMU_CPU_TCG "Haswell-v2,-pcid,-x2apic,-tsc-deadline,-invpcid"
/* With KVM the host's CPU, as Firecracker has it without a template. */
#define QEMU_CPU_KVM "host"

/* Numbers of the descriptors the process inherits; -1 = not there. */
struct qemu_fds {
    int qmp, tap, vhost_vsock, passt, serial;
};

struct qemu_arguments {
    char **argv; /* NULL-terminated */
    size_t n;
};

/* Fills in what the machine leaves open: qemu_machine, cpu_model. Returns 0. */
int qemu_machine_defaults(struct vmm_machine *machine, struct error *err);

/* Builds the arguments. bin: argv[0]. The machine went through vmm_machine_check() and the function
 * above. Returns 0; the caller clears. */
int qemu_command_line(const char *bin, const struct vmm_machine *machine, enum vmm_purpose purpose,
                      const struct qemu_fds *fds, struct qemu_arguments *ret, struct error *err);
void qemu_arguments_clear(struct qemu_arguments *args);

#endif
