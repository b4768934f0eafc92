// SPDX-License-Identifier: Apache-2.0
/* snapshot.c - boot on copies, wait, stop, keep; see snapshot.h */
#include "runtime/snapshot/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/base/output.h"
#include "runtime/block/device.h"
#include "runtime/snapshot/assembly.h"
#include "runtime/snapshot/console.h"
#include "runtime/snapshot/package.h"

struct making {
    const struct snapshot_options *o;
    const struct context *ctx;
    struct output *folder;             /* where everything is made */
    char *paths[SNAPSHOT_DEVICES_MAX]; /* of the devices' files in it */
    struct vmm_disk disks[VMM_DISKS_MAX];
    struct vmm_machine machine;
    char *described; /* the machine as it ran */
    struct console *console;
    struct assembly *a;
};

static uint64_t now_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static bool is_result(const char *name)
{
    enum blueprint_role role = blueprint_role_of(name);

    return role == BLUEPRINT_STATE || role == BLUEPRINT_MEMORY || role == BLUEPRINT_CONFIG;
}

static int find(const struct snapshot_options *o, const char *name)
{
    for (size_t i = 0; i < o->n_devices; i++)
        if (strcmp(o->devices[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* ---- Before anything is made -------------------------------------------------------------- */

static int check(const struct snapshot_options *o, struct error *err)
{
    static const char *const needed[] = {"kernel", "state", "memory", "config"};

    for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
        if (find(o, needed[i]) < 0)
            return error_set(err, EINVAL, "devices: \"%s\" is missing", needed[i]);
    for (size_t i = 0; i < o->n_devices; i++) {
        const struct snapshot_device *d = &o->devices[i];
        if (blueprint_check_name(d->name, err) < 0)
            return -1;
        if ((size_t)find(o, d->name) != i)
            return error_set(err, EINVAL, "device %s: is named twice", d->name);
        if (!*d->output)
            return error_set(err, EINVAL, "device %s: has no output", d->name);
        if (is_result(d->name) != !*d->input)
            return error_set(err, EINVAL, "device %s: %s", d->name,
                             *d->input ? "is made here and has no input" : "has no input");
        for (size_t k = 0; k < i; k++)
            if (strcmp(o->devices[k].output, d->output) == 0)
                return error_set(err, EINVAL, "device %s: its output %s is also that of device %s",
                                 d->name, d->output, o->devices[k].name);
    }
    return 0;
}

/* ---- Files -------------------------------------------------------------------------------- */

static int begin_product(struct making *m, size_t i, struct error *err)
{
    const struct snapshot_device *d = &m->o->devices[i];

    if (asprintf(&m->paths[i], "%s/%s", output_path(m->folder),
                 m->o->package ? d->output : d->name) < 0) {
        m->paths[i] = NULL;
        return error_oom(err);
    }
    cleanup_close int fd = open(m->paths[i], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd < 0 ? error_sys(err, "%s", m->paths[i]) : 0;
}

static int copy_input(struct making *m, size_t i, struct error *err)
{
    const struct snapshot_device *d = &m->o->devices[i];
    uint64_t size;

    cleanup_close int in = open(d->input, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return error_sys(err, "device %s: %s", d->name, d->input);
    cleanup_close int out = open(m->paths[i], O_RDWR | O_CLOEXEC);
    if (out < 0)
        return error_sys(err, "device %s: %s", d->name, m->paths[i]);
    if (io_size(in, d->input, &size, err) < 0 ||
        io_copy_range(in, 0, out, 0, size, d->input, err) < 0)
        return error_wrap(err, "device %s", d->name);
    if (ftruncate(out, (off_t)size) < 0)
        return error_sys(err, "device %s: %s", d->name, m->paths[i]);
    return context_check(m->ctx, err);
}

static int make_memory(struct making *m, size_t i, struct error *err)
{
    cleanup_close int out = open(m->paths[i], O_RDWR | O_CLOEXEC);

    if (out < 0 || ftruncate(out, (off_t)((uint64_t)m->o->memory_mib << 20)) < 0)
        return error_sys(err, "device memory: %s", m->paths[i]);
    return 0;
}

static int begin(struct making *m, struct error *err)
{
    const struct snapshot_options *o = m->o;
    cleanup_free char *work = NULL;

    /* Outputs that are no folder are made in one beside the state, which never appears. What was in
     * the guest's memory is nobody else's to read, be it there, in a state or on a disk. */
    for (size_t i = 0; !o->package && i < o->n_devices; i++)
        if (output_make_private_parent(o->devices[i].output, err) < 0)
            return -1;
    if (!o->package && asprintf(&work, "%s.work", o->devices[find(o, "state")].output) < 0) {
        work = NULL;
        return error_oom(err);
    }
    m->folder = output_begin(o->package ? o->package : work, OUTPUT_DIR, 0700, err);
    if (!m->folder)
        return -1;
    for (size_t i = 0; i < o->n_devices; i++) {
        if (begin_product(m, i, err) < 0)
            return -1;
        context_progress(m->ctx, "copy", i, o->n_devices, "files");
        if (*o->devices[i].input && copy_input(m, i, err) < 0)
            return -1;
        if (strcmp(o->devices[i].name, "memory") == 0 && make_memory(m, i, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- The machine -------------------------------------------------------------------------- */

static int add_part(struct making *m, size_t i, struct error *err)
{
    const struct snapshot_device *d = &m->o->devices[i];
    struct device device = {
        .name = (char *)d->name, .base = m->paths[i], .block_size = BLOCK_SIZE_DEFAULT};
    cleanup_json struct json_object *layers = device_stack(&device, err);
    cleanup_block struct block *stack =
        layers ? block_open_json(layers, d->name, m->ctx, err) : NULL;
    if (!stack || assembly_add(m->a, d->name, stack, true, err) < 0)
        return -1;
    (void)steal_ptr(&stack);
    return 0;
}

static int assemble(struct making *m, struct error *err)
{
    const struct snapshot_options *o = m->o;
    struct assembly_options ao = {.base = o->vms,
                                  .liveness_port = o->liveness_port,
                                  .agent_port = o->agent_port,
                                  .vmm = o->vmm};

    if (o->until) {
        m->console = console_new(o->vmm.console_out, o->until, err);
        if (!m->console)
            return -1;
        ao.vmm.console_out = console_fd(m->console);
    }
    ao.vmm.purpose = VMM_BOOT;
    m->a = assembly_new(&ao, m->ctx, err);
    if (!m->a)
        return -1;
    m->machine = (struct vmm_machine){
        .hypervisor = o->vmm.choice->hypervisor,
        .accel = o->vmm.choice->accel,
        .cpu_model = o->cpu_model,
        .kernel = "kernel",
        .initrd = find(o, "initrd") >= 0 ? "initrd" : NULL,
        .boot_args = o->boot_args,
        .cpus = o->cpus,
        .memory_mib = o->memory_mib,
        .disks = m->disks,
        .nic = o->nic,
        .vsock = o->liveness_port || o->agent_port,
        .rng = true,
    };
    for (size_t i = 0; i < o->n_devices; i++) {
        enum blueprint_role role = blueprint_role_of(o->devices[i].name);
        if (role == BLUEPRINT_STATE || role == BLUEPRINT_CONFIG)
            continue;
        if (add_part(m, i, err) < 0)
            return -1;
        if (role != BLUEPRINT_ROOT && role != BLUEPRINT_DISK)
            continue;
        if (m->machine.n_disks == VMM_DISKS_MAX)
            return error_set(err, E2BIG, "device %s: a machine has at most %d disks",
                             o->devices[i].name, VMM_DISKS_MAX);
        m->disks[m->machine.n_disks++] =
            (struct vmm_disk){.name = o->devices[i].name, .sync = o->io_engine_sync};
    }
    return 0;
}

static int wait_for_guest(struct making *m, struct error *err)
{
    const struct snapshot_options *o = m->o;

    if (o->until) {
        struct context ctx = {0};
        if (m->ctx)
            ctx = *m->ctx;
        if (console_wait(m->console, o->timeout_ns, &ctx, err) < 0)
            return vmm_state(assembly_vmm(m->a)) == VMM_STATE_EXITED ? assembly_ended(m->a, err)
                                                                     : error_wrap(err, "console");
        return 0;
    }
    if (assembly_wait_liveness(m->a, o->timeout_ns, true, err) == 0)
        return 0;
    if (err && err->code == ETIMEDOUT)
        return error_wrap(err,
                          "the guest gave no sign of life on vsock port %u (a slow host needs a "
                          "longer --resume-timeout)",
                          o->liveness_port);
    return -1;
}

static int run_guest(struct making *m, struct error *err)
{
    const struct snapshot_options *o = m->o;
    uint64_t start = now_ms();

    if (assembly_start(m->a, &m->machine, err) < 0 || assembly_boot(m->a, true, err) < 0)
        return -1;
    log_info(context_log(m->ctx), "Booted VM", log_uint("ms", now_ms() - start),
             log_str("path", assembly_path(m->a)));
    start = now_ms();
    if (wait_for_guest(m, err) < 0)
        return -1;
    log_info(context_log(m->ctx), "Guest is up", log_uint("ms", now_ms() - start));
    if (assembly_before_suspend(m->a, o->timeout_ns, true, err) < 0)
        return err && err->code == ETIMEDOUT
                   ? error_wrap(err,
                                "the guest's agent did not answer before-suspend on vsock port %u",
                                o->agent_port)
                   : -1;
    start = now_ms();
    if (context_check(m->ctx, err) < 0 || vmm_pause(assembly_vmm(m->a), err) < 0)
        return -1;
    log_info(context_log(m->ctx), "Suspended VM", log_uint("ms", now_ms() - start));
    return 0;
}

/* Keeps what the machine was, and lets it go. */
static int save(struct making *m, struct error *err)
{
    cleanup_free void *state = NULL;
    size_t len;
    const char *path = m->paths[find(m->o, "state")];

    if (assembly_save(m->a, &state, &len, err) < 0)
        return -1;
    m->described = vmm_machine_format(vmm_machine(assembly_vmm(m->a)), err);
    if (!m->described)
        return -1;
    struct assembly *a = steal_ptr(&m->a);
    if (assembly_close(a, err) < 0)
        return -1;
    cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "device state: %s", path);
    if (io_pwrite(fd, state, len, 0, path, err) < 0)
        return -1;
    if (ftruncate(fd, (off_t)package_padded(len)) < 0)
        return error_sys(err, "device state: %s", path);
    return 0;
}

/* ---- The package -------------------------------------------------------------------------- */

/* The name a file will have: that of its output, not of the temporary. */
static int add_to_package(struct making *m, struct package *pkg, size_t i, struct error *err)
{
    const struct snapshot_device *d = &m->o->devices[i];
    struct blueprint_device dev = {.has_digest = true};
    const char *file = strrchr(d->output, '/');

    file = file ? file + 1 : d->output;
    if (blueprint_check_file(file, err) < 0)
        return error_wrap(err, "device %s", d->name);
    (void)snprintf(dev.name, sizeof(dev.name), "%s", d->name);
    (void)snprintf(dev.file, sizeof(dev.file), "%s", file);
    /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): all have their paths by now. */
    cleanup_close int fd = open(m->paths[i], O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "device %s: %s", d->name, m->paths[i]);
    if (digest_of_fd(fd, m->paths[i], dev.sha256, &dev.size, err) < 0)
        return error_wrap(err, "device %s", d->name);
    return package_add_device(pkg, &dev, err);
}

static int write_config(struct making *m, struct error *err)
{
    const struct snapshot_options *o = m->o;
    const char *path = m->paths[find(o, "config")];
    cleanup_package struct package *pkg = package_new(err);

    if (!pkg)
        return -1;
    pkg->liveness_port = o->liveness_port;
    pkg->agent_port = o->agent_port;
    pkg->machine = vmm_machine_parse(m->described, strlen(m->described), err);
    if (!pkg->machine)
        return -1;
    for (size_t i = 0; i < o->n_devices; i++) {
        context_progress(m->ctx, "hash", i, o->n_devices, "files");
        if (context_check(m->ctx, err) < 0)
            return -1;
        if (strcmp(o->devices[i].name, "config") != 0 && add_to_package(m, pkg, i, err) < 0)
            return -1;
    }
    cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "device config: %s", path);
    return package_write_config(pkg, fd, path, err);
}

/* Brings a finished file to an output of its own: a rename where that can be. */
static int bring_out(struct making *m, size_t i, struct error *err)
{
    const char *to = m->o->devices[i].output;
    uint64_t size;

    /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): all have their paths by now. */
    cleanup_close int in = open(m->paths[i], O_RDONLY | O_CLOEXEC);
    if (in < 0 || fsync(in) < 0)
        return error_sys(err, "%s", m->paths[i]);
    cleanup_output struct output *out = output_begin(to, OUTPUT_FILE, 0600, err);
    if (!out)
        return -1; /* parents are there now, and the file can be written */
    if (rename(m->paths[i], to) == 0)
        return 0;
    if (errno != EXDEV)
        return error_sys(err, "%s", to);
    if (io_size(in, to, &size, err) < 0 ||
        io_copy_range(in, 0, output_fd(out), 0, size, to, err) < 0)
        return -1;
    if (ftruncate(output_fd(out), (off_t)size) < 0)
        return error_sys(err, "%s", to);
    return output_commit(&out, true, err);
}

static int commit(struct making *m, struct error *err)
{
    const char *last = m->o->devices[find(m->o, "config")].output;

    if (m->o->package)
        return output_commit(&m->folder, true, err);
    /* What stands there is no package while its parts change. */
    if (unlink(last) < 0 && errno != ENOENT)
        return error_sys(err, "%s", last);
    for (size_t i = 0; i < m->o->n_devices; i++)
        if (strcmp(m->o->devices[i].name, "config") != 0 && bring_out(m, i, err) < 0)
            return -1;
    return bring_out(m, (size_t)find(m->o, "config"), err);
}

int snapshot_make(const struct snapshot_options *options, const struct context *ctx,
                  struct error *err)
{
    struct making m = {.o = options, .ctx = ctx};
    uint64_t start = now_ms();
    int rc = -1;

    if (check(options, err) == 0 && begin(&m, err) == 0 && assemble(&m, err) == 0 &&
        run_guest(&m, err) == 0 && save(&m, err) == 0 && write_config(&m, err) == 0)
        rc = commit(&m, err);
    (void)assembly_close(m.a, NULL);
    console_free(m.console);
    for (size_t i = 0; i < options->n_devices; i++)
        free(m.paths[i]);
    output_abort(m.folder);
    free(m.described);
    if (rc == 0)
        log_info(context_log(ctx), "Made package",
                 log_str("path", options->package
                                     ? options->package
                                     : options->devices[find(options, "config")].output),
                 log_uint("ms", now_ms() - start));
    return rc;
}

int snapshot_devices_parse(const char *text, struct snapshot_device ret[SNAPSHOT_DEVICES_MAX],
                           struct json_object **ret_owner, struct error *err)
{
    static const char *const keys[] = {"name", "input", "output", NULL};
    cleanup_json struct json_object *doc = json_parse(text, strlen(text), "devices", err);

    if (!doc)
        return -1;
    if (!json_object_is_type(doc, json_type_array))
        return error_set(err, EBADMSG, "devices: is no JSON array");
    size_t n = json_object_array_length(doc);
    if (n > SNAPSHOT_DEVICES_MAX)
        return error_set(err, E2BIG, "devices: %zu, more than %d", n, SNAPSHOT_DEVICES_MAX);
    for (size_t i = 0; i < n; i++) {
        char what[32];
        struct json_object *obj = json_object_array_get_idx(doc, i);
        struct snapshot_device *d = &ret[i];
        *d = (struct snapshot_device){.input = "", .output = ""};
        (void)snprintf(what, sizeof(what), "devices[%zu]", i);
        if (!json_object_is_type(obj, json_type_object))
            return error_set(err, EBADMSG, "%s: is no JSON object", what);
        if (json_only_keys(obj, keys, what, err) < 0 ||
            json_required(json_get_string(obj, "name", what, &d->name, err), "name", what, err) <
                0 ||
            json_get_string(obj, "input", what, &d->input, err) < 0 ||
            json_get_string(obj, "output", what, &d->output, err) < 0)
            return -1;
    }
    *ret_owner = steal_ptr(&doc);
    return (int)n;
}
