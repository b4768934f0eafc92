/* SPDX-License-Identifier: Apache-2.0 */
/* drafter.h - libdrafter: all that Drafter's commands do with machines, for programs that embed it
 *
 *     struct drafter                 where log and events go, and a request to stop
 *       drafter_snapshot()           a blueprint becomes a package          drafter-snapshotter(1)
 *       struct drafter_machine       a machine that runs, stands and moves  drafter-peer(1)
 *       drafter_archive() ...        one file of a folder, and back         drafter-packager(1)
 *       struct drafter_mount         devices as files, no machine           drafter-mounter(1)
 *
 * Conventions. A function that can fail returns 0 or -1 (a pointer: NULL) and fills in the error it
 * was given, which may be NULL; nothing else is printed or changed then. Strings that are passed in
 * belong to the caller; those of a machine's or mount's options must outlive it. Option structs
 * begin with their size: set it with the initialiser, and zero means the default for all that
 * follows, so that a program built against an older header goes on working.
 *
 * There is no global state. Different machines may be used from different threads at once; one
 * machine's functions are called one at a time, except where "any thread" is said. SIGPIPE should
 * be ignored by the program; descriptors are all close-on-exec.
 *
 * Link with `pkg-config --cflags --libs drafter`.
 */
#ifndef DRAFTER_H
#define DRAFTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DRAFTER_PUBLIC __attribute__((visibility("default")))

struct drafter;
struct drafter_machine;
struct drafter_mount;

/* The one error type. code: an errno value (EBADMSG: damaged input, EBUSY: in use, ESTALE: must not
 * run as it is, ECANCELED: drafter_cancel(), ...), or DRAFTER_WRONG_USAGE. text: object, act, cause
 * and, where there is one, the way out. */
#define DRAFTER_WRONG_USAGE 10001
struct drafter_error {
    int code;
    char text[1024];
};

/* "0.1.0" */
DRAFTER_PUBLIC const char *drafter_version(void);

/* ---- Where things are said --------------------------------------------------------------- */

enum drafter_level { DRAFTER_DEBUG, DRAFTER_INFO, DRAFTER_WARN };

enum drafter_event_kind {
    DRAFTER_EVENT_PROGRESS,  /* phase, done, total, unit */
    DRAFTER_EVENT_RUNNING,   /* a machine runs, and its guest's agent knows */
    DRAFTER_EVENT_SUSPENDED, /* it stands still and is kept */
    DRAFTER_EVENT_MOVED,     /* another host has it now */
    DRAFTER_EVENT_ENDED,     /* its guest powered off */
};

struct drafter_event {
    enum drafter_event_kind kind;
    const struct drafter_machine *machine; /* NULL for progress */
    const char *phase;                     /* "archive", "verify", ...: a stable word */
    uint64_t done, total;                  /* total 0: not known */
    const char *unit;                      /* "bytes", "files", "blocks" */
};

/* Callbacks may come from any thread, also several at once, and must not call the library. */
struct drafter_options {
    size_t size;
    void *opaque; /* handed to the callbacks */
    /* message: a stable text; fields: a JSON object, "{\"ms\":41}". NULL = no log. */
    void (*log)(void *opaque, enum drafter_level level, const char *message, const char *fields);
    enum drafter_level log_level; /* records below it are dropped */
    void (*event)(void *opaque, const struct drafter_event *event); /* NULL = no events */
};
#define DRAFTER_OPTIONS_INIT                                                                       \
    {                                                                                              \
        .size = sizeof(struct drafter_options)                                                     \
    }

/* options may be NULL: silence. The caller owns the result, which outlives all that is made with
 * it. */
DRAFTER_PUBLIC struct drafter *drafter_new(const struct drafter_options *options,
                                           struct drafter_error *err);
DRAFTER_PUBLIC void drafter_free(struct drafter *d); /* NULL is fine */

/* Asks what is under way, and all that comes, to end (ECANCELED); drafter_machine_serve() returns
 * then, and suspending still works. Any thread, and safe in a signal handler. */
