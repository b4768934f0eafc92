/* SPDX-License-Identifier: Apache-2.0 */
/* program.h - what the first bytes of a root's init tell */
#ifndef BLUEPRINT_ROOTFS_PROGRAM_H
#define BLUEPRINT_ROOTFS_PROGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/error.h"

#define PROGRAM_HEAD 20 /* bytes that are looked at: an ELF header up to e_machine */

/* Refuses an ELF file that this host's machines cannot run (EINVAL), with its architecture (ELF
 * specification, e_machine). Anything else (a script, a head that is shorter) passes: the kernel
 * decides. path names the program. Returns 0. */
int program_check(const uint8_t *head, size_t len, const char *path, struct error *err);

#endif
