/* SPDX-License-Identifier: Apache-2.0 */
/* package.h - a machine that stands still, as a folder
 *
 * Theory of operation: a package is a folder with the files of a machine's devices: what its
 * blueprint had, and what it was when it was stopped. config.json is written last: a folder without
 * it is no package, and the folder itself appears whole (output.h).
 *
 *     vmlinux initrd.img rootfs.ext4 oci.ext4 ...   as in the blueprint (blueprint.h names them)
 *     state.bin     devices and CPUs, as the hypervisor's driver writes it (vmm.h), then zeros:
 *                   at least PACKAGE_ROOM of them up to a multiple of it, so that the state can
 *                   be written again into a device of this size
 *     memory.bin    guest memory, sparse
 *     config.json   a JSON object, then at least one NUL byte up to a multiple of PACKAGE_ROOM
 *
 * config.json, version 1. Upstream's Drafter reads and writes agentVSockPort alone; an object
 * without "format" is its kind (struct package, foreign). With "format", all of it is checked and a
 * key that is not known is refused by name (* = may be absent):
 *
 *     {
 *       "agentVSockPort": 26,            0 = the guest has no agent
 *       "format": "drafter-package",
 *       "version": 1,                    others are refused
 *       "livenessVSockPort": 25,         0 = the guest does not call
 *       "architecture": "x86_64",        as uname(1) prints it
 *     * "made": "2026-11-23T21:43:11Z",  UTC
 *       "machine": {...},                vmm_machine_format(): hypervisor, CPUs, memory, disks
 *       "devices": [                     all but config, disks in the order the guest sees them
 *         {"name": "disk", "file": "rootfs.ext4", "size": 12345, "sha256": "64 hex digits" *}, ...
 *       ]
 *     }
 *
 * A peer that runs on a folder of its own keeps it a package, but without digests. Otherwise sizes
 * and digests are of the files when the package was made. A machine that runs on a package
 * without overlays changes them; package_verify() sees that, package_open() does not look.
 */
#ifndef RUNTIME_SNAPSHOT_PACKAGE_H
#define RUNTIME_SNAPSHOT_PACKAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blueprint/blueprint.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/context.h"
#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/vmm/vmm.h"

#define PACKAGE_CONFIG "config.json"
#define PACKAGE_VERSION 1
#define PACKAGE_CONFIG_MAX (1u << 20) /* bytes of the JSON object */
#define PACKAGE_ROOM (1u << 20)
#define PACKAGE_DEVICES_MAX BLUEPRINT_DEVICES_MAX

/* Plain data; what package_open() and package_parse() gave is to be read only. */
struct package {
    char *dir;          /* as given to package_open(), for messages; NULL when only parsed */
    int dirfd;          /* of the folder; -1 when only parsed */
    bool foreign;       /* upstream's config: no machine; devices are the files with known names */
    char *architecture; /* NULL in a foreign one */
    struct vmm_machine *machine; /* NULL in a foreign one */
    uint32_t liveness_port, agent_port;
    char made[32];                    /* "" = not said */
    struct blueprint_device *devices; /* their roles follow from their names; has_digest: false in a
                                         foreign package, or one that a peer keeps */
    size_t n_devices;
};

/* Opens the package in folder dir: reads and checks config.json, and that every device is a regular
 * file of the stated size. Errors: ENOENT when the folder holds no package, EBADMSG for a config
 * that is wrong, ESTALE for a device that is not as the config says. The caller owns the result.
 * Returns NULL on failure. */
struct package *package_open(const char *dir, struct error *err);

/* The same for a folder that is open (not taken over); dir names it in messages. */
struct package *package_open_at(int dirfd, const char *dir, struct error *err);

/* Reads a config alone: its bytes up to the first NUL, or to len. what names it. In a foreign one
 * there are no devices then. */
struct package *package_parse(const char *text, size_t len, const char *what, struct error *err);

void package_free(struct package *pkg); /* NULL is fine */

/* The device of that name; NULL = none. Owned by the package. */
const struct blueprint_device *package_find(const struct package *pkg, const char *name);

/* Opens a device's file, a regular file directly in the folder, never through a symlink. flags:
 * O_RDONLY or O_RDWR. Returns 0; the caller closes *ret_fd. */
int package_open_device(const struct package *pkg, const struct blueprint_device *dev, int flags,
                        int *ret_fd, struct error *err);

/* Reads the SHA-256 of all devices and compares; a wrong one is named (ESTALE). Reports progress
 * "verify" in bytes. ctx may be NULL. A foreign package has no digests: ENOTSUP. Returns 0. */
int package_verify(const struct package *pkg, const struct context *ctx, struct error *err);

/* The same for one device whose file is open. Returns 0. */
int package_verify_device(const struct blueprint_device *dev, int fd, struct error *err);

/* Refuses (ENOTSUP) a machine that cannot run here: made for another architecture, or for another
 * hypervisor than the one that was wished for (VMM_AUTO: any). Returns 0. */
int package_check_host(const struct package *pkg, enum vmm_hypervisor wish, struct error *err);

/* ---- upstream's ---- */

/* Lists the devices of a foreign package that is open: what stands under the names everybody uses.
 * Part of package_open(). Returns 0. */
int package_find_foreign(struct package *pkg, struct error *err);

/* The machine of a foreign package, as far as it has to be known: Firecracker's state says itself
 * what it is, and needs only what it opens. memory_size: of the file, with the room at its end.
 * *ret has no disks, and static strings. Returns 0, or -1 (EBADMSG). */
int package_foreign_machine(uint64_t memory_size, struct vmm_machine *ret, struct error *err);

/* Makes a foreign package one of ours: with that machine, and a disk for every device that is one.
 * Returns 0. */
int package_adopt(struct package *pkg, struct error *err);

/* ---- making one ---- */

/* An empty package of this architecture, made now. NULL: out of memory. */
struct package *package_new(struct error *err);

/* Adds a device whose file is at dirfd/file (any folder; the last path component is what the config
 * names) and hashes it. file NULL: the name's conventional one (blueprint_file_name()). Returns 0.
 */
int package_add(struct package *pkg, const char *name, int dirfd, const char *file,
                const struct context *ctx, struct error *err);

/* Adds a device that is not looked at. Returns 0. */
int package_add_device(struct package *pkg, const struct blueprint_device *dev, struct error *err);

/* The object as text, without the padding. The caller frees it. Checks what a reader would. Returns
 * NULL on failure. */
char *package_format(const struct package *pkg, struct error *err);

/* Writes config.json's content, padded, into an open empty file. Returns 0. */
int package_write_config(const struct package *pkg, int fd, const char *what, struct error *err);

/* The size a state or config file of len bytes gets: the next multiple of PACKAGE_ROOM and one
 * PACKAGE_ROOM more. */
uint64_t package_padded(uint64_t len);

DEFINE_CLEANUP(cleanup_package_p, struct package *, package_free)
#define cleanup_package CLEANUP(cleanup_package_p)

#endif
