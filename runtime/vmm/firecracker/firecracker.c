// SPDX-License-Identifier: Apache-2.0
/* firecracker.c - the driver for Firecracker
 *
 * Theory of operation: two kinds of Firecracker are told apart by asking a process that has no
 * machine yet for a snapshot of type Msync. The live-migration fork answers that there is nothing
 * to snapshot; upstream does not know the type. Either refuses, so the question changes nothing.
 *
 *              boot                 save of a booted one   load               save of a loaded one
 *     fork     anonymous memory     Full: writes memory    shared mapping     MsyncAndState: state
 * only upstream anonymous memory     Full: writes memory    private mapping    Full: writes memory
 *
 * So with upstream guest memory reaches the memory file at a save and not before
 * (features.memory_live is false): such a machine can be suspended and moved, but not be copied
 * while it runs. Full over the very file that is privately mapped is sound: Firecracker does not
 * truncate it, and a page that it had not copied is written back as it was read.
 *
 * The jailer, when there is one, makes the cgroup, enters the network namespace, changes root into
 * the VM directory and user, and executes Firecracker there; without it the child does these things
 * itself (but for the change of root).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "runtime/base/bytes.h"
#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/base/output.h"
#include "runtime/vmm/cgroup.h"
#include "runtime/vmm/driver.h"
#include "runtime/vmm/firecracker/api.h"
#include "runtime/vmm/firecracker/arguments.h"
#include "runtime/vmm/firecracker/state.h"
#include "runtime/vmm/numa.h"

#define API_SOCKET "firecracker.sock"
#define CONNECT_PAUSE_MS 1 /* between tries to connect while the process starts up */

struct firecracker {
    struct api *api;
    struct cgroup cgroup;
    bool jailed;
};

/* ---- Start -------------------------------------------------------------------------------- */

static int prepare_cgroup(struct vmm *vmm, struct firecracker *f, const struct vmm_options *opt,
                          const struct numa_node *node, struct error *err)
{
    const char *parent = opt->cgroup_parent ? opt->cgroup_parent : opt->place->program;

    if (opt->cgroup_version == 0)
        return 0;
    if (f->jailed) {
        /* The jailer makes one only when it is given something to put into it. */
        if (node && cgroup_find(opt->cgroup_version, parent, vmm->id, &f->cgroup, err) < 0)
            return -1;
        return 0;
    }
    if (cgroup_find(opt->cgroup_version, parent, vmm->id, &f->cgroup, err) < 0)
        return -1;
    return cgroup_make(&f->cgroup, opt->cgroup_version, node, err);
}

/* What the jailer of an earlier process put into the VM directory; it refuses to find it there. */
static int remove_jail(struct vmm *vmm, const char *program, struct error *err)
{
    cleanup_free char *pid_file = NULL;

    if (asprintf(&pid_file, "%s.pid", program) < 0) {
        pid_file = NULL;
        return error_oom(err);
    }
    const char *const names[] = {"dev", "run", program, pid_file};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (output_remove_tree(vmm->dir_fd, names[i], err) < 0)
            return error_wrap(err, "VM directory %s", vmm->directory);
    return 0;
}

static gid_t kvm_group(size_t *ret_n)
{
    struct stat st;

    *ret_n = stat("/dev/kvm", &st) == 0;
    return *ret_n ? st.st_gid : 0;
}

