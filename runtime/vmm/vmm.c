// SPDX-License-Identifier: Apache-2.0
/* vmm.c - what both drivers share: states, the lock of a machine, memory file, errors
 *
 * Every act goes the same way: take the lock, look whether the state allows it, call the driver,
 * set the new state. An act that fails because the process went away waits for the process's end,
 * to say how it ended and what it printed last.
 */
#include "runtime/vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "runtime/base/bytes.h"
#include "runtime/base/io.h"
#include "runtime/vmm/driver.h"
#include "runtime/vmm/numa.h"
#include "runtime/vmm/firecracker/state.h"
#include "runtime/vmm/qemu/state.h"

/* After the channel broke, the process's end is near or it will not come. */
#define END_GRACE_NS UINT64_C(5000000000)
#define MEMINFO_MAX 4096

static const char *const state_names[] = {"not booted", "running", "paused", "ended"};

/* The end of an act that writes nothing to speak of. */
static uint64_t act_deadline(const struct vmm *vmm)
{
    return vmm_now() + vmm->timeout_ns;
}

/* Bytes in a line of /proc/meminfo (proc(5)): "Dirty:   123 kB"; 0 = no such line. */
static uint64_t meminfo(const char *text, const char *key)
{
    uintmax_t kib = 0;
    const char *line = strstr(text, key);

    return line && sscanf(line + strlen(key), "%ju", &kib) == 1 ? (uint64_t)kib << 10 : 0;
}

/* The end of an act that writes `bytes` and makes the disks' files flush, which the program cannot
 * tell from being stuck: they may have to wait for all that this host has to write. */
static uint64_t write_deadline(const struct vmm *vmm, uint64_t bytes)
{
    char text[MEMINFO_MAX];
    cleanup_close int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : io_pread(fd, text, sizeof(text) - 1, 0, "/proc/meminfo", NULL);

    text[n < 0 ? 0 : n] = '\0';
    bytes += meminfo(text, "\nDirty:") + meminfo(text, "\nWriteback:");
    return act_deadline(vmm) + (bytes >> 20) * vmm->timeout_ns / VMM_WRITE_MIB;
}

/* Says that the process has ended, after what the driver knew of it (NULL = nothing). Returns -1.
 */
static int ended(struct vmm *vmm, const char *act, const char *cause, struct error *err)
{
    struct vmm_exit end;

    atomic_store(&vmm->state, VMM_STATE_EXITED);
    process_exit(vmm->process, &end);
    return error_set(err, ECONNRESET, "%s: %s%s%s%s%s", act, cause ? cause : "", cause ? ": " : "",
                     end.text, end.console[0] ? "; it last printed: " : "", end.console);
}

/* Adds to a driver's error what the process's end, if it came, explains. A connection that ended
 * says no more than the end does. Returns -1. */
static int explain(struct vmm *vmm, const char *act, struct error *err)
{
    const struct error cause = err ? *err : (struct error)ERROR_INIT;

    if (cause.code == ECONNRESET)
        (void)process_wait(vmm->process, vmm_now() + END_GRACE_NS, NULL, NULL);
    if (!process_exited(vmm->process))
        return error_wrap(err, "%s", act);
    return ended(vmm, act, cause.code && cause.code != ECONNRESET ? cause.text : NULL, err);
}

/* Under the lock: the state as it is now, after a look at the process. */
static enum vmm_state look(struct vmm *vmm)
{
    if (process_exited(vmm->process))
        atomic_store(&vmm->state, VMM_STATE_EXITED);
    return atomic_load(&vmm->state);
}

static int refuse(struct vmm *vmm, const char *act, struct error *err)
{
    enum vmm_state state = look(vmm);

    if (state == VMM_STATE_EXITED)
        return ended(vmm, act, NULL, err);
    return error_set(err, EINVAL, "%s: the machine is %s", act, state_names[state]);
}

static int make_ready(struct vmm *vmm, uint64_t deadline, struct error *err)
{
    if (vmm->is_ready)
        return 0;
    if (vmm->driver->ready(vmm, deadline, err) < 0)
        return explain(vmm, "start of the hypervisor", err);
    vmm->is_ready = true;
    log_debug(context_log(vmm->ctx), "Hypervisor ready", log_str("program", vmm->bin),
              log_str("version", vmm->features.version), log_int("pid", process_pid(vmm->process)));
    return 0;
}

