/* SPDX-License-Identifier: Apache-2.0 */
/* vmm.h - a virtual machine in one's hands, on Firecracker or on QEMU
 *
 * Theory of operation: a machine is described as data (struct vmm_machine), a process that will
 * hold it is started with struct vmm_options, and a handful of acts moves it through these states:
 *
 *     vmm_start(BOOT) --> STARTED --vmm_boot()--> RUNNING <--vmm_resume()-- PAUSED --vmm_save()
 *     vmm_start(LOAD) --> STARTED --vmm_load()--> PAUSED  <--vmm_pause()--- RUNNING
 *     any state --vmm_stop(), a crash, the guest powering off or rebooting--> EXITED
 *
 * Both drivers keep the same rules, so that nothing above can tell which one works:
 * - All files are named relative to the VM directory (vmm_place), which is the process's working
 *   directory, or its root with the jailer: "kernel", "disk", "memory", "state". A name may be a
 *   relative symlink into a FUSE mount below that directory.
 * - Guest memory is the memory file, offset 0 = guest address 0, the part above the hole below 4
 * GiB following without a gap. The state file holds everything else. After vmm_save() both together
 *   are the machine; a state file alone says which driver wrote it (vmm_state_driver()).
 * - A machine that was loaded writes straight into the memory file (shared mapping): vmm_flush()
 *   at any time makes the file's owner (tmpfs, our FUSE daemon) see all that the guest wrote
 * before. A booted machine's memory file is whole after vmm_save() only, as Firecracker boots in
 * anonymous memory; struct vmm_features says so.
 * - When vmm_pause() has returned no disk request is in flight or cached in the process, and all
 *   that the guest had flushed is fsync'ed in the disk's file.
 * - The guest rebooting or powering off ends the process; nothing restarts by itself.
 * - Disks appear to the guest as /dev/vda, /dev/vdb, ... in the order given, the NIC as eth0, the
 *   first serial port is the console (ttyS0), the vsock has CID 3 and its host side is
 *   VMDIR/vsock.sock ("CONNECT PORT\n") and VMDIR/vsock.sock_PORT.
 *
 * The process dies with us (parent death signal; a watchdog process where the jailer's change of
 * user clears that signal), and its end is seen at once: vmm_exit_fd() becomes readable and every
 * act in progress fails with a text that ends in the last console lines.
 *
 * Threads: one thread of ours per machine (it starts the process, so that the death signal does not
 * depend on the caller's thread, and moves the console's bytes). Acts on one machine are serialised
 * by a lock inside; vmm_stop() and vmm_exit_fd() may be called while another thread is in an act.
 */
#ifndef RUNTIME_VMM_VMM_H
#define RUNTIME_VMM_VMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/context.h"
#include "runtime/base/error.h"

/* Limits. Ids: Firecracker takes letters, digits and '_' for devices; the jailer letters, digits
 * and
 * '-' for the machine's id, up to 64. */
#define VMM_DISKS_MAX 16
#define VMM_CPUS_MAX 32
#define VMM_MEMORY_MIB_MAX (1u << 20)
#define VMM_PATH_MAX 255            /* bytes of a path in the VM directory */
#define VMM_NAME_MAX 32             /* of a disk, and so of its device id */
#define VMM_BOOT_ARGS_MAX 2047      /* COMMAND_LINE_SIZE of Linux on x86 is 2048 */
#define VMM_GUEST_CID 3             /* of every machine: its vsock is a UNIX socket of its own */
#define VMM_VSOCK_NAME "vsock.sock" /* in the VM directory */

/* Suits both drivers. The drivers take out what only fits the other ("pci=off" with QEMU's
 * virtio-pci, a TSC clock source under TCG) and add what they need; see vmm_boot_args(). */
#define VMM_BOOT_ARGS_DEFAULT "console=ttyS0 panic=1 root=/dev/vda rw rootfstype=ext4 nokaslr"

enum vmm_hypervisor {
    VMM_AUTO, /* for wishes only */
    VMM_FIRECRACKER,
    VMM_QEMU,
};

enum vmm_accel {
    VMM_ACCEL_AUTO, /* for wishes only */
    VMM_ACCEL_KVM,
    VMM_ACCEL_TCG, /* QEMU's emulation in software */
};

/* "auto", "firecracker", "qemu"; "auto", "kvm", "tcg". Parsers return -1 with a usage error. */
const char *vmm_hypervisor_name(enum vmm_hypervisor hypervisor);
const char *vmm_accel_name(enum vmm_accel accel);
int vmm_hypervisor_parse(const char *word, enum vmm_hypervisor *ret, struct error *err);
int vmm_accel_parse(const char *word, enum vmm_accel *ret, struct error *err);

/* ---- The machine -------------------------------------------------------------------------- */