static int start(struct vmm *vmm, const struct vmm_options *opt, struct error *err)
{
    struct firecracker *f = calloc(1, sizeof(*f));
    struct firecracker_arguments args;
    struct numa_node node;
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];

    if (!f)
        return error_oom(err);
    f->cgroup = (struct cgroup)CGROUP_INIT;
    vmm->self = f;
    f->jailed = opt->choice->jailer != NULL;
    if (vmm->machine->qemu_machine)
        return error_set(err, EINVAL, "machine: a QEMU machine type says nothing to Firecracker");
    if ((size_t)snprintf(path, sizeof(path), "%s/" API_SOCKET, vmm->directory) >= sizeof(path))
        return error_set(err, ENAMETOOLONG, "%s/" API_SOCKET ": longer than %zu bytes (unix(7))",
                         vmm->directory, sizeof(path) - 1);
    f->api = api_new(path, vmm->ctx, err);
    if (!f->api)
        return -1;
    /* What an earlier process left; Firecracker does not bind over a socket that is there. */
    (void)unlinkat(vmm->dir_fd, API_SOCKET, 0);
    if (vmm->machine->vsock)
        (void)unlinkat(vmm->dir_fd, VMM_VSOCK_NAME, 0);
    if (f->jailed && remove_jail(vmm, opt->place->program, err) < 0)
        return -1;
    int has_node = opt->numa_node >= 0 ? numa_read(opt->numa_node, &node, err) : 0;
    if (has_node < 0 || prepare_cgroup(vmm, f, opt, has_node ? &node : NULL, err) < 0)
        return -1;
    cleanup_close int netns = -1;
    if (opt->netns && !f->jailed) {
        netns = open(opt->netns, O_RDONLY | O_CLOEXEC);
        if (netns < 0)
            return error_sys(err, "network namespace %s", opt->netns);
    }
    if (firecracker_arguments(opt, has_node ? &node : NULL, &args, err) < 0)
        return -1;
    struct process_options po = {
        .argv = args.argv,
        .dir_fd = f->jailed ? -1 : vmm->dir_fd,
        .console_in = opt->console_in,
        .console_out = opt->console_out,
        .log = context_log(vmm->ctx),
        .cgroup_procs = &f->cgroup.procs_fd,
        .n_cgroup_procs = f->cgroup.procs_fd >= 0 ? 1 : 0,
        .netns_fd = netns,
        .tap_fd = -1,
        .numa_node = f->jailed ? -1 : opt->numa_node,
        .change_user = !f->jailed && (vmm->uid != geteuid() || vmm->gid != getegid()),
        .uid = vmm->uid,
        .gid = vmm->gid,
        .watchdog = f->jailed,
    };
    po.groups[0] = kvm_group(&po.n_groups);
    if (f->jailed && f->cgroup.dir) {
        po.cgroup_dirs[po.n_cgroup_dirs++] = f->cgroup.dir;
        po.cgroup_dirs[po.n_cgroup_dirs++] = f->cgroup.parent;
    }
    vmm->process = process_start(&po, err);
    return vmm->process ? 0 : -1;
}

static void release(struct vmm *vmm)
{
    struct firecracker *f = vmm->self;

    if (!f)
        return;
    api_free(f->api);
    cgroup_clear(&f->cgroup);
    (void)unlinkat(vmm->dir_fd, API_SOCKET, 0);
    if (vmm->machine && vmm->machine->vsock)
        (void)unlinkat(vmm->dir_fd, VMM_VSOCK_NAME, 0);
    free(f);
    vmm->self = NULL;
}

/* ---- Calls -------------------------------------------------------------------------------- */

static void put_string(struct json_object *obj, const char *key, const char *value)
{
    json_object_object_add(obj, key, json_object_new_string(value));
}

static void put_bool(struct json_object *obj, const char *key, bool value)
{
    json_object_object_add(obj, key, json_object_new_boolean(value));
}

static int put(struct vmm *vmm, const char *path, struct json_object *body, uint64_t deadline,
               struct error *err)
{
    struct firecracker *f = vmm->self;

    return api_call(f->api, "PUT", path, body, deadline, NULL, err);
}

static struct json_object *snapshot(const char *type, const char *state, const char *memory)
{
    struct json_object *body = json_object_new_object();

    put_string(body, "snapshot_type", type);
    put_string(body, "snapshot_path", state);
    put_string(body, "mem_file_path", memory);
    return body;
}

