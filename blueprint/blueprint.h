/* SPDX-License-Identifier: Apache-2.0 */
/* blueprint.h - the vocabulary of a machine, and the manifest of one that has not been started
 *
 * Theory of operation: a machine consists of named devices. A blueprint is a folder that holds the
 * files of those a machine starts from, and blueprint.json, which is written last: a folder without
 * it is no blueprint. The manifest states size and SHA-256 of every file, what the boot loader
 * shall be told, and where things came from.
 *
 *     name      file           role      is
 *     kernel    vmlinux        kernel    uncompressed ELF, enters by PVH or the 64-bit protocol
 *     initrd    initrd.img     initrd    absent when the kernel has its drivers built in
 *     disk      rootfs.ext4    root      the first disk, root of the guest
 *     oci       oci.ext4       disk      an OCI runtime bundle, labelled "oci"
 *     state     state.bin      state     of a package only: what the devices and CPUs held
 *     memory    memory.bin     memory    of a package only
 *     config    config.json    config    of a package only
 *
 * Every other name is a disk, its file called NAME.bin unless the manifest says otherwise.
 *
 * blueprint.json, version 1 (keys a reader does not know are ignored; * = may be absent):
 *
 *     {
 *       "format": "drafter-blueprint",
 *       "version": 1,                    others are refused
 *       "architecture": "x86_64",        as uname(1) prints it
 *       "bootArgs": "console=ttyS0 ...", at most BLUEPRINT_BOOT_ARGS_MAX bytes
 *       "livenessVSockPort": 25,
 *       "agentVSockPort": 26,
 *       "devices": [                     disks in the order in which the guest sees them
 *         {"name": "kernel", "role": "kernel", "file": "vmlinux",
 *          "size": 12345, "sha256": "64 lower-case hex digits"}, ...
 *       ],
 *     * "image": {"reference": "docker://...", "digest": "sha256:..."},
 *     * "made": {"kernel": "how, in words", "root": "how, in words"}
 *     }
 *
 * A file name has no slash: whatever a manifest names lies directly in its folder.
 */
#ifndef BLUEPRINT_BLUEPRINT_H
#define BLUEPRINT_BLUEPRINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/context.h"
#include "runtime/base/digest.h"
#include "runtime/base/error.h"

#define BLUEPRINT_MANIFEST "blueprint.json"
#define BLUEPRINT_VERSION 1
#define BLUEPRINT_MANIFEST_MAX (1u << 20) /* bytes of blueprint.json */
#define BLUEPRINT_DEVICES_MAX 64
#define BLUEPRINT_NAME_MAX 64 /* bytes of a device's name */
#define BLUEPRINT_FILE_MAX 255
#define BLUEPRINT_SIZE_MAX (UINT64_C(1) << 46) /* 64 TiB a device */
/* COMMAND_LINE_SIZE of x86 Linux less the NUL and what drivers append
 * (arch/x86/include/asm/setup.h) */
#define BLUEPRINT_BOOT_ARGS_MAX 1535
#define BLUEPRINT_TEXT_MAX 4095 /* bytes of a reference or a description */

/* Ports of the guest programs when nothing else is said, and the name of the manifest's keys. */
#define BLUEPRINT_LIVENESS_PORT 25
#define BLUEPRINT_AGENT_PORT 26

enum blueprint_role {
    BLUEPRINT_KERNEL,
    BLUEPRINT_INITRD,
    BLUEPRINT_ROOT, /* the disk that the boot arguments mount as root */
    BLUEPRINT_DISK,
    BLUEPRINT_STATE,
    BLUEPRINT_MEMORY,
    BLUEPRINT_CONFIG,
};

struct blueprint_device {
    char name[BLUEPRINT_NAME_MAX + 1];
    char file[BLUEPRINT_FILE_MAX + 1];
    enum blueprint_role role;
    uint64_t size;   /* bytes */
    bool has_digest; /* always, in a blueprint */
    uint8_t sha256[SHA256_SIZE];
};

