/* SPDX-License-Identifier: Apache-2.0 */
/* device.h - a VM's devices as people write them: --devices, a JSON array
 *
 *     [ {"name": "disk", "base": "out/package/rootfs.ext4",
 *        "overlay": "out/overlay/rootfs.ext4", "state": "out/state/rootfs.ext4"}, ... ]
 *
 * The keys are those of Drafter's drafter-peer and mean what they say; an unknown key is refused by
 * name. A missing key, or one that is null, has the default below.
 *
 *     name            -          required; the file's name in the VM's folder
 *     base            ""         image to start from; needed for a local start
 *     overlay         ""         where changes go; "" = into the base. Several, separated by a
 * blank: the first stands on the base, the last one takes the writes, the others are only read
 *     state           ""         which blocks are in the overlay; as many as overlays
 *     blockSize       65536      bytes; a power of two from 4096 to 4 MiB; 0 = the default
 *     expiry          1s         how long a write counts when blocks are ordered by how often they
 * change maxDirtyBlocks  200        a dirty pass with fewer is a quiet one minCycles       5 quiet
 * passes before the device is ready for the move maxCycles       20         passes after which it
 * is ready in any case cycleThrottle   500ms      pause between passes makeMigratable  true part of
 * an outgoing migration shared          false      base is shared with others as it stands: no
 * overlay, never migrated sharedbase      false      both ends have the same base: only what
 * differs from it travels skipsilo        false      local start: a plain copy in the VM's folder,
 * nothing is written back s3sync          false      true is refused: there is no upload to S3
 *     s3accesskey, s3secretkey, s3endpoint, s3bucket "", s3secure false, s3concurrency 0: of use
 *                                only with s3sync; checked for their type
 *
 * Durations are integer nanoseconds or a string with a unit ("500ms").
 */
#ifndef RUNTIME_BLOCK_DEVICE_H
#define RUNTIME_BLOCK_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/digest.h"
#include "runtime/base/error.h"

struct json_object;

#define DEVICES_MAX 64
#define DEVICE_NAME_MAX 63
#define DEVICE_OVERLAYS_MAX 16
#define DEVICES_TEXT_MAX (1u << 20) /* bytes of the JSON text */

struct device {
    char *name;
    char *base; /* "" = none */
    char *overlays[DEVICE_OVERLAYS_MAX], *states[DEVICE_OVERLAYS_MAX];
    size_t n_overlays;
    uint32_t block_size;
    uint64_t expiry_ns;
    uint64_t max_dirty_blocks, min_cycles, max_cycles;
    uint64_t cycle_throttle_ns;
    bool make_migratable, shared, sharedbase, skipsilo;

    /* Not a key: the caller may set the SHA-256 of the base, padded with zeros to whole pages. The
     * stack's source then carries it, and overlays and peers know the base by it. */
    bool has_base_digest;
    uint8_t base_digest[SHA256_SIZE];
};

struct devices {
    struct device *items;
    size_t count;
};

/* Parses the array. Names are unique file names. The caller frees *ret: devices_free(). */
int devices_parse(const char *text, size_t len, struct devices *ret, struct error *err);
void devices_free(struct devices *d); /* a zeroed struct is fine */

/* The device of that name; NULL when there is none. */
const struct device *devices_find(const struct devices *d, const char *name);

/* The description of the stack for a local start, for block_open_json(): base, overlays, dirty
 * tracking (when migratable), statistics. The caller owns the result: json_object_put(). NULL when
 * the device cannot be started locally (no base), or on failure. */
struct json_object *device_stack(const struct device *d, struct error *err);

#define cleanup_devices __attribute__((cleanup(devices_free)))

#endif
