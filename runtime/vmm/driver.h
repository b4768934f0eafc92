/* SPDX-License-Identifier: Apache-2.0 */
/* driver.h - between vmm.c and the drivers; not for outside this module
 *
 *     vmm.c        states, the lock of a machine, what both drivers share
 *       |- qemu/qemu.c                 QMP (qemu/qmp.h), command line, state file
 *       |- firecracker/firecracker.c   API socket (firecracker/api.h), jailer
 *     process.c    the child: spawn, console, end, watchdog
 */
#ifndef RUNTIME_VMM_DRIVER_H
#define RUNTIME_VMM_DRIVER_H

#include <json-c/json_object.h>
#include <pthread.h>
#include <stdatomic.h>

#include "runtime/vmm/process.h"
#include "runtime/vmm/vmm.h"

/* A point in CLOCK_MONOTONIC, in nanoseconds. */
uint64_t vmm_now(void);

struct vmm;

/* Acts of a driver. Called with the machine's lock held (but for release); vmm.c has checked the
 * state before and sets it after. A lost channel to the process is ECONNRESET: vmm.c then puts the
 * process's last words into the error. */
struct vmm_driver {
    const char *name;
    bool memory_live_after_boot;
    /* Fills in vmm->machine's defaults, sets vmm->self and starts vmm->process. On failure
     * release() is called. */
    int (*start)(struct vmm *vmm, const struct vmm_options *opt, struct error *err);
    int (*ready)(struct vmm *vmm, uint64_t deadline, struct error *err);
    int (*boot)(struct vmm *vmm, uint64_t deadline, struct error *err);
    /* Optional, before ready(): what a load can do while the process still starts. */
    int (*prepare_load)(struct vmm *vmm, const char *state, struct error *err);
    int (*load)(struct vmm *vmm, const char *state, uint64_t deadline, struct error *err);
    int (*pause)(struct vmm *vmm, uint64_t deadline, struct error *err);
    int (*resume)(struct vmm *vmm, uint64_t deadline, struct error *err);
    /* Asks whether the guest runs. */
    int (*runs)(struct vmm *vmm, uint64_t deadline, bool *ret_runs, struct error *err);
    int (*save)(struct vmm *vmm, const char *state, uint64_t deadline, struct error *err);
    /* After the process's end: frees vmm->self and removes what the driver made. NULL self is fine.
     */
    void (*release)(struct vmm *vmm);
};

extern const struct vmm_driver vmm_qemu_driver, vmm_firecracker_driver;

struct vmm {
    const struct vmm_driver *driver;
    void *self; /* the driver's */
    const struct context *ctx;
    struct vmm_machine *machine;
    enum vmm_purpose purpose;
    char *bin;       /* of the process, for texts */
    char *directory; /* the VM directory, absolute */
    char id[32];
    int dir_fd;
    int memory_fd; /* of the options; -1 = none */
    uid_t uid;
    gid_t gid;
    uint64_t timeout_ns;
    struct vmm_process *process;
    struct vmm_features features;  /* under lock */
    bool is_ready;                 /* under lock */
    bool loaded;                   /* under lock: by vmm_load() */
    bool unsure;                   /* under lock: state is a guess until the driver was asked */
    _Atomic(enum vmm_state) state; /* written under lock */
    pthread_mutex_t lock;          /* serialises acts; the first and only lock of vmm.c */
};

/* Defaults of a machine's members. */
static inline const char *vmm_kernel(const struct vmm_machine *m)
{
    return m->kernel ? m->kernel : "kernel";
}
static inline const char *vmm_memory(const struct vmm_machine *m)
{
    return m->memory ? m->memory : "memory";
}
static inline const char *vmm_disk_path(const struct vmm_disk *d)
{
    return d->path ? d->path : d->name;
}
static inline const char *vmm_tap(const struct vmm_nic *nic)
{
    return nic->tap ? nic->tap : "tap0";
}
static inline const char *vmm_nic_id(const struct vmm_nic *nic)
{
    return nic->id ? nic->id : "tap0";
}

/* A path that stays in the VM directory: relative, without "..". Returns 0. */
int vmm_path_check(const char *path, const char *what, struct error *err);

/* A copy that owns everything it points to (but passt_fd). */
struct vmm_machine *vmm_machine_copy(const struct vmm_machine *machine, struct error *err);

/* NULL when out of memory. The caller puts it. */
struct json_object *vmm_machine_to_json(const struct vmm_machine *machine);

/* Opens the memory file. create: it is made (mode 0600, owned by the process's user), or grown, to
 * the machine's size; else one that is too short is refused. Returns the fd (read-write) or -1. */
int vmm_open_memory(struct vmm *vmm, bool create, struct error *err);

#endif