DRAFTER_PUBLIC void drafter_cancel(struct drafter *d);

/* ---- Hypervisor and network -------------------------------------------------------------- */

/* Words and defaults are those of the commands' options of the same names. */
struct drafter_vm {
    const char *hypervisor, *accel;                      /* "auto" */
    const char *firecracker_bin, *jailer_bin, *qemu_bin; /* jailer_bin "": without it */
    const char *folder;                                  /* of VM directories: "out/vms" */
    const char *net;                                     /* "auto", "none", "user", "tap" */
    const char *netns, *tap, *mac;
    const char *const *forwards; /* with net "user": "tcp:127.0.0.1:3333-:6379", ..., NULL */
    uid_t uid;                   /* whom the hypervisor runs as; with gid, when set_user */
    gid_t gid;
    bool set_user;
    int console_in, console_out; /* descriptors; 0 = none. They stay the caller's */
    uint64_t timeout_ms;         /* for the guest to answer, each time; 0 = a minute */
    int cgroup_version;          /* a control group of its own: 1 or 2; 0 = none */
    const char *cgroup_parent;   /* NULL = the hypervisor's name */
    int numa_node;               /* run there, when set_numa_node */
    bool set_numa_node;
    uint64_t reserved[8]; /* zero: this struct stands within others and has to keep its size */
};

/* ---- Blueprint to package ---------------------------------------------------------------- */

struct drafter_snapshot_options {
    size_t size;
    const char *blueprint, *package; /* folders; the second one appears whole */
    struct drafter_vm vm;
    uint32_t cpus, memory_mib; /* 0 = 1, 1024 */
    const char *cpu_template, *boot_args;
    /* A console line that tells that the guest is up (an extended regular expression); NULL = its
     * own call does. */
    const char *until;
    const char *devices; /* in place of both folders: JSON, as drafter-snapshotter's --devices */
    uint32_t liveness_port, agent_port; /* 0 = the blueprint's, without one 25 and 26 */
    bool no_liveness, no_agent;         /* the guest has none */
    bool io_engine_sync;                /* Firecracker: synchronous disks instead of io_uring */
};
#define DRAFTER_SNAPSHOT_OPTIONS_INIT                                                              \
    {                                                                                              \
        .size = sizeof(struct drafter_snapshot_options)                                            \
    }

/* Boots the blueprint, or a machine of these devices, waits until it is up, and keeps it as a
 * package. After a failure there is none, and an older one stays. */
DRAFTER_PUBLIC int drafter_snapshot(struct drafter *d,
                                    const struct drafter_snapshot_options *options,
                                    struct drafter_error *err);

/* ---- Machines ---------------------------------------------------------------------------- */

struct drafter_machine_options {
    size_t size;
    /* One of three: a package (a folder, or a .tar.zst file), a blueprint's folder to boot, or
     * devices one by one as drafter-peer's --devices has them (JSON). With raddr, a package's
     * folder that is not there becomes what arrives. */
    const char *package, *blueprint, *devices;
    const char *overlay_dir; /* where this machine writes, one for every machine: "out/overlay" */
    struct drafter_vm vm;
    bool fresh;                /* drop what it wrote in earlier runs */
    bool verify;               /* compare the package with its digests first */
    bool take_back;            /* a person says that it does not run where it was moved */
    bool mock;                 /* no hypervisor: devices only */
    uint32_t cpus, memory_mib; /* of a blueprint that boots; 0 = 1, 1024 */
    const char *cpu_template, *boot_args;
    const char *raddr, *laddr; /* take it from, hand it to: HOST:PORT, unix:PATH, tls:HOST:PORT */
    const char *tls_cert, *tls_key, *tls_ca; /* PEM files */
    bool tls_anonymous_clients;
    int postcopy;               /* 0 = for what is written last, 1 = none, 2 = for nearly all */
    unsigned concurrency;       /* threads that send, 16 at most; 0 = one a processor, to 4 */
    int zstd_level;             /* 0 = what travels is not compressed */
    uint64_t bandwidth;         /* bytes a second; 0 = no limit */
    uint64_t downtime_limit_ms; /* give a move up rather than stand still for longer; 0 = never */
    const char *trace;          /* file for a trace, drafter-migration(7); NULL = none */
    /* Where a package's archive is extracted, once for all machines; NULL = "out/packages". */
    const char *package_cache;
    uint64_t idle_timeout_ms;   /* a silent side of a move is taken for lost; 0 = 30 s */
    uint64_t retake_timeout_ms; /* and, once it may have the machine, looked for; 0 = a minute */
    int status_fd; /* events of moves as JSON lines, drafter-migration(7); 0 = none. The caller's */
};
#define DRAFTER_MACHINE_OPTIONS_INIT                                                               \
    {                                                                                              \
        .size = sizeof(struct drafter_machine_options)                                             \
    }