/* ---- Start and end ------------------------------------------------------------------------ */

static int check_options(const struct vmm_machine *m, const struct vmm_options *o,
                         struct error *err)
{
    if (vmm_machine_check(m, err) < 0)
        return -1;
    if (m->hypervisor != VMM_AUTO && m->hypervisor != o->choice->hypervisor)
        return error_set(err, ENOTSUP, "machine: belongs to %s and cannot be started with %s",
                         vmm_hypervisor_name(m->hypervisor),
                         vmm_hypervisor_name(o->choice->hypervisor));
    if (m->accel != VMM_ACCEL_AUTO && m->accel != o->choice->accel)
        return error_set(err, ENOTSUP, "machine: was made for accelerator %s; here %s was chosen",
                         vmm_accel_name(m->accel), vmm_accel_name(o->choice->accel));
    if (o->numa_node < -1 || o->numa_node >= NUMA_NODES_MAX)
        return error_set(err, EINVAL, "NUMA node %d: 0 to %d are allowed", o->numa_node,
                         NUMA_NODES_MAX - 1);
    if (o->choice->hypervisor == VMM_FIRECRACKER &&
        (m->nic.kind == VMM_NIC_USER || m->nic.kind == VMM_NIC_PASST || o->serial_fd >= 0))
        return error_set(err, ENOTSUP,
                         "machine: Firecracker has neither user-mode networks nor a second serial "
                         "port: use a tap device, or QEMU");
    return 0;
}

