// SPDX-License-Identifier: Apache-2.0
/* vmmctl.c - boot, snapshot and restore one virtual machine by hand
 *
 * Theory of operation: the VMM module wants all files in the VM directory. Without the jailer they
 * are put there as symlinks; with it, which locks the process into that directory, as hard links
 * (disks, memory) or copies, and results are moved out at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "runtime/base/command.h"
#include "runtime/base/io.h"
#include "runtime/base/output.h"
#include "runtime/base/parse.h"
#include "runtime/vmm/vmm.h"

#define LINE_MAX_BYTES 4096
#define MACHINE_TEXT_MAX (64u << 10)

struct opts {
    const char *hypervisor, *accel, *firecracker_bin, *jailer_bin, *qemu_bin, *base;
    const char *kernel, *initrd, *boot_args, *cpu_template, *memory, *state, *machine;
    const char *netns, *tap, *mac, *cgroup_parent, *forwards, *until;
    struct option_list disks;
    uint64_t memory_size, cpus, cgroup_version, cycles, timeout;
    int64_t numa_node, uid, gid;
    bool enable_input, rng;
};

static const struct option options[] = {
    OPTION(struct opts, hypervisor, .name = "hypervisor", .kind = OPTION_CHOICE,
           .arg = "auto|firecracker|qemu", .def = "auto", .help = "What runs the machine."),
    OPTION(struct opts, accel, .name = "accel", .kind = OPTION_CHOICE, .arg = "auto|kvm|tcg",
           .def = "auto", .help = "Hardware virtualisation, or emulation in software."),
    OPTION(struct opts, firecracker_bin, .name = "firecracker-bin", .kind = OPTION_STRING,
           .arg = "PROGRAM", .def = "firecracker", .help = "Firecracker."),
    OPTION(struct opts, jailer_bin, .name = "jailer-bin", .kind = OPTION_STRING, .arg = "PROGRAM",
           .def = "", .help = "Firecracker's jailer; empty: run without."),
    OPTION(struct opts, qemu_bin, .name = "qemu-bin", .kind = OPTION_STRING, .arg = "PROGRAM",
           .def = "qemu-system-x86_64", .help = "QEMU."),
    OPTION(struct opts, base, .name = "chroot-base-dir", .kind = OPTION_STRING, .arg = "DIR",
           .def = "out/vms", .help = "Where the VM directory is made."),
    OPTION(struct opts, kernel, .name = "kernel", .kind = OPTION_STRING, .arg = "FILE",
           .help = "Uncompressed kernel (ELF); run and snapshot need it."),
    OPTION(struct opts, initrd, .name = "initrd", .kind = OPTION_STRING, .arg = "FILE",
           .help = "Initial file system for the kernel."),
    OPTION(struct opts, boot_args, .name = "boot-args", .kind = OPTION_STRING, .arg = "TEXT",
           .def = VMM_BOOT_ARGS_DEFAULT, .help = "Kernel command line."),
    OPTION(struct opts, disks, .name = "disk", .kind = OPTION_LIST, .arg = "NAME=FILE[:ro]",
           .help = "A disk, raw; may be given many times: /dev/vda, /dev/vdb and so on."),
    OPTION(struct opts, memory, .name = "memory", .kind = OPTION_STRING, .arg = "FILE",
           .help = "Guest memory's file, best on tmpfs; snapshot and restore need it."),
    OPTION(struct opts, state, .name = "state", .kind = OPTION_STRING, .arg = "FILE",
           .help = "Device state; snapshot writes it, restore reads it."),
    OPTION(struct opts, machine, .name = "machine", .kind = OPTION_STRING, .arg = "FILE",
           .help = "The machine's description, JSON; snapshot writes it, restore reads it."),
    OPTION(struct opts, memory_size, .name = "memory-size", .kind = OPTION_UINT, .arg = "MIB",
           .def = "256", .min = 1, .max = VMM_MEMORY_MIB_MAX, .help = "Guest memory in MiB."),
    OPTION(struct opts, cpus, .name = "cpu-count", .kind = OPTION_UINT, .arg = "N", .def = "1",
           .min = 1, .max = VMM_CPUS_MAX, .help = "Virtual CPUs."),
    OPTION(struct opts, cpu_template, .name = "cpu-template", .kind = OPTION_STRING, .arg = "NAME",
           .def = "None", .help = "Firecracker's static CPU template, or a CPU model of QEMU."),
    OPTION(struct opts, tap, .name = "interface", .kind = OPTION_STRING, .arg = "TAP",
           .help = "An existing tap device for the guest's eth0."),
    OPTION(struct opts, forwards, .name = "user-net", .kind = OPTION_STRING, .arg = "FORWARDS",
           .help = "QEMU only: user-mode network for eth0, with forwards such as "
                   "tcp:127.0.0.1:2222-:22, or \"\"."),
    OPTION(struct opts, mac, .name = "mac", .kind = OPTION_STRING, .arg = "MAC",
           .def = "02:0e:d9:fd:68:3d", .help = "MAC address of eth0."),
    OPTION(struct opts, netns, .name = "netns", .kind = OPTION_STRING, .arg = "PATH",
           .help = "Network namespace to run in."),
    OPTION(struct opts, rng, .name = "rng", .kind = OPTION_FLAG,
           .help = "Give the guest a random number device."),
    OPTION(struct opts, uid, .name = "uid", .kind = OPTION_INT, .arg = "UID", .def = "-1",
           .min = (uint64_t)-1, .max = UINT32_MAX - 1,
           .help = "User to run as (as root only); -1: ours."),
    OPTION(struct opts, gid, .name = "gid", .kind = OPTION_INT, .arg = "GID", .def = "-1",
           .min = (uint64_t)-1, .max = UINT32_MAX - 1,
           .help = "Group to run as (as root only); -1: ours."),
    OPTION(struct opts, numa_node, .name = "numa-node", .kind = OPTION_INT, .arg = "N", .def = "-1",
           .min = (uint64_t)-1, .max = 63, .help = "Run on this NUMA node; -1: anywhere."),
    OPTION(struct opts, cgroup_version, .name = "cgroup-version", .kind = OPTION_UINT,
           .arg = "0|1|2", .def = "0", .max = 2, .help = "Make a control group; 0: none."),
    OPTION(struct opts, cgroup_parent, .name = "cgroup-parent", .kind = OPTION_STRING,
           .arg = "NAME", .help = "Its parent; default: the hypervisor's name."),
    OPTION(struct opts, enable_input, .name = "enable-input", .kind = OPTION_FLAG,
           .help = "Connect standard input to the console."),
    OPTION(struct opts, until, .name = "until", .kind = OPTION_STRING, .arg = "REGEX",
           .help = "Stop (or save) when a line of the console matches (extended regular "
                   "expression)."),
    OPTION(struct opts, timeout, .name = "timeout", .kind = OPTION_DURATION, .arg = "TIME",
           .def = "5m", .help = "Give up waiting for a line after this time; 0: never."),
    OPTION(struct opts, cycles, .name = "cycles", .kind = OPTION_UINT, .arg = "N", .def = "1",
           .min = 1, .max = 1000000,
           .help = "restore: this many times restore, run until the line, save, and end the "
                   "process, before the last run."),
};

/* One machine with its place and console. */
struct bench {
    const struct opts *o;
    uid_t uid;
    gid_t gid;
    const struct context *ctx;
    struct vmm_choice choice;
    struct vmm_place place;
    struct vmm_machine m;
    struct vmm_machine *parsed; /* of --machine; m points into it */
    struct vmm_disk disks[VMM_DISKS_MAX];
    char *names[VMM_DISKS_MAX];
    struct vmm *vmm;
    int console_r, console_w;
    int memory; /* the memory file */
    bool jailed;
    char line[LINE_MAX_BYTES];
    size_t line_len;
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- Files in the VM directory ------------------------------------------------------------ */

static int copy_file(const char *from, int dir, const char *name, uid_t uid, gid_t gid,
                     struct error *err)
{
    uint64_t size;
    cleanup_close int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return error_sys(err, "%s", from);
    cleanup_close int out = openat(dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out < 0 || fchown(out, uid, gid) < 0)
        return error_sys(err, "%s in the VM directory", name);
    if (io_size(in, from, &size, err) < 0 || io_copy_range(in, 0, out, 0, size, from, err) < 0)
        return -1;
    if (ftruncate(out, (off_t)size) < 0)
        return error_sys(err, "%s in the VM directory", name);
    return 0;
}

/* Makes `file` appear as `name`. shared: writes must reach the file itself. */
static int bring(struct bench *b, const char *file, const char *name, bool shared,
                 struct error *err)
{
    cleanup_close int dir = open(b->place.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return error_sys(err, "%s", b->place.path);
    cleanup_free char *real = realpath(file, NULL);
    if (!real)
        return error_sys(err, "%s", file);
    (void)unlinkat(dir, name, 0);
    if (!b->jailed) {
        if (symlinkat(real, dir, name) < 0)
            return error_sys(err, "%s in the VM directory", name);
        return 0;
    }
    if (!shared)
        return copy_file(real, dir, name, b->uid, b->gid, err);
    if (linkat(AT_FDCWD, real, dir, name, 0) < 0)
        return error_sys(err, "%s: with the jailer it must be on the file system of %s", file,
                         b->place.path);
    if (chown(real, b->uid, b->gid) < 0)
        return error_sys(err, "%s", file);
    return 0;
}

/* The file that guest memory is written to: links lead to it, so it is opened before them. */
static int bring_memory(struct bench *b, bool may_be_new, struct error *err)
{
    const char *file = b->o->memory;

    b->memory = open(file, O_RDWR | O_CLOEXEC | (may_be_new ? O_CREAT : 0), 0600);
    if (b->memory < 0)
        return error_sys(err, "%s", file);
    return bring(b, file, "memory", true, err);
}

/* The state is copied in, as nothing that the machine's process can reach is written by name. */
static int bring_state(struct bench *b, struct error *err)
{
    cleanup_close int dir = open(b->place.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0)
        return error_sys(err, "%s", b->place.path);
    return copy_file(b->o->state, dir, "state", b->uid, b->gid, err);
}

/* What the process wrote in its directory goes to its place. */
static int take_out(struct bench *b, const char *name, const char *file, struct error *err)
{
    cleanup_output struct output *out = output_begin(file, OUTPUT_FILE, 0600, err);
    if (!out)
        return -1;
    uint64_t size;
    cleanup_close int dir = open(b->place.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return error_sys(err, "%s", b->place.path);
    cleanup_close int in = vmm_open_inside(dir, b->place.path, name, O_RDONLY, 0, b->uid, err);
    if (in < 0)
        return -1;
    if (io_size(in, name, &size, err) < 0 ||
        io_copy_range(in, 0, output_fd(out), 0, size, name, err) < 0)
        return -1;
    return output_commit(&out, false, err);
}

/* ---- The machine -------------------------------------------------------------------------- */

/* "NAME=FILE[:ro]" */
static int parse_disk(struct bench *b, size_t i, const char **ret_file, struct error *err)
{
    char *text = strdup(b->o->disks.items[i]);
    if (!text)
        return error_oom(err);
    b->names[i] = text;
    char *eq = strchr(text, '=');
    if (!eq || !eq[1])
        return error_set(err, ERROR_USAGE, "--disk \"%s\": must read NAME=FILE or NAME=FILE:ro",
                         b->o->disks.items[i]);
    *eq = '\0';
    size_t n = strlen(eq + 1);
    if (n > 3 && strcmp(eq + 1 + n - 3, ":ro") == 0) {
        eq[1 + n - 3] = '\0';
        b->disks[i].read_only = true;
    }
    b->disks[i].name = text;
    *ret_file = eq + 1;
    return 0;
}

static int bring_disks(struct bench *b, struct error *err)
{
    const char *file = NULL;

    if (b->o->disks.count > VMM_DISKS_MAX)
        return error_set(err, ERROR_USAGE, "--disk: at most %d are allowed", VMM_DISKS_MAX);
    for (size_t i = 0; i < b->o->disks.count; i++)
        if (parse_disk(b, i, &file, err) < 0)
            return -1;
        else if (bring(b, file, b->disks[i].name, true, err) < 0)
            return -1;
    b->m.disks = b->disks;
    b->m.n_disks = b->o->disks.count;
    return 0;
}

static void describe(struct bench *b)
{
    const struct opts *o = b->o;

    b->m.cpus = (uint32_t)o->cpus;
    b->m.memory_mib = (uint32_t)o->memory_size;
    b->m.cpu_model = o->cpu_template;
    b->m.boot_args = o->boot_args;
    b->m.initrd = o->initrd ? "initrd.img" : NULL;
    b->m.rng = o->rng;
    if (o->tap)
        b->m.nic = (struct vmm_nic){.kind = VMM_NIC_TAP, .mac = o->mac, .tap = o->tap};
    else if (o->forwards)
        b->m.nic = (struct vmm_nic){.kind = VMM_NIC_USER, .mac = o->mac, .forwards = o->forwards};
}

static int read_machine(struct bench *b, struct error *err)
{
    size_t len;
    cleanup_free char *text = io_read_file(AT_FDCWD, b->o->machine, MACHINE_TEXT_MAX, &len, err);

    if (!text)
        return -1;
    b->parsed = vmm_machine_parse(text, len, err);
    if (!b->parsed)
        return error_wrap(err, "%s", b->o->machine);
    b->m = *b->parsed;
    if (b->m.nic.kind != VMM_NIC_NONE && b->o->tap) {
        b->m.nic.tap = b->o->tap;
    } else if (b->m.nic.kind != VMM_NIC_NONE && b->o->forwards) {
        b->m.nic.kind = VMM_NIC_USER;
        b->m.nic.forwards = b->o->forwards;
    }
    return 0;
}

static int write_machine(struct bench *b, struct error *err)
{
    cleanup_free char *text = vmm_machine_format(vmm_machine(b->vmm), err);

    if (!text)
        return -1;
    cleanup_output struct output *out = output_begin(b->o->machine, OUTPUT_FILE, 0644, err);
    if (!out || io_write(output_fd(out), text, strlen(text), b->o->machine, err) < 0)
        return -1;
    return output_commit(&out, false, err);
}

static int start(struct bench *b, enum vmm_purpose purpose, struct error *err)
{
    struct vmm_options vo = VMM_OPTIONS_INIT;

    vo.purpose = purpose;
    vo.choice = &b->choice;
    vo.place = &b->place;
    vo.uid = b->uid;
    vo.gid = b->gid;
    vo.memory_fd = b->memory;
    vo.netns = b->o->netns;
    vo.numa_node = (int)b->o->numa_node;
    vo.cgroup_version = (int)b->o->cgroup_version;
    vo.cgroup_parent = b->o->cgroup_parent;
    vo.console_in = b->o->enable_input ? STDIN_FILENO : -1;
    vo.console_out = b->console_w;
    b->vmm = vmm_start(&b->m, &vo, b->ctx, err);
    return b->vmm ? 0 : -1;
}

/* ---- Waiting ------------------------------------------------------------------------------ */

/* Passes console bytes on. Returns 1 when a line matched. */
static int take_console(struct bench *b, const regex_t *re, struct error *err)
{
    char buf[4096];
    ssize_t n = read(b->console_r, buf, sizeof(buf));

    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 0 : error_sys(err, "console");
    if (io_write(STDOUT_FILENO, buf, (size_t)n, "standard output", err) < 0)
        return -1;
    int matched = 0;
    for (ssize_t i = 0; i < n; i++) {
        if (buf[i] != '\n' && b->line_len < sizeof(b->line) - 1) {
            b->line[b->line_len++] = buf[i] ? buf[i] : ' ';
            continue;
        }
        if (b->line_len > 0 && b->line[b->line_len - 1] == '\r')
            b->line_len--; /* a serial line ends in CR LF */
        b->line[b->line_len] = '\0';
        b->line_len = 0;
        matched |= re && regexec(re, b->line, 0, NULL, 0) == 0;
    }
    return matched;
}

/* Runs until the console shows the line (returns 1), the guest ends (0), or -1. */
static int run_until(struct bench *b, const regex_t *re, struct error *err)
{
    uint64_t deadline = b->o->timeout && re ? now_ns() + b->o->timeout : UINT64_MAX;
    struct pollfd fds[3] = {{.fd = b->console_r, .events = POLLIN},
                            {.fd = vmm_exit_fd(b->vmm), .events = POLLIN},
                            {.fd = b->ctx->cancel ? b->ctx->cancel->fd : -1, .events = POLLIN}};
    struct vmm_exit end;

    for (;;) {
        uint64_t now = now_ns();
        uint64_t ms = deadline == UINT64_MAX ? 3600000 : (deadline - now) / 1000000 + 1;
        if (now >= deadline)
            return error_set(err, ETIMEDOUT, "no line of the console matched \"%s\" in time",
                             b->o->until);
        int n = poll(fds, 3, ms > 3600000 ? 3600000 : (int)ms);
        if (n < 0 && errno != EINTR)
            return error_sys(err, "poll");
        if (n <= 0)
            continue;
        if (context_check(b->ctx, err) < 0)
            return -1;
        if (fds[0].revents) {
            int rc = take_console(b, re, err);
            if (rc != 0)
                return rc;
            continue; /* the console's last bytes come before the end */
        }
        if (fds[1].revents)
            break;
    }
    if (vmm_wait_exit(b->vmm, 0, &end, err) < 0)
        return -1;
    if (!end.clean)
        return error_set(err, EIO, "%s%s%s", end.text, end.console[0] ? "; it last printed: " : "",
                         end.console);
    if (re)
        return error_set(err, EIO, "the guest ended before a line matched \"%s\"", b->o->until);
    return 0;
}

static uint64_t ms_since(uint64_t start)
{
    return (now_ns() - start) / 1000000;
}

static int save(struct bench *b, struct error *err)
{
    uint64_t t = now_ns();

    if (vmm_pause(b->vmm, err) < 0)
        return -1;
    uint64_t paused = now_ns();
    if (vmm_save(b->vmm, "state", err) < 0)
        return -1;
    log_info(b->ctx->log, "Saved machine", log_uint("pause_us", (paused - t) / 1000),
             log_uint("save_us", (now_ns() - paused) / 1000));
    return 0;
}

static int stop(struct bench *b, struct error *err)
{
    int rc = vmm_stop(b->vmm, err);

    vmm_free(b->vmm);
    b->vmm = NULL;
    return rc;
}

static int restore(struct bench *b, struct error *err)
{
    uint64_t t = now_ns();

    if (start(b, VMM_LOAD, err) < 0 || vmm_ready(b->vmm, err) < 0)
        return -1;
    uint64_t ready = now_ns();
    if (vmm_load(b->vmm, "state", err) < 0)
        return -1;
    uint64_t loaded = now_ns();
    if (vmm_resume(b->vmm, err) < 0)
        return -1;
    log_info(b->ctx->log, "Restored machine", log_uint("start_us", (ready - t) / 1000),
             log_uint("load_us", (loaded - ready) / 1000),
             log_uint("resume_us", (now_ns() - loaded) / 1000));
    return 0;
}

/* ---- Actions ------------------------------------------------------------------------------ */

static int need(const char *value, const char *option, const char *action, struct error *err)
{
    return value ? 0 : error_set(err, ERROR_USAGE, "%s: needs %s", action, option);
}

static int boot(struct bench *b, struct error *err)
{
    const struct opts *o = b->o;

    describe(b);
    if (bring(b, o->kernel, "kernel", false, err) < 0 ||
        (o->initrd && bring(b, o->initrd, "initrd.img", false, err) < 0) ||
        bring_disks(b, err) < 0 || (o->memory && bring_memory(b, true, err) < 0))
        return -1;
    uint64_t t = now_ns();
    if (start(b, VMM_BOOT, err) < 0 || vmm_boot(b->vmm, err) < 0)
        return -1;
    log_info(b->ctx->log, "Booted machine", log_uint("ms", ms_since(t)),
             log_int("pid", vmm_pid(b->vmm)), log_str("path", b->place.path));
    return 0;
}

static int act_run(struct bench *b, const regex_t *re, struct error *err)
{
    if (need(b->o->kernel, "--kernel", "run", err) < 0 || boot(b, err) < 0)
        return -1;
    return run_until(b, re, err);
}

static int act_snapshot(struct bench *b, const regex_t *re, struct error *err)
{
    const struct opts *o = b->o;

    if (need(o->kernel, "--kernel", "snapshot", err) < 0 ||
        need(o->memory, "--memory", "snapshot", err) < 0 ||
        need(o->state, "--state", "snapshot", err) < 0 ||
        need(o->machine, "--machine", "snapshot", err) < 0 ||
        need(o->until, "--until", "snapshot", err) < 0)
        return -1;
    if (boot(b, err) < 0 || run_until(b, re, err) < 0 || save(b, err) < 0 ||
        write_machine(b, err) < 0 || stop(b, err) < 0)
        return -1;
    return take_out(b, "state", o->state, err);
}

static int act_restore(struct bench *b, const regex_t *re, struct error *err)
{
    const struct opts *o = b->o;

    if (need(o->memory, "--memory", "restore", err) < 0 ||
        need(o->state, "--state", "restore", err) < 0 ||
        need(o->machine, "--machine", "restore", err) < 0)
        return -1;
    if (o->cycles > 1 && need(o->until, "--until", "restore --cycles", err) < 0)
        return -1;
    if (read_machine(b, err) < 0 || bring_disks(b, err) < 0 || bring_memory(b, false, err) < 0 ||
        bring_state(b, err) < 0)
        return -1;
    for (uint64_t i = 1;; i++) {
        if (restore(b, err) < 0)
            return error_wrap(err, "restore %ju", (uintmax_t)i);
        int rc = run_until(b, re, err);
        if (rc < 0)
            return error_wrap(err, "run after restore %ju", (uintmax_t)i);
        if (rc == 0 || i == o->cycles)
            return rc;
        if (save(b, err) < 0 || stop(b, err) < 0)
            return error_wrap(err, "save after restore %ju", (uintmax_t)i);
    }
}

static int act(struct bench *b, const char *action, const regex_t *re, struct error *err)
{
    if (strcmp(action, "run") == 0)
        return act_run(b, re, err);
    if (strcmp(action, "snapshot") == 0)
        return act_snapshot(b, re, err);
    if (strcmp(action, "restore") == 0)
        return act_restore(b, re, err);
    return error_set(err, ERROR_USAGE, "action \"%s\": is none of run, snapshot, restore", action);
}

static int prepare(struct bench *b, const struct context *ctx, struct error *err)
{
    const struct opts *o = b->o;
    struct vmm_wish wish = {.firecracker_bin = o->firecracker_bin,
                            .jailer_bin = o->jailer_bin,
                            .qemu_bin = o->qemu_bin,
                            .kernel = o->kernel,
                            .user_net = o->forwards && !o->tap};
    int pipefd[2];

    b->uid = o->uid < 0 ? geteuid() : (uid_t)o->uid;
    b->gid = o->gid < 0 ? getegid() : (gid_t)o->gid;
    if (vmm_hypervisor_parse(o->hypervisor, &wish.hypervisor, err) < 0 ||
        vmm_accel_parse(o->accel, &wish.accel, err) < 0 ||
        vmm_choose(&wish, ctx, &b->choice, err) < 0)
        return -1;
    b->jailed = b->choice.jailer != NULL;
    if (vmm_place_make(o->base, &b->choice, b->uid, b->gid, &b->place, err) < 0)
        return -1;
    if (pipe2(pipefd, O_CLOEXEC) < 0)
        return error_sys(err, "pipe");
    b->console_r = pipefd[0];
    b->console_w = pipefd[1];
    return 0;
}

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opts;
    struct bench b = {.o = o, .ctx = ctx, .console_r = -1, .console_w = -1, .memory = -1};
    regex_t re;

    (void)argc;
    if (o->until && regcomp(&re, o->until, REG_EXTENDED | REG_NOSUB) != 0)
        return error_set(err, ERROR_USAGE, "--until \"%s\": is no regular expression", o->until);
    int rc = prepare(&b, ctx, err);
    if (rc == 0)
        rc = act(&b, argv[0], o->until ? &re : NULL, err);
    vmm_free(b.vmm);
    if (b.place.path && vmm_place_remove(&b.place, rc < 0 ? NULL : err) < 0)
        rc = -1;
    cleanup_close_p(&b.memory);
    cleanup_close_p(&b.console_r);
    cleanup_close_p(&b.console_w);
    for (size_t i = 0; i < VMM_DISKS_MAX; i++)
        free(b.names[i]);
    vmm_machine_free(b.parsed);
    vmm_choice_clear(&b.choice);
    if (o->until)
        regfree(&re);
    return rc < 0 ? -1 : 0;
}

static const struct command command = {
    .name = "vmmctl",
    .summary = "boot, snapshot and restore one virtual machine by hand",
    .operands = "run|snapshot|restore",
    .min_operands = 1,
    .max_operands = 1,
    .options = options,
    .n_options = ARRAY_SIZE(options),
    .options_size = sizeof(struct opts),
    .run = run,
};

int main(int argc, char **argv)
{
    return command_main(&command, argc, argv);
}