struct vmm_disk {
    const char *name; /* device id: 1..VMM_NAME_MAX letters, digits, '_' */
    const char *path; /* in the VM directory; NULL = same as name */
    bool read_only;
    bool sync; /* Firecracker: io_engine Sync instead of Async (io_uring); before 1.15 it is Sync,
                  as a save loses interrupts of Async there */
};

enum vmm_nic_kind {
    VMM_NIC_NONE,
    VMM_NIC_TAP,   /* an existing tap device, in the network namespace of the options */
    VMM_NIC_USER,  /* QEMU only: its built-in user-mode network */
    VMM_NIC_PASST, /* QEMU only: a connected stream socket of passt(1) */
};

struct vmm_nic {
    enum vmm_nic_kind kind;
    const char *mac;      /* "02:0e:d9:fd:68:3d"; what the guest has */
    const char *id;       /* device id kept in the state; NULL = "tap0" */
    const char *tap;      /* TAP: interface name; NULL = "tap0" */
    const char *forwards; /* USER: "tcp:127.0.0.1:3333-:6379,udp:..." or NULL */
    int passt_fd;         /* PASST: owned by the caller, used by vmm_start() only */
};

/* All pointers belong to the caller and outlive vmm_start() (which copies). For vmm_load() the
 * machine must be the one that was saved: vmm_machine_format() and vmm_machine_parse() carry it. */
struct vmm_machine {
    enum vmm_hypervisor hypervisor; /* which driver the machine is bound to; AUTO = not yet */
    const char *qemu_machine;       /* "pc-q35-7.2", "microvm"; NULL = chosen by vmm_start() */
    const char *cpu_model; /* QEMU: a CPU model of its own; NULL = chosen. Firecracker: a static
                              template (C3, T2, T2S, T2CL, T2A, V1N1), NULL or "None" = host's */
    enum vmm_accel accel;  /* AUTO = as the options' choice says */
    const char *kernel;    /* boot only; NULL = "kernel": an uncompressed ELF */
    const char *initrd;    /* boot only; NULL = none */
    const char *boot_args; /* boot only; NULL = VMM_BOOT_ARGS_DEFAULT */
    uint32_t cpus;         /* 1..VMM_CPUS_MAX */
    uint32_t memory_mib;   /* 1..VMM_MEMORY_MIB_MAX */
    const char *memory;    /* NULL = "memory"; made, or grown, to memory_mib when it is not */
    const struct vmm_disk *disks;
    size_t n_disks; /* at most VMM_DISKS_MAX */
    struct vmm_nic nic;
    bool vsock;
    bool rng; /* virtio-rng fed by the host */
};

/* Checks names, limits and characters of everything. Returns 0. */
int vmm_machine_check(const struct vmm_machine *machine, struct error *err);

/* The machine as a JSON text that another host can start a process for (no kernel, initrd, boot
 * args, no fds, no tap name). The caller frees it. Returns NULL on failure. */
char *vmm_machine_format(const struct vmm_machine *machine, struct error *err);

/* The reverse; hostile input is refused by name. The result owns its strings: vmm_machine_free().
 */
struct vmm_machine *vmm_machine_parse(const char *text, size_t len, struct error *err);
void vmm_machine_free(struct vmm_machine *machine);
DEFINE_CLEANUP(cleanup_vmm_machine_p, struct vmm_machine *, vmm_machine_free)
#define cleanup_vmm_machine CLEANUP(cleanup_vmm_machine_p)

/* ---- What this host can do ---------------------------------------------------------------- */

struct vmm_wish {
    enum vmm_hypervisor hypervisor;
    enum vmm_accel accel;
    const char *firecracker_bin; /* NULL = "firecracker"; looked up in PATH unless it has a '/' */
    const char *jailer_bin;      /* NULL = "jailer"; "" = run without it */
    const char *qemu_bin;        /* NULL = "qemu-system-x86_64" */
    const char *kernel; /* path of the guest's kernel, to see whether it is a PVM guest; or NULL */
    bool user_net;      /* auto: not Firecracker, which has no user-mode network */
};

struct vmm_choice {
    enum vmm_hypervisor hypervisor; /* never AUTO */
    enum vmm_accel accel;           /* never AUTO */
    char *bin;                      /* path of the program */
    char *jailer;                   /* path; NULL = none */
    char why[512];                  /* one line: what was found, what was chosen */
};

/* Finds out what works here: binaries, /dev/kvm by opening it and creating a machine, vmx or svm in
 * /proc/cpuinfo (a PVM host has /dev/kvm without them and runs PVM guests only). A wish that cannot
 * be met is an error saying what is missing; auto never fails on a host with QEMU. Logs "Chose
 * hypervisor" with the reason. Returns 0; free with vmm_choice_clear(). */