struct vmm *vmm_start(const struct vmm_machine *machine, const struct vmm_options *options,
                      const struct context *ctx, struct error *err)
{
    if (check_options(machine, options, err) < 0)
        return NULL;
    struct vmm *v = calloc(1, sizeof(*v));
    if (!v) {
        error_oom(err);
        return NULL;
    }
    v->dir_fd = v->memory_fd = -1;
    (void)pthread_mutex_init(&v->lock, NULL);
    v->driver =
        options->choice->hypervisor == VMM_QEMU ? &vmm_qemu_driver : &vmm_firecracker_driver;
    v->ctx = ctx;
    v->purpose = options->purpose;
    v->uid = options->uid;
    v->gid = options->gid;
    v->timeout_ns = options->timeout_ns ? options->timeout_ns : VMM_TIMEOUT_NS;
    atomic_init(&v->state, VMM_STATE_STARTED);
    memcpy(v->id, options->place->id, sizeof(v->id));
    v->bin = strdup(options->choice->bin);
    v->directory = strdup(options->place->path);
    v->machine = vmm_machine_copy(machine, err);
    if (!v->machine || !v->bin || !v->directory) {
        if (v->machine)
            error_oom(err);
        goto fail;
    }
    v->machine->hypervisor = options->choice->hypervisor;
    v->machine->accel = options->choice->accel;
    v->dir_fd = open(v->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (v->dir_fd < 0) {
        error_sys(err, "VM directory %s", v->directory);
        goto fail;
    }
    if (options->memory_fd >= 0 &&
        (v->memory_fd = fcntl(options->memory_fd, F_DUPFD_CLOEXEC, 0)) < 0) {
        error_sys(err, "memory file");
        goto fail;
    }
    if (v->driver->start(v, options, err) < 0) {
        error_wrap(err, "start of %s", v->bin);
        goto fail;
    }
    log_debug(context_log(ctx), "Started hypervisor", log_str("program", v->bin),
              log_int("pid", process_pid(v->process)), log_str("path", v->directory));
    return v;
fail:
    vmm_free(v);
    return NULL;
}

void vmm_free(struct vmm *vmm)
{
    if (!vmm)
        return;
    process_free(vmm->process);
    vmm->driver->release(vmm);
    vmm_machine_free(vmm->machine);
    if (vmm->dir_fd >= 0)
        (void)close(vmm->dir_fd);
    if (vmm->memory_fd >= 0)
        (void)close(vmm->memory_fd);
    (void)pthread_mutex_destroy(&vmm->lock);
    free(vmm->bin);
    free(vmm->directory);
    free(vmm);
}

/* ---- Acts --------------------------------------------------------------------------------- */

int vmm_ready(struct vmm *vmm, struct error *err)
{
    lock_scope(&vmm->lock);
    if (look(vmm) == VMM_STATE_EXITED)
        return refuse(vmm, "start of the hypervisor", err);
    return make_ready(vmm, act_deadline(vmm), err);
}

int vmm_boot(struct vmm *vmm, struct error *err)
{
    lock_scope(&vmm->lock);
    uint64_t deadline = act_deadline(vmm);

    if (look(vmm) != VMM_STATE_STARTED)
        return refuse(vmm, "boot", err);
    if (vmm->purpose != VMM_BOOT)
        return error_set(err, EINVAL, "boot: the process was started to load a state");
    if (make_ready(vmm, deadline, err) < 0)
        return -1;
    if (vmm->driver->boot(vmm, deadline, err) < 0)
        return explain(vmm, "boot", err);
    vmm->features.memory_live = vmm->driver->memory_live_after_boot;
    atomic_store(&vmm->state, VMM_STATE_RUNNING);
    return 0;
}

int vmm_load(struct vmm *vmm, const char *state, struct error *err)
{
    lock_scope(&vmm->lock);
    uint64_t deadline = act_deadline(vmm);

    if (vmm_path_check(state, "load: state", err) < 0)
        return -1;
    if (look(vmm) != VMM_STATE_STARTED)
        return refuse(vmm, "load", err);
    if (vmm->purpose != VMM_LOAD)
        return error_set(err, EINVAL, "load: the process was started to boot a machine");
    cleanup_close int memory = vmm_open_memory(vmm, false, err);
    if (memory < 0)
        return error_wrap(err, "load");
    if (vmm->driver->prepare_load && vmm->driver->prepare_load(vmm, state, err) < 0)
        return explain(vmm, "load", err);
    if (make_ready(vmm, deadline, err) < 0)
        return -1;
    if (vmm->driver->load(vmm, state, deadline, err) < 0)
        return explain(vmm, "load", err);
    vmm->loaded = true;
    atomic_store(&vmm->state, VMM_STATE_PAUSED);
    return 0;
}

/* A pause or resume failed, perhaps because its answer did not come: the request may have been
 * done, or be done yet. Who asks for the state hears that the guest runs, as then nobody takes the
 * machine for one that stands and may run elsewhere. */
static int unsure(struct vmm *vmm, const char *act, struct error *err)
{
    vmm->unsure = true;
    atomic_store(&vmm->state, VMM_STATE_RUNNING);
    return explain(vmm, act, err); /* which may find that it has ended */
}

/* Asks, when the state is a guess. Answers come in the order of the requests, so what the program
 * says now is after what it was asked before. */
static int settle(struct vmm *vmm, const char *act, struct error *err)
{
    bool runs;

    if (!vmm->unsure || look(vmm) == VMM_STATE_EXITED)
        return 0;
    if (vmm->driver->runs(vmm, write_deadline(vmm, 0), &runs, err) < 0) {
        error_wrap(err, "whether the guest runs is not known");
        return explain(vmm, act, err);
    }
    vmm->unsure = false;
    atomic_store(&vmm->state, runs ? VMM_STATE_RUNNING : VMM_STATE_PAUSED);
    return 0;
}

int vmm_pause(struct vmm *vmm, struct error *err)
{
    lock_scope(&vmm->lock);
    const bool sure = !vmm->unsure;

    if (settle(vmm, "pause", err) < 0)
        return -1;
    switch (look(vmm)) {
    case VMM_STATE_PAUSED:
        if (sure)
            return 0;
        break; /* it stands; whether its disks are flushed nobody has said yet */
    case VMM_STATE_RUNNING:
        break;
    default:
        return refuse(vmm, "pause", err);
    }
    if (vmm->driver->pause(vmm, write_deadline(vmm, 0), err) < 0)
        return unsure(vmm, "pause", err);
    atomic_store(&vmm->state, VMM_STATE_PAUSED);
    return 0;
}

int vmm_resume(struct vmm *vmm, struct error *err)
{
    lock_scope(&vmm->lock);
    if (settle(vmm, "resume", err) < 0)
        return -1;
    switch (look(vmm)) {
    case VMM_STATE_RUNNING:
        return 0;
    case VMM_STATE_PAUSED:
        break;
    default:
        return refuse(vmm, "resume", err);
    }
    if (vmm->driver->resume(vmm, act_deadline(vmm), err) < 0)
        return unsure(vmm, "resume", err);
    atomic_store(&vmm->state, VMM_STATE_RUNNING);
    return 0;
}

/* fsync(2) of the memory file: the kernel writes back what any mapping of it made dirty. */
static int sync_memory(struct vmm *vmm, struct error *err)
{
    cleanup_close int fd = vmm_open_memory(vmm, false, err);

    if (fd < 0)
        return -1;
    if (fsync(fd) < 0)
        return error_sys(err, "memory file %s/%s: fsync", vmm->directory, vmm_memory(vmm->machine));
    return 0;
}

int vmm_flush(struct vmm *vmm, struct error *err)
{
    {
        lock_scope(&vmm->lock);
        if (!vmm->features.memory_live)
            return error_set(
                err, ENOTSUP, "flush of memory: %s writes guest memory at a save only%s", vmm->bin,
                vmm->features.fork ? " (until the machine was loaded from a state)" : "");
    }
    /* Without the lock: a long flush must not hold up a pause. */
    return sync_memory(vmm, err) < 0 ? error_wrap(err, "flush of memory") : 0;
}

int vmm_save(struct vmm *vmm, const char *state, struct error *err)
{
    lock_scope(&vmm->lock);

    if (vmm_path_check(state, "save: state", err) < 0)
        return -1;
    if (settle(vmm, "save", err) < 0)
        return -1;
    if (look(vmm) != VMM_STATE_PAUSED)
        return refuse(vmm, "save", err);
    uint64_t memory = (uint64_t)vmm->machine->memory_mib << 20;
    if (vmm->driver->save(vmm, state, write_deadline(vmm, memory), err) < 0)
        return explain(vmm, "save", err);
    return sync_memory(vmm, err) < 0 ? error_wrap(err, "save") : 0;
}

int vmm_stop(struct vmm *vmm, struct error *err)
{
    process_kill(vmm->process);
    if (process_wait(vmm->process, act_deadline(vmm), NULL, err) < 0)
        return error_wrap(err, "stop");
    atomic_store(&vmm->state, VMM_STATE_EXITED);
    return 0;
}

/* ---- Looks -------------------------------------------------------------------------------- */

enum vmm_state vmm_state(struct vmm *vmm)
{
    return process_exited(vmm->process) ? VMM_STATE_EXITED : atomic_load(&vmm->state);
}

struct vmm_features vmm_features(struct vmm *vmm)
{
    lock_scope(&vmm->lock);
    return vmm->features;
}

pid_t vmm_pid(const struct vmm *vmm)
{
    return process_pid(vmm->process);
}

const struct vmm_machine *vmm_machine(const struct vmm *vmm)
{
    return vmm->machine;
}

int vmm_exit_fd(const struct vmm *vmm)
{
    return process_exit_fd(vmm->process);
}

int vmm_wait_exit(struct vmm *vmm, uint64_t timeout_ns, struct vmm_exit *ret_exit,
                  struct error *err)
{
    uint64_t now = vmm_now();
    uint64_t deadline = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;

    if (process_wait(vmm->process, deadline, vmm->ctx, err) < 0)
        return -1;
    process_exit(vmm->process, ret_exit);
    return 0;
}

/* ---- Files -------------------------------------------------------------------------------- */

int vmm_state_driver(int fd, const char *what, enum vmm_hypervisor *ret_hypervisor,
                     struct error *err)
{
    uint8_t head[16];
    ssize_t n = io_pread(fd, head, sizeof(head), 0, what, err);

    if (n < 0)
        return -1;
    if (n == sizeof(head) && qemu_state_magic(head)) {
        *ret_hypervisor = VMM_QEMU;
        return 0;
    }
    if (n == sizeof(head) && firecracker_state_magic(head)) {
        *ret_hypervisor = VMM_FIRECRACKER;
        return 0;
    }
    return error_set(err, EBADMSG,
                     "%s: is no state of a machine (neither QEMU's nor Firecracker's)", what);
}