/* Waits until the socket answers. The process's end ends the wait too. */
static int connect_api(struct vmm *vmm, uint64_t deadline, struct json_object **ret_version,
                       struct error *err)
{
    struct firecracker *f = vmm->self;
    struct pollfd end = {.fd = process_exit_fd(vmm->process), .events = POLLIN};

    for (;;) {
        struct error e = ERROR_INIT;
        if (api_call(f->api, "GET", "/version", NULL, deadline, ret_version, &e) == 0)
            return 0;
        /* ECONNRESET: it listens, but was not there yet to accept. */
        if (e.code != ECONNREFUSED)
            return error_set(err, e.code, "%s", e.text);
        if (context_check(vmm->ctx, err) < 0)
            return -1;
        if (vmm_now() >= deadline)
            return error_set(err, ETIMEDOUT, "Firecracker: no API socket in time");
        if (poll(&end, 1, CONNECT_PAUSE_MS) > 0)
            return error_set(err, ECONNRESET, "Firecracker: ended before its API socket was there");
    }
}

static int ready(struct vmm *vmm, uint64_t deadline, struct error *err)
{
    struct firecracker *f = vmm->self;
    struct error e = ERROR_INIT;
    const char *version = NULL;
    cleanup_json struct json_object *answer = NULL;

    if (connect_api(vmm, deadline, &answer, err) < 0)
        return -1;
    if (!answer ||
        json_get_string(answer, "firecracker_version", "GET /version", &version, err) != JSON_OK)
        return error_set(err, EBADMSG, "Firecracker: GET /version: no version in the answer");
    (void)snprintf(vmm->features.version, sizeof(vmm->features.version), "%s", version);
    if (api_call(f->api, "PUT", "/snapshot/create", snapshot("Msync", "state", "memory"), deadline,
                 NULL, &e) == 0)
        return error_set(err, EBADMSG, "Firecracker: made a snapshot of no machine");
    if (e.code != EREMOTEIO)
        return error_set(err, e.code, "%s", e.text);
    vmm->features.fork = strstr(e.text, "not supported before starting") != NULL;
    if (!vmm->features.fork && !strstr(e.text, "unknown variant"))
        return error_set(err, ENOTSUP,
                         "Firecracker %s: is neither upstream's nor the live-migration fork, by its"
                         " answer to a question: %s",
                         version, e.text);
    log_debug(context_log(vmm->ctx), "Asked Firecracker", log_str("version", version),
              log_str("kind", vmm->features.fork ? "live-migration fork" : "upstream"));
    struct json_object *logger = json_object_new_object();
    put_string(logger, "level", "Error");
    return put(vmm, "/logger", logger, deadline, err);
}

/* Whether disks may be of io_uring. A save waits for the requests that are under way there; before
 * 1.15 it raised their interrupt when the state of KVM was taken already, and the guest, resumed,
 * waited for its disk for ever (pull request 5582 of Firecracker). The fork is of 1.13. */
static bool save_keeps_interrupts(const struct vmm *vmm)
{
    char *end;
    unsigned long major = strtoul(vmm->features.version, &end, 10);
    unsigned long minor = *end == '.' ? strtoul(end + 1, NULL, 10) : 0;

    return major > 1 || (major == 1 && minor >= 15);
}

static int put_disk(struct vmm *vmm, const struct vmm_disk *d, uint64_t deadline, struct error *err)
{
    char path[64];
    struct json_object *body = json_object_new_object();

    put_string(body, "drive_id", d->name);
    put_string(body, "io_engine", d->sync || !save_keeps_interrupts(vmm) ? "Sync" : "Async");
    put_bool(body, "is_read_only", d->read_only);
    put_bool(body, "is_root_device", false); /* the boot arguments name the root */
    put_string(body, "path_on_host", vmm_disk_path(d));
    /* Unsafe, the default, tells the guest of no cache, so its flushes would never be sent. */
    put_string(body, "cache_type", "Writeback");
    (void)snprintf(path, sizeof(path), "/drives/%s", d->name);
    return put(vmm, path, body, deadline, err);
}