/* Reads what the machine is; nothing is opened or started yet. The options must outlive the result.
 * The caller owns it. */
DRAFTER_PUBLIC struct drafter_machine *
drafter_machine_new(struct drafter *d, const struct drafter_machine_options *options,
                    struct drafter_error *err);

/* Resumes it, boots it, or takes it in. It runs when this returns 0 (but with mock). Only once. */
DRAFTER_PUBLIC int drafter_machine_start(struct drafter_machine *m, struct drafter_error *err);

/* Serves until there is a reason to end: drafter_cancel(), a guest that powered off, a machine that
 * was handed on (0), a hypervisor that died (-1, ECHILD). With laddr it serves whoever takes it. */
DRAFTER_PUBLIC int drafter_machine_serve(struct drafter_machine *m, struct drafter_error *err);

/* Calls the move that is under way off, if it still can be: the machine runs on where it was, and
 * serving goes on. No move under way: nothing. Any thread, and safe in a signal handler. */
DRAFTER_PUBLIC void drafter_machine_call_off(struct drafter_machine *m);

/* Suspends it: the agent prepares the guest, it stands still, all is flushed; the next start goes
 * on from there. One that does not run: nothing. When the agent alone failed it is kept, and -1
 * says so. */
DRAFTER_PUBLIC int drafter_machine_suspend(struct drafter_machine *m, struct drafter_error *err);

/* Ends what is left, without suspending, and frees it. NULL is fine. -1: something could not be
 * flushed or removed, or the trace is not whole. */
DRAFTER_PUBLIC int drafter_machine_free(struct drafter_machine *m, struct drafter_error *err);

DRAFTER_PUBLIC bool drafter_machine_runs(const struct drafter_machine *m);

/* The folder with its vsock.sock; NULL before start. Valid until free. */
DRAFTER_PUBLIC const char *drafter_machine_path(const struct drafter_machine *m);

/* A stream to who listens in the guest on a vsock port. Any thread, while it runs. Returns a
 * descriptor, the caller's, or -1. */
DRAFTER_PUBLIC int drafter_machine_connect(struct drafter_machine *m, uint32_t port,
                                           struct drafter_error *err);

/* What drafter-peer's --metrics serves, as Prometheus text, NUL-terminated. Any thread. Returns its
 * length, at most size - 1. */
DRAFTER_PUBLIC size_t drafter_machine_metrics(struct drafter_machine *m, char *buf, size_t size);

/* ---- Packages over a network -------------------------------------------------------------- */

struct drafter_registry_options {
    size_t size;
    const char *package;                     /* folder; it is only read */
    const char *laddr;                       /* NULL = ":1600" */
    const char *tls_cert, *tls_key, *tls_ca; /* PEM files */
    bool tls_anonymous_clients;
    unsigned pulls;       /* at once; more clients are turned away; 0 = 64 */
    unsigned concurrency; /* threads of each pull; 0 = one for every processor, 4 at most */
    bool no_verify;       /* serve files without comparing their digests */
    bool no_postcopy;     /* a puller's machine runs when all of it is there */
    int zstd_level;       /* 0 = what travels is not compressed */
    uint64_t bandwidth;   /* of each pull, bytes a second; 0 = no limit */
    const char *devices;  /* in place of package: JSON, as drafter-registry's --devices has it */
    int status_fd;        /* events as JSON lines, drafter-migration(7); 0 = none. The caller's */
};
#define DRAFTER_REGISTRY_OPTIONS_INIT                                                              \
    {                                                                                              \
        .size = sizeof(struct drafter_registry_options)                                            \
    }