/* Plain data; strings are owned, NULL where the manifest says nothing. Treat as read-only what
 * blueprint_open() gave. */
struct blueprint {
    char *dir; /* as given to blueprint_open(), for messages */
    int dirfd; /* of the folder; -1 when only parsed */
    char *architecture;
    char *boot_args;
    uint32_t liveness_port, agent_port;
    struct blueprint_device *devices;
    size_t n_devices;
    char *image_reference, *image_digest;
    char *made_kernel, *made_root;
};

/* The file name a device has by convention ("kernel" -> "vmlinux"); buf holds it for names that
 * have none of their own. name must be valid (blueprint_check_name()). */
const char *blueprint_file_name(const char *name, char buf[BLUEPRINT_FILE_MAX + 1]);

/* The role a name stands for; BLUEPRINT_DISK for names without a meaning of their own. */
enum blueprint_role blueprint_role_of(const char *name);
const char *blueprint_role_name(enum blueprint_role role);
/* The reverse: returns 0, or -1 without an error text. */
int blueprint_role_parse(const char *text, enum blueprint_role *ret);

/* 1 to BLUEPRINT_NAME_MAX letters, digits and '_' (what Firecracker takes as an id). Returns 0. */
int blueprint_check_name(const char *name, struct error *err);

/* A name of a file directly in a folder: 1 to BLUEPRINT_FILE_MAX bytes of letters, digits and
 * "._+-", not starting with '.', not "blueprint.json". Returns 0. */
int blueprint_check_file(const char *file, struct error *err);

/* The architecture this program runs on and machines are made for, as uname(1) prints it. */
const char *blueprint_host_architecture(void);

/* ---- devices as a manifest lists them: of a blueprint, or of a package (runtime/snapshot) ----
 *
 * manifest names the file that lists them, for messages. */

/* The device of that name; NULL = none. Owned by the list. */
const struct blueprint_device *blueprint_device_find(const struct blueprint_device *devices,
                                                     size_t n, const char *name);

/* Appends to a list, which is grown (free(3)). Refuses names and sizes that are none, a second
 * device of the same name, file, or role that is there once, and more than BLUEPRINT_DEVICES_MAX
 * (EINVAL). Returns 0. */
int blueprint_device_add(struct blueprint_device **devices, size_t *n,
                         const struct blueprint_device *dev, struct error *err);

/* Reads {"name", "file", "size", "sha256"}, the last of which may be absent; what names the object.
 * The role follows from the name; other keys are not looked at. Returns 0. */
struct json_object;
int blueprint_device_parse(struct json_object *obj, const char *what, struct blueprint_device *ret,
                           struct error *err);

/* Appends such an object to a JSON array, with "role" if that is wanted. Returns 0. */
int blueprint_device_format(struct json_object *list, const struct blueprint_device *dev, bool role,
                            struct error *err);

/* Opens the device's file: a regular one of the stated size (ESTALE) directly in the folder dirfd,
 * never through a symlink (ELOOP). flags: O_RDONLY or O_RDWR. Returns 0; the caller closes *ret_fd.
 */
int blueprint_device_open(int dirfd, const struct blueprint_device *dev, int flags,
                          const char *manifest, int *ret_fd, struct error *err);

/* Where a hash stands in a whole of many, in bytes; phase as context_progress() has it. */
struct device_progress {
    const char *phase;
    uint64_t before, total;
};

/* SHA-256 of a file's first size bytes; what names it. Reports progress and can be cancelled; ctx
 * may be NULL. Returns 0. */
int blueprint_device_hash(int fd, const char *what, uint64_t size, const struct device_progress *p,
                          const struct context *ctx, uint8_t ret_sum[SHA256_SIZE],
                          struct error *err);

