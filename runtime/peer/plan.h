/* SPDX-License-Identifier: Apache-2.0 */
/* plan.h - what a peer starts from, whichever way it was said, as one list of devices
 *
 *     --package DIR     the package's files are bases that are never written; memory, state and
 *                       disks have overlays in --overlay-dir
 *     --package FILE    the same of an archive, which is extracted once (archive.h)
 *     --blueprint DIR   disks as with a package; memory, state and config are files in
 * --overlay-dir, made when the machine is suspended the first time: until then it boots
 *     --devices JSON    as it says (runtime/block/device.h); without an overlay the base is written
 *
 * Beside the file that takes the guest's memory stand two more: FILE.machine says whether the
 * machine runs or stands (mark.h), FILE.moved that it went elsewhere (migrate.h).
 */
#ifndef RUNTIME_PEER_PLAN_H
#define RUNTIME_PEER_PLAN_H

#include <stdbool.h>

#include "blueprint/blueprint.h"
#include "runtime/block/block.h"
#include "runtime/block/device.h"
#include "runtime/snapshot/package.h"

/* What the device JSON does not say. */
struct plan_device {
    struct device d; /* strings owned */
    enum blueprint_role role;
    bool read_only; /* kernel and initrd of a blueprint */
    bool made;      /* its base is a file of our own making, in overlay_dir */
    bool created;   /* by plan_open_incoming(), now */
    bool has_digest;
    uint8_t sha256[SHA256_SIZE]; /* of the base */
    bool proved;                 /* the base was read and has it */
};

struct plan {
    struct plan_device *items;
    size_t count;
    struct package *pkg;  /* the config: ports and machine; NULL = not made yet */
    struct blueprint *bp; /* to boot from; NULL = none */
    char *config;         /* where the config is, or will be once there is one */
    bool write_config;    /* it is ours to write (not a package that others use too) */
    char *mark, *record;  /* FILE.machine, FILE.moved */
    char *overlay_dir;    /* NULL: with --devices */
};

/* Each returns NULL on failure; the caller owns the result: plan_free(). No device is opened yet.
 * plan_package(): a folder that holds no package is an error, unless into: then it will become one,
 * of what a migration brings. */
struct plan *plan_package(const char *dir, const char *overlay_dir, bool into, struct error *err);
struct plan *plan_blueprint(const char *dir, const char *overlay_dir, struct error *err);
struct plan *plan_devices(const char *json, struct error *err);

/* What a caller starts from: at most one of the first three. */
struct plan_wish {
    const char *package; /* a folder, or an archive (.tar.zst); NULL: "out/package" */
    const char *blueprint, *devices;
    const char *overlay_dir;
    const char *package_cache; /* where archives are extracted (archive.h); NULL: "out/packages" */
    bool into;                 /* a migration brings the machine */
};
struct plan *plan_of_wish(const struct plan_wish *wish, const struct context *ctx,
                          struct error *err);
void plan_free(struct plan *plan);
DEFINE_CLEANUP(cleanup_plan_p, struct plan *, plan_free)
#define cleanup_plan CLEANUP(cleanup_plan_p)

struct plan_device *plan_find(const struct plan *plan, const char *name);

/* Makes room for a device that a migration brings and the plan does not have. Returns it, or NULL.
 */
struct plan_device *plan_add_incoming(struct plan *plan, const char *name, struct error *err);

/* Whether the device's base may be shared with another host's: it was asked for (sharedbase), and
 * the machine writes to an overlay. */
bool plan_may_share(const struct plan_device *device);
/* Whether it can be then: the base has the digest that its config gives. Read, not believed: a disk
 * that decays would corrupt the machine there. A digest that no config gives is computed. Takes as
 * long as reading the base; the answer is kept. Returns 1, 0, or -1 when ctx was cancelled. */
int plan_prove_base(struct plan_device *device, const struct context *ctx, struct error *err);

/* Opens the device's stack for a local start; vm_dir: where a copy that nobody keeps goes
 * (skipsilo). Makes the folders of its overlays. NULL on failure. */
struct block *plan_open(const struct plan_device *device, const char *vm_dir,
                        const struct context *ctx, struct error *err);

/* The same for a device of `size` bytes that a migration or a boot fills: base or overlay are made
 * when they are not there. A base of our own making is emptied first (anew), or must not be there
 * (EEXIST). Layers above the pull filter (dirty, stats) are the caller's: plan_upper(). */
struct block *plan_open_incoming(struct plan_device *device, uint64_t size, bool anew,
                                 const struct context *ctx, struct error *err);
struct block *plan_upper(const struct plan_device *device, struct block *below,
                         const struct context *ctx, struct error *err);

/* Removes overlays and their states, the mark, and what a boot made: the next start is the first.
 * Refused (EINVAL) where there are no overlays. Returns 0. */
int plan_start_over(const struct plan *plan, struct error *err);

/* Removes what plan_open_incoming() made for a machine that never came. Best effort. */
void plan_discard(const struct plan *plan);

#endif