int vmm_choose(const struct vmm_wish *wish, const struct context *ctx,
               struct vmm_choice *ret_choice, struct error *err);
void vmm_choice_clear(struct vmm_choice *choice);

/* ---- The VM directory --------------------------------------------------------------------- */

/* BASE/PROGRAM/ID/root, as the jailer lays it out. */
struct vmm_place {
    char *base;    /* BASE, absolute */
    char *program; /* the driver binary's last path component */
    char id[32];   /* 22 random letters and digits */
    char *path;    /* the VM directory, absolute */
};

/* Makes the directory (parents too) with mode 0700 owned by uid:gid where we may. base: e.g.
 * "out/vms". A base so deep that VMDIR/vsock.sock_65535 exceeds what a UNIX socket address holds
 * (107 bytes, unix(7)) is refused. Returns 0. */
int vmm_place_make(const char *base, const struct vmm_choice *choice, uid_t uid, gid_t gid,
                   struct vmm_place *ret_place, struct error *err);

/* Removes BASE/PROGRAM/ID with all it holds (mounts must be gone) and frees the strings. Returns 0;
 * the strings are freed in any case. */
int vmm_place_remove(struct vmm_place *place, struct error *err);

/* Opens a file of the VM directory dir_fd (named `dir` in texts) for somebody who has more rights
 * than the process that owns the directory, and may have been taken over. path: without links in
 * it, see vmm_path_check() in driver.h. flags, mode: as of open(2); O_CLOEXEC, O_NOCTTY and
 * O_NONBLOCK are added, and O_TRUNC takes effect last. EPERM with the reason when it is anything
 * but a regular file of one name, of `owner` or ourselves. Returns the fd, or -1. */
int vmm_open_inside(int dir_fd, const char *dir, const char *path, int flags, mode_t mode,
                    uid_t owner, struct error *err);

/* ---- The process -------------------------------------------------------------------------- */

enum vmm_purpose {
    VMM_BOOT,
    VMM_LOAD,
};

struct vmm_options {
    enum vmm_purpose purpose; /* QEMU must know it when it starts */
    const struct vmm_choice *choice;
    const struct vmm_place *place;
    uid_t uid, gid;            /* as whom the process runs (needs root unless they are ours) */
    const char *netns;         /* path of a network namespace; NULL = ours */
    int numa_node;             /* CPUs and memory of this node; -1 = any */
    int cgroup_version;        /* 1, 2; 0 = the process stays in our cgroup */
    const char *cgroup_parent; /* NULL = the program's name, as the jailer has it */
    int console_in;            /* bytes typed into the console; -1 = none. Owned by the caller until
                                  vmm_free(); a tty is the caller's to put into raw mode */
    int console_out;      /* where the console's bytes go too; -1 = they are kept for errors only */
    int vhost_vsock_fd;   /* QEMU with machine.vsock: an fd that answers the vhost-vsock ioctls
                             (vsock_open()); -1 = none. The caller closes its copy after
                             vmm_start() */
    int memory_fd;        /* the memory file, opened read-write by a caller whose file is none that
                             only the machine's process could have put there: where the name in the
                             VM directory leads out of it, or is one of several; -1 = it is opened
                             there, with vmm_open_inside(), the name being a file or a relative link
                             to one. The caller closes its copy after vmm_start() */
    int serial_fd;        /* QEMU: a connected stream socket as second serial port; -1 = none */
    bool small_faults;    /* the memory file's pages come from far: a fault must not read more of
                             them than the file's read-ahead says. QEMU only, Firecracker's do not */
    bool guest_announces; /* LOAD: the guest's agent announces its addresses by itself when it goes
                             on. QEMU then has neither itself nor the guest's kernel do so, which
                             costs much before anything else in the guest runs */
    uint64_t timeout_ns;  /* for any one act that writes nothing; 0 = VMM_TIMEOUT_NS; see
                            VMM_WRITE_MIB for those that do */
};

/* Generous: a busy host must not fail an act that would have succeeded. */
#define VMM_TIMEOUT_NS (UINT64_C(60) * 1000000000)

/* What any storage takes in one timeout which a machine can live on: 4 MiB a second. A save is
 * given the time to write the guest's whole memory beyond the timeout, and what the host has to
 * write already; a pause, which flushes the disks, the latter. The process's end ends both. */
#define VMM_WRITE_MIB 240

#define VMM_OPTIONS_INIT                                                                           \
    {                                                                                              \
        .numa_node = -1, .console_in = -1, .console_out = -1, .vhost_vsock_fd = -1,                \
        .memory_fd = -1, .serial_fd = -1                                                           \
    }

