/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot.h - from a blueprint to a package: boot a machine, let it come up, stop it, keep it
 *
 * Theory of operation: the devices are copied first (the blueprint is never written), the machine
 * boots on the copies through an assembly, its liveness program calls when the guest is ready, its
 * agent prepares it, it is paused and saved, and what was copied is what the package holds. All
 * results are temporaries until the end (output.h): after a failure, an interrupt or a crash there
 * is no package, and an older one stays.
 */
#ifndef RUNTIME_SNAPSHOT_SNAPSHOT_H
#define RUNTIME_SNAPSHOT_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/context.h"
#include "runtime/base/error.h"
#include "runtime/vmm/vmm.h"

#define SNAPSHOT_DEVICES_MAX 64

/* As upstream's --devices has it. */
struct snapshot_device {
    const char *name;
    const char *input;  /* the file to start from; "" for state, memory, config */
    const char *output; /* where it goes */
};

/* Strings are the caller's. Either package, or an output for every device. */
struct snapshot_options {
    const struct snapshot_device *devices; /* disks in the order in which the guest sees them */
    size_t n_devices;
    const char *package;    /* folder to make; outputs are then file names in it */
    const char *vms;        /* base of VM directories */
    struct vmm_options vmm; /* choice, user, network, console */
    struct vmm_nic nic;
    uint32_t cpus, memory_mib;
    const char *cpu_model; /* NULL = the driver's choice */
    const char *boot_args; /* NULL = VMM_BOOT_ARGS_DEFAULT */
    bool io_engine_sync;
    uint32_t liveness_port, agent_port; /* 0 = the guest has none */
    uint64_t timeout_ns;                /* for the guest's liveness, and again for its agent */
    const char *until; /* without liveness: a regular expression that a console line matches */
};

/* Makes the package. Returns 0. */
int snapshot_make(const struct snapshot_options *options, const struct context *ctx,
                  struct error *err);

/* The same with what a command's options say of hypervisor, network, console, folder and timeout:
 * fills in vmm, nic, vms and timeout_ns, valid during the call. Returns 0. */
struct vm_opts;
int snapshot_with(struct snapshot_options *options, const struct vm_opts *vm,
                  const struct context *ctx, struct error *err);

/* The same of the blueprint in folder dir: its devices and, where the options say nothing or the
 * usual, its boot arguments and ports. Returns 0. */
int snapshot_blueprint(const char *dir, struct snapshot_options *options, const struct vm_opts *vm,
                       const struct context *ctx, struct error *err);

/* Parses upstream's JSON array of {"name", "input", "output"}. *ret_text owns the strings (free it
 * after the devices: json_object_put()). Returns the number of devices, or -1. */
struct json_object;
int snapshot_devices_parse(const char *text, struct snapshot_device ret[SNAPSHOT_DEVICES_MAX],
                           struct json_object **ret_owner, struct error *err);

#endif