static int put_machine(struct vmm *vmm, uint64_t deadline, struct error *err)
{
    const struct vmm_machine *m = vmm->machine;
    struct json_object *body = json_object_new_object();

    if (m->cpu_model && strcmp(m->cpu_model, "None") != 0)
        put_string(body, "cpu_template", m->cpu_model);
    json_object_object_add(body, "mem_size_mib", json_object_new_int64(m->memory_mib));
    json_object_object_add(body, "vcpu_count", json_object_new_int64(m->cpus));
    return put(vmm, "/machine-config", body, deadline, err);
}

static int put_nic(struct vmm *vmm, uint64_t deadline, struct error *err)
{
    const struct vmm_nic *nic = &vmm->machine->nic;
    char path[64];
    struct json_object *body = json_object_new_object();

    put_string(body, "guest_mac", nic->mac);
    put_string(body, "host_dev_name", vmm_tap(nic));
    put_string(body, "iface_id", vmm_nic_id(nic));
    (void)snprintf(path, sizeof(path), "/network-interfaces/%s", vmm_nic_id(nic));
    return put(vmm, path, body, deadline, err);
}

static int boot(struct vmm *vmm, uint64_t deadline, struct error *err)
{
    const struct vmm_machine *m = vmm->machine;
    cleanup_free char *args = vmm_boot_args(m->boot_args, VMM_FIRECRACKER, m->accel, err);

    if (!args)
        return -1;
    struct json_object *source = json_object_new_object();
    put_string(source, "boot_args", args);
    put_string(source, "kernel_image_path", vmm_kernel(m));
    if (m->initrd)
        put_string(source, "initrd_path", m->initrd);
    if (put(vmm, "/boot-source", source, deadline, err) < 0)
        return -1;
    for (size_t i = 0; i < m->n_disks; i++)
        if (put_disk(vmm, &m->disks[i], deadline, err) < 0)
            return -1;
    if (put_machine(vmm, deadline, err) < 0)
        return -1;
    if (m->vsock) {
        struct json_object *body = json_object_new_object();
        json_object_object_add(body, "guest_cid", json_object_new_int(VMM_GUEST_CID));
        put_string(body, "uds_path", VMM_VSOCK_NAME);
        if (put(vmm, "/vsock", body, deadline, err) < 0)
            return -1;
    }
    if (m->nic.kind == VMM_NIC_TAP && put_nic(vmm, deadline, err) < 0)
        return -1;
    if (m->rng && put(vmm, "/entropy", json_object_new_object(), deadline, err) < 0)
        return -1;
    struct json_object *go = json_object_new_object();
    put_string(go, "action_type", "InstanceStart");
    return put(vmm, "/actions", go, deadline, err);
}

/* Says plainly what Firecracker would call an I/O error. */
static int check_state(struct vmm *vmm, const char *state, struct error *err)
{
    uint8_t head[16];
    uint64_t size;
    enum vmm_hypervisor driver = VMM_AUTO;

    cleanup_close int fd =
        vmm_open_inside(vmm->dir_fd, vmm->directory, state, O_RDONLY, 0, vmm->uid, err);
    if (fd < 0)
        return -1;
    if (vmm_state_driver(fd, state, &driver, err) < 0)
        return -1;
    if (driver != VMM_FIRECRACKER)
        return error_set(err, ENOTSUP, "%s/%s: is a state of %s, not of Firecracker",
                         vmm->directory, state, vmm_hypervisor_name(driver));
    if (io_pread_exact(fd, head, sizeof(head), 0, state, err) < 0 ||
        io_size(fd, state, &size, err) < 0)
        return -1;
    bool prefixed = !firecracker_magic(get_le64(head));
    if (prefixed != vmm->features.fork)
        return error_set(err, ENOTSUP, "%s/%s: was saved by %s; this Firecracker (%s) is %s",
                         vmm->directory, state,
                         prefixed ? "the live-migration fork" : "upstream Firecracker",
                         vmm->features.version, prefixed ? "upstream's" : "the fork");
    if (prefixed && get_le64(head) > size - 8)
        return error_set(err, EBADMSG, "%s/%s: damaged: %ju bytes of state, %ju in the file",
                         vmm->directory, state, (uintmax_t)get_le64(head), (uintmax_t)size - 8);
    return 0;
}

