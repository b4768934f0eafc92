/* SPDX-License-Identifier: Apache-2.0 */
/* vm_options.h - the options that every command with a machine has, and what they come to
 *
 * Names and defaults are those of upstream's commands where these can work (and where not, --help
 * and the manual pages say so): a machine runs as whoever starts it, without a control group, and
 * without a tap unless the network namespace is there.
 */
#ifndef RUNTIME_SNAPSHOT_VM_OPTIONS_H
#define RUNTIME_SNAPSHOT_VM_OPTIONS_H

#include "runtime/base/command.h"
#include "runtime/snapshot/assembly.h"
#include "runtime/vmm/vmm.h"

struct vm_opts {
    const char *hypervisor, *accel, *firecracker_bin, *jailer_bin, *qemu_bin, *base;
    const char *net, *netns, *tap, *mac, *cgroup_parent;
    struct option_list forwards;
    int64_t uid, gid, numa_node;
    uint64_t cgroup_version, resume_timeout;
    bool enable_output, enable_input;
    int console_in, console_out; /* descriptors, of libdrafter; 0 = our standard streams */
};

/* Table entries; m: the struct vm_opts member of struct type. */
#define VM_OPTIONS(type, m)                                                                        \
    OPTION(type, m.hypervisor, .name = "hypervisor", .kind = OPTION_CHOICE,                        \
           .arg = "auto|firecracker|qemu", .def = "auto",                                          \
           .help = "What runs the machine; auto: what the package is bound to, else "              \
                   "Firecracker when it works here and the network is not user, else QEMU."),      \
        OPTION(type, m.accel, .name = "accel", .kind = OPTION_CHOICE, .arg = "auto|kvm|tcg",       \
               .def = "auto",                                                                      \
               .help = "Hardware virtualisation, or QEMU's emulation in software."),               \
        OPTION(type, m.firecracker_bin, .name = "firecracker-bin", .kind = OPTION_STRING,          \
               .arg = "PROGRAM", .def = "firecracker", .help = "Firecracker, a path or in PATH."), \
        OPTION(type, m.jailer_bin, .name = "jailer-bin", .kind = OPTION_STRING, .arg = "PROGRAM",  \
               .def = "jailer", .help = "Firecracker's jailer; empty: run without it."),           \
        OPTION(type, m.qemu_bin, .name = "qemu-bin", .kind = OPTION_STRING, .arg = "PROGRAM",      \
               .def = "qemu-system-x86_64", .help = "QEMU, a path or in PATH."),                   \
        OPTION(type, m.base, .name = "chroot-base-dir", .kind = OPTION_STRING, .arg = "DIR",       \
               .def = "out/vms", .help = "Folder below which VM directories are made."),           \
        OPTION(type, m.uid, .name = "uid", .kind = OPTION_INT, .arg = "UID", .def = "-1",          \
               .min = (uint64_t)-1, .max = UINT32_MAX - 1,                                         \
               .help = "User the hypervisor runs as; -1: ours."),                                  \
        OPTION(type, m.gid, .name = "gid", .kind = OPTION_INT, .arg = "GID", .def = "-1",          \
               .min = (uint64_t)-1, .max = UINT32_MAX - 1,                                         \
               .help = "Group the hypervisor runs as; -1: ours."),                                 \
        OPTION(type, m.enable_output, .name = "enable-output", .kind = OPTION_FLAG, .def = "true", \
               .help = "Show the machine's console on standard output."),                          \
        OPTION(type, m.enable_input, .name = "enable-input", .kind = OPTION_FLAG,                  \
               .help = "Type standard input into the machine's console."),                         \
        OPTION(type, m.resume_timeout, .name = "resume-timeout", .kind = OPTION_DURATION,          \
               .arg = "TIME", .def = "1m", .help = "How long to wait for the guest, each time."),  \
        OPTION(type, m.net, .name = "net", .kind = OPTION_CHOICE, .arg = "auto|none|user|tap",     \
               .def = "auto",                                                                      \
               .help = "The guest's network: a tap device, QEMU's user-mode network, or none; "    \
                       "auto: a tap when the namespace of --netns is there and we are root, else " \
                       "what is left."),                                                           \
        OPTION(                                                                                    \
            type, m.netns, .name = "netns", .kind = OPTION_STRING, .arg = "NAME", .def = "ark0",   \
            .help =                                                                                \
                "Network namespace of the tap: a name below /run/netns, a path, or empty: ours."), \
        OPTION(type, m.tap, .name = "interface", .kind = OPTION_STRING, .arg = "TAP",              \
               .def = "tap0", .help = "The tap device in that namespace."),                        \
        OPTION(type, m.mac, .name = "mac", .kind = OPTION_STRING, .arg = "MAC",                    \
               .def = "02:0e:d9:fd:68:3d",                                                         \
               .help =                                                                             \
                   "MAC address of the machine's network card. The guests of make blueprint take " \
                   "02:0e:d9:fd:68:3e instead: this one is the tap's, too."),                      \
        OPTION(type, m.forwards, .name = "forward", .kind = OPTION_LIST,                           \
               .arg = "PROTO:[HOST]:PORT-:GUESTPORT",                                              \
               .help = "With --net user: an IPv4 port of this host that leads into the guest, as " \
                       "in tcp:127.0.0.1:3333-:6379; may be given many times."),                   \
        OPTION(type, m.numa_node, .name = "numa-node", .kind = OPTION_INT, .arg = "N",             \
               .def = "-1", .min = (uint64_t)-1, .max = 63,                                        \
               .help = "Run on this NUMA node; -1: anywhere."),                                    \
        OPTION(type, m.cgroup_version, .name = "cgroup-version", .kind = OPTION_UINT,              \
               .arg = "0|1|2", .def = "0", .max = 2,                                               \
               .help = "Make a control group of this version; 0: none."),                          \
        OPTION(type, m.cgroup_parent, .name = "cgroup-parent", .kind = OPTION_STRING,              \
               .arg = "NAME", .help = "Its parent; default: the hypervisor's name.")

/* What they come to; vm_setup_clear() frees. */
struct vm_setup {
    struct vmm_choice choice;
    enum vmm_nic_kind nic;
    char *netns;    /* path; NULL = ours */
    char *forwards; /* NULL = none */
};

/* Chooses the hypervisor. bound: the one a package is bound to, or VMM_AUTO; accel likewise.
 * kernel: path for vmm_wish, or NULL. Returns 0; nothing to clear after a failure. */
int vm_setup_choose(const struct vm_opts *opts, enum vmm_hypervisor bound, enum vmm_accel accel,
                    const char *kernel, const struct context *ctx, struct vm_setup *ret,
                    struct error *err);

/* The NIC for a machine; strings point into opts and setup. */
struct vmm_nic vm_setup_nic(const struct vm_setup *setup, const struct vm_opts *opts);

/* The VMM's options: user, network, groups, console (our standard streams). */
void vm_setup_fill(const struct vm_setup *setup, const struct vm_opts *opts,
                   struct vmm_options *ret);

void vm_setup_clear(struct vm_setup *setup);
#define cleanup_vm_setup __attribute__((cleanup(vm_setup_clear)))

#endif