struct vmm_features {
    bool memory_live; /* vmm_flush() works now: the guest writes into the memory file */
    bool fork;        /* Firecracker: the live-migration fork (shared, Msync) */
    char version[64]; /* of the program; known once ready */
};

enum vmm_state {
    VMM_STATE_STARTED, /* the process is there, without a machine; may still be starting up */
    VMM_STATE_RUNNING,
    VMM_STATE_PAUSED,
    VMM_STATE_EXITED, /* only vmm_exit_*() and vmm_free() make sense */
};

struct vmm;

/* Starts the process and returns without waiting for it to be ready, so that a target has it up
 * before it is needed. Returns NULL on failure. The caller frees the result. ctx outlives it. */
struct vmm *vmm_start(const struct vmm_machine *machine, const struct vmm_options *options,
                      const struct context *ctx, struct error *err);

/* Ends the process if it lives, removes its sockets and cgroup, and frees everything. The VM
 * directory stays. NULL is fine. */
void vmm_free(struct vmm *vmm);
DEFINE_CLEANUP(cleanup_vmm_p, struct vmm *, vmm_free)
#define cleanup_vmm CLEANUP(cleanup_vmm_p)

/* Waits until the process answers. vmm_boot() and vmm_load() do it themselves. Returns 0. */
int vmm_ready(struct vmm *vmm, struct error *err);

/* Boots the machine; it runs when this returns. Only once, in STARTED. Returns 0. On failure the
 * process is of no further use. */
int vmm_boot(struct vmm *vmm, struct error *err);

/* Loads the state file (name in the VM directory) over the memory file; the machine is paused. Only
 * once, in STARTED. A state of another driver, machine, version, or a damaged one is refused before
 * anything runs. Returns 0. On failure the process is of no further use, the files are unchanged.
 */
int vmm_load(struct vmm *vmm, const char *state, struct error *err);

/* Idempotent. Return 0. After a failure (if the process lives) the machine may run or not, as when
 * no answer came in time: vmm_state() says RUNNING then, and the next of vmm_pause(), vmm_resume()
 * and vmm_save() asks the hypervisor, and fails when that says nothing either. */
int vmm_pause(struct vmm *vmm, struct error *err);
int vmm_resume(struct vmm *vmm, struct error *err);

/* Brings what the guest wrote into the memory file's owner: fsync(2) of that file by us, which
 * writes all pages dirtied through any mapping, so neither the guest nor its devices are held up.
 * Any state of the machine; ENOTSUP while features.memory_live is false. Returns 0. */
int vmm_flush(struct vmm *vmm, struct error *err);

/* Writes the state file (name in the VM directory; made, or overwritten from its start: a longer
 * old content may stay behind the new, which carries its own length) and flushes the memory. Only
 * while paused; the machine may be resumed afterwards. Not atomic: the caller keeps an old state
 * elsewhere if it needs one. The file is not synced: the machine stands still while this runs.
 * Returns 0. */
int vmm_save(struct vmm *vmm, const char *state, struct error *err);

/* Ends the process at once (SIGKILL) and waits for it. Idempotent. Returns 0. */
int vmm_stop(struct vmm *vmm, struct error *err);

enum vmm_state vmm_state(struct vmm *vmm);
struct vmm_features vmm_features(struct vmm *vmm);
pid_t vmm_pid(const struct vmm *vmm);

/* The machine as it runs, every default filled in; owned by the vmm. */
const struct vmm_machine *vmm_machine(const struct vmm *vmm);

/* How the process ended. */
struct vmm_exit {
    bool asked;         /* by vmm_stop() */
    bool clean;         /* exit status 0: the guest powered off or rebooted */
    int status;         /* wait status */
    char text[512];     /* "qemu-system-x86_64 (pid 12): killed by signal 9 (Killed)" */
    char console[1024]; /* the last lines of console and error output, control characters removed */
};

/* A descriptor that becomes readable when the process has ended and its last output was read; owned
 * by the vmm. */
int vmm_exit_fd(const struct vmm *vmm);

/* Waits for the end, for at most timeout_ns (UINT64_MAX = no limit) or until ctx is cancelled.
 * Returns 0 with *ret_exit filled, else -1 (ETIMEDOUT, ECANCELED). */
int vmm_wait_exit(struct vmm *vmm, uint64_t timeout_ns, struct vmm_exit *ret_exit,
                  struct error *err);

/* Which driver wrote a state file, from its first bytes. Returns 0, or -1 with EBADMSG. */
int vmm_state_driver(int fd, const char *what, enum vmm_hypervisor *ret_hypervisor,
                     struct error *err);

/* The kernel command line a driver really gives for `args`. The caller frees it. */
char *vmm_boot_args(const char *args, enum vmm_hypervisor hypervisor, enum vmm_accel accel,
                    struct error *err);

#endif