static int load(struct vmm *vmm, const char *state, uint64_t deadline, struct error *err)
{
    const struct vmm_machine *m = vmm->machine;

    if (check_state(vmm, state, err) < 0)
        return -1;
    struct json_object *body = json_object_new_object();
    struct json_object *backend = json_object_new_object();
    put_string(backend, "backend_path", vmm_memory(m));
    put_string(backend, "backend_type", "File");
    json_object_object_add(body, "mem_backend", backend);
    put_bool(body, "resume_vm", false);
    if (vmm->features.fork)
        put_bool(body, "shared", true); /* upstream refuses members it does not know */
    put_string(body, "snapshot_path", state);
    if (m->nic.kind == VMM_NIC_TAP && strcmp(vmm_tap(&m->nic), vmm_nic_id(&m->nic)) != 0) {
        /* The state names the tap it had; since Firecracker 1.12 another may be given. */
        struct json_object *list = json_object_new_array(), *nic = json_object_new_object();
        put_string(nic, "iface_id", vmm_nic_id(&m->nic));
        put_string(nic, "host_dev_name", vmm_tap(&m->nic));
        json_object_array_add(list, nic);
        json_object_object_add(body, "network_overrides", list);
    }
    if (put(vmm, "/snapshot/load", body, deadline, err) < 0)
        return -1;
    vmm->features.memory_live = vmm->features.fork;
    return 0;
}

static int set_state(struct vmm *vmm, const char *state, uint64_t deadline, struct error *err)
{
    struct firecracker *f = vmm->self;
    struct json_object *body = json_object_new_object();

    put_string(body, "state", state);
    return api_call(f->api, "PATCH", "/vm", body, deadline, NULL, err);
}

static int pause_(struct vmm *vmm, uint64_t deadline, struct error *err)
{
    return set_state(vmm, "Paused", deadline, err);
}

static int resume(struct vmm *vmm, uint64_t deadline, struct error *err)
{
    return set_state(vmm, "Resumed", deadline, err);
}

static int runs(struct vmm *vmm, uint64_t deadline, bool *ret_runs, struct error *err)
{
    struct firecracker *f = vmm->self;
    const char *state = NULL;
    cleanup_json struct json_object *answer = NULL;

    if (api_call(f->api, "GET", "/", NULL, deadline, &answer, err) < 0)
        return -1;
    if (!answer || json_get_string(answer, "state", "GET /", &state, err) != JSON_OK)
        return error_set(err, EBADMSG, "Firecracker: GET /: no state in the answer");
    *ret_runs = strcmp(state, "Paused") != 0; /* "Running"; of another word the worse is assumed */
    return 0;
}

static int save(struct vmm *vmm, const char *state, uint64_t deadline, struct error *err)
{
    const char *type = vmm->features.memory_live ? "MsyncAndState" : "Full";

    if (!vmm->features.memory_live) {
        /* Made here, with the right owner and size, if it is not there yet. */
        cleanup_close int fd = vmm_open_memory(vmm, true, err);
        if (fd < 0)
            return -1;
    }
    return put(vmm, "/snapshot/create", snapshot(type, state, vmm_memory(vmm->machine)), deadline,
               err);
}

const struct vmm_driver vmm_firecracker_driver = {
    .name = "firecracker",
    .memory_live_after_boot = false,
    .start = start,
    .ready = ready,
    .boot = boot,
    .load = load,
    .pause = pause_,
    .resume = resume,
    .runs = runs,
    .save = save,
    .release = release,
};
