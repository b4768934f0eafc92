/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - telling Firecracker's state files; not for outside this module
 *
 * A state file begins with a u64 (little-endian) that names the format and the architecture:
 * 0x0710198486640000 on x86_64, 0x07101984AAAA0000 on aarch64 (Firecracker's snapshot module). The
 * live-migration fork puts the length of the rest, a u64, in front of it.
 */
#ifndef RUNTIME_VMM_FIRECRACKER_STATE_H
#define RUNTIME_VMM_FIRECRACKER_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/bytes.h"

static inline bool firecracker_magic(uint64_t word)
{
    return word == UINT64_C(0x0710198486640000) || word == UINT64_C(0x07101984AAAA0000);
}

/* head: the first bytes of a file, of either kind. */
static inline bool firecracker_state_magic(const uint8_t head[16])
{
    return firecracker_magic(get_le64(head)) || firecracker_magic(get_le64(head + 8));
}

#endif