/* Refuses (ESTALE) a digest that is not the device's. Returns 0. */
int blueprint_device_compare(const struct blueprint_device *dev, const uint8_t sum[SHA256_SIZE],
                             const char *manifest, struct error *err);

/* Reads and compares the files of all of them (ESTALE; ENOTSUP where there is no digest). Reports
 * progress "verify" in bytes. ctx may be NULL. Returns 0. */
int blueprint_device_verify(int dirfd, const struct blueprint_device *devices, size_t n,
                            const char *manifest, const struct context *ctx, struct error *err);

/* ---- blueprints ---- */

/* Opens the blueprint in folder dir: reads and checks the manifest, and that every device is a
 * regular file of the stated size. Digests are checked by blueprint_verify() only. The caller owns
 * the result. Errors: ENOENT when the folder holds no blueprint, EBADMSG for a manifest that is
 * wrong, ESTALE for a device that is not as the manifest says. Returns NULL on failure. */
struct blueprint *blueprint_open(const char *dir, struct error *err);

/* Reads the SHA-256 of all devices and compares; a wrong one is named (ESTALE). Reports progress
 * "verify" in bytes. ctx may be NULL. Returns 0. */
int blueprint_verify(const struct blueprint *bp, const struct context *ctx, struct error *err);

/* The device of that name; NULL = none. Owned by the blueprint. */
const struct blueprint_device *blueprint_find(const struct blueprint *bp, const char *name);

/* Opens a device's file, a regular file of the stated size directly in the folder, never through a
 * symlink. flags: O_RDONLY or O_RDWR. Returns 0; the caller closes *ret_fd. */
int blueprint_open_device(const struct blueprint *bp, const struct blueprint_device *dev, int flags,
                          int *ret_fd, struct error *err);

/* An empty blueprint for this host's architecture with the default ports. NULL: out of memory. */
struct blueprint *blueprint_new(struct error *err);

/* Adds a device. file NULL: by convention. The role follows from the name. Refuses a second device
 * of the same name, file, or (kernel, initrd, root) role. Returns 0. */
int blueprint_add(struct blueprint *bp, const char *name, const char *file, uint64_t size,
                  const uint8_t sha256[SHA256_SIZE], struct error *err);

/* Reads a manifest; what names it in errors. No file is looked at; dirfd is -1 then. Returns NULL
 * on failure (EBADMSG). */
struct blueprint *blueprint_parse(const char *text, size_t len, const char *what,
                                  struct error *err);

/* The manifest as text, always the same for the same content. The caller frees it. Checks what a
 * reader would (a text that is too long, no kernel, no root), so what it gives can be read back.
 * Returns NULL on failure. */
char *blueprint_format(const struct blueprint *bp, struct error *err);

/* What blueprint_make() shall put together. Strings NULL or "" where there is nothing to say. */
struct blueprint_source {
    const char *name; /* of the device */
    const char *path; /* its file; may already be the one in the folder */
};
struct blueprint_make {
    const char *dir;
    const struct blueprint_source *devices;
    size_t n_devices;
    const char *boot_args;
    const char *image_reference, *image_digest;
    const char *made_kernel, *made_root;
    uint32_t liveness_port, agent_port;
};

/* Makes the folder a blueprint: takes an old manifest away, brings each device's file in (copied
 * sparsely, appearing whole; not touched when it is there already), hashes it, and writes the
 * manifest last. The kernel must be an ELF of this host's architecture. After a failure there is no
 * manifest. Device files an old manifest named and the new one does not are removed. ctx may be
 * NULL; progress "blueprint" in bytes. Returns 0. */
int blueprint_make(const struct blueprint_make *make, const struct context *ctx, struct error *err);

void blueprint_free(struct blueprint *bp); /* NULL is fine */

DEFINE_CLEANUP(cleanup_blueprint_p, struct blueprint *, blueprint_free)
#define cleanup_blueprint CLEANUP(cleanup_blueprint_p)

#endif
