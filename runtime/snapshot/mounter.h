/* SPDX-License-Identifier: Apache-2.0 */
/* mounter.h - the devices of a machine as files on a mount point, without a machine
 *
 * A base is never written: a device without an overlay is read-only. Overlays in overlay_dir have
 * the names and the make that a peer gives them, so what a machine left there can be looked at, and
 * what was changed here is what it goes on with.
 */
#ifndef RUNTIME_SNAPSHOT_MOUNTER_H
#define RUNTIME_SNAPSHOT_MOUNTER_H

#include <stdbool.h>

#include "runtime/base/context.h"
#include "runtime/base/error.h"

/* Strings are the caller's. One of the first three; none: package "out/package". */
struct mounter_options {
    const char *package, *blueprint; /* folders */
    const char *devices;             /* JSON, as runtime/block/device.h says */
    const char *overlay_dir;         /* devices can be written; NULL = they cannot */
    bool read_only;                  /* show what overlays hold, and change nothing */
    unsigned mode;                   /* permissions of the files; 0 = 0600 */
};

struct mounter;

/* Opens all and mounts on the folder `path`; the files are there when it returns. The caller owns
 * the result. ctx outlives it. NULL on failure. */
struct mounter *mounter_new(const char *path, const struct mounter_options *options,
                            const struct context *ctx, struct error *err);

/* Flushes, detaches and closes; all of it even when that fails. NULL is fine. Returns 0. */
int mounter_free(struct mounter *m, struct error *err);

#endif