/* Serves the package to any number of peers until drafter_cancel(): then pulls whose machine does
 * not run yet are called off, and the others served to their end. */
DRAFTER_PUBLIC int drafter_registry(struct drafter *d,
                                    const struct drafter_registry_options *options,
                                    struct drafter_error *err);

struct drafter_terminate_options {
    size_t size;
    const char *raddr;                       /* the peer or registry */
    const char *package;                     /* folder to make */
    const char *tls_cert, *tls_key, *tls_ca; /* PEM files */
    bool replace;        /* in place of what is there; else that is refused (EEXIST) */
    bool keep_running;   /* take a copy: the machine goes on where it is */
    const char *devices; /* in place of package: JSON, as drafter-terminator's --devices has it */
    int status_fd;       /* events as JSON lines, drafter-migration(7); 0 = none. The caller's */
    const char *trace;   /* file for a trace, drafter-migration(7); NULL = none */
};
#define DRAFTER_TERMINATE_OPTIONS_INIT                                                             \
    {                                                                                              \
        .size = sizeof(struct drafter_terminate_options)                                           \
    }

/* Takes a machine over and keeps it as a package, which is whole and durable when this returns 0.
 * Otherwise nothing of it is there, and the machine is where it was unless the error says other. */
DRAFTER_PUBLIC int drafter_terminate(struct drafter *d,
                                     const struct drafter_terminate_options *options,
                                     struct drafter_error *err);

/* ---- Archives ---------------------------------------------------------------------------- */

struct drafter_archive_options {
    size_t size;
    const char *archive; /* the .tar.zst file */
    const char *folder;  /* of the package, or of the blueprint */
    bool blueprint;
    bool verify;       /* archiving: compare the files with their digests first */
    bool no_sync;      /* do not wait for stable storage */
    int level;         /* archiving: of zstd; 0 = 3 */
    unsigned threads;  /* archiving: 0 = one for every processor */
    uint64_t max_size; /* extracting: refuse more; 0 = 64 TiB */
};
#define DRAFTER_ARCHIVE_OPTIONS_INIT                                                               \
    {                                                                                              \
        .size = sizeof(struct drafter_archive_options)                                             \
    }

/* Each result appears whole or not at all; a folder of the same kind is replaced. */
DRAFTER_PUBLIC int drafter_archive(struct drafter *d, const struct drafter_archive_options *options,
                                   struct drafter_error *err);
DRAFTER_PUBLIC int drafter_extract(struct drafter *d, const struct drafter_archive_options *options,
                                   struct drafter_error *err);

/* ---- Mounts ------------------------------------------------------------------------------ */

struct drafter_mount_options {
    size_t size;
    const char *package, *blueprint, *devices; /* one of three */
    const char *overlay_dir;                   /* devices can be written; NULL = they cannot */
    bool read_only;                            /* show overlays, change nothing */
    unsigned mode;                             /* permissions of the files; 0 = 0600 */
};
#define DRAFTER_MOUNT_OPTIONS_INIT                                                                 \
    {                                                                                              \
        .size = sizeof(struct drafter_mount_options)                                               \
    }

/* The devices are files in the folder path when this returns. The caller owns the result. */
DRAFTER_PUBLIC struct drafter_mount *drafter_mount(struct drafter *d, const char *path,
                                                   const struct drafter_mount_options *options,
                                                   struct drafter_error *err);

/* Flushes and detaches. NULL is fine. -1: something could not be flushed; it is gone all the same.
 */
DRAFTER_PUBLIC int drafter_unmount(struct drafter_mount *m, struct drafter_error *err);

#ifdef __cplusplus
}
#endif

#endif
