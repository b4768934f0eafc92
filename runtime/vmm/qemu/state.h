/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - the file that holds a QEMU machine's state; not for outside this module
 *
 * QEMU's migration stream names neither the machine it belongs to nor its own length or checksum,
 * so it stands in a file of ours. All integers little-endian:
 *
 *     offset  size
 *          0     8  magic "DRFTQEMU"
 *          8     4  version, 1
 *         12     4  length of the description, at most QEMU_STATE_DESCRIPTION_MAX
 *         16     8  length of the stream, at most QEMU_STATE_STREAM_MAX
 *         24    32  SHA-256 of bytes 0..23, description and stream
 *         56        description (JSON: {"qemu":"7.2.22","machine":{...}}), then the stream
 *
 * What follows is of no meaning: the file may be a device of a fixed size.
 */
#ifndef RUNTIME_VMM_QEMU_STATE_H
#define RUNTIME_VMM_QEMU_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "runtime/vmm/driver.h"

#define QEMU_STATE_DESCRIPTION_MAX (64u << 10)
#define QEMU_STATE_STREAM_MAX (UINT64_C(64) << 20) /* half a MB is usual */
#define QEMU_STATE_MAGIC "DRFTQEMU"
#define QEMU_STATE_VERSION 1

static inline bool qemu_state_magic(const uint8_t head[8])
{
    return memcmp(head, QEMU_STATE_MAGIC, 8) == 0;
}

/* Writes the file from offset 0 and fsyncs it. qemu_version: "7.2.22". Returns 0. */
int qemu_state_write(int fd, const char *what, const char *qemu_version,
                     const struct vmm_machine *machine, const void *stream, size_t stream_len,
                     struct error *err);

/* Whether QEMU keeps the machine's type stable, so that its version does not matter. */
bool qemu_state_versioned(const struct vmm_machine *machine);

/* Reads and checks the file: magic, version, lengths, checksum, and that it was saved of `machine`
 * as it is now (the first difference is named) by a QEMU that this one (qemu_version, not looked at
 * for versioned types) can follow. The caller frees *ret_stream. Returns 0. */
int qemu_state_read(int fd, const char *what, const char *qemu_version,
                    const struct vmm_machine *machine, void **ret_stream, size_t *ret_len,
                    struct error *err);

#endif
