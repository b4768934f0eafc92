/* SPDX-License-Identifier: Apache-2.0 */
/* kernel.h - what a kernel image is, and the ELF inside a compressed one
 *
 * Theory of operation: distributions ship a bzImage: a boot sector, a real-mode setup part, and a
 * small program that unpacks its payload, which is the ELF "vmlinux". QEMU (by its PVH note) and
 * Firecracker start that ELF directly, so it is taken out once, when a blueprint is made.
 *
 * Sources: Linux Documentation/x86/boot.rst (setup header, payload_offset, payload_length),
 * scripts/Makefile.lib (the four bytes of size after a payload), lz4 doc/lz4_Frame_format.md
 * (legacy frame), ELF specification, Xen public/elfnote.h (PHYS32_ENTRY).
 */
#ifndef BLUEPRINT_KERNEL_KERNEL_H
#define BLUEPRINT_KERNEL_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/error.h"

#define KERNEL_IMAGE_MAX (256u << 20) /* bytes of a bzImage or ELF file */
#define KERNEL_ELF_MAX (1u << 30)     /* bytes a payload may unpack to */

/* What kernel_unpack() found. */
struct kernel_image {
    uint8_t *elf; /* owned: free(); NULL when the image itself is the ELF */
    size_t elf_len;
    const char *packed_by; /* "lz4", "zstd", "xz", "gzip", or "none"; static */
};

/* Takes the ELF out of a kernel image, or finds that it is one. what names it in errors. The result
 * is not checked yet: kernel_check(). Errors: EBADMSG for an image that is malformed, or is none,
 * or one of another architecture, which is named; EOPNOTSUPP for a compression we do not read;
 * EFBIG above a limit. Returns 0. */
int kernel_unpack(const uint8_t *image, size_t len, const char *what, struct kernel_image *ret,
                  struct error *err);

/* Checks that the bytes are an ELF64 executable for `architecture` ("x86_64", "aarch64"), as far as
 * its headers tell. *ret_pvh: whether it has a PVH entry, without which QEMU cannot start it
 * directly (always true for aarch64, which needs none). Returns 0. */
int kernel_check(const uint8_t *elf, size_t len, const char *what, const char *architecture,
                 bool *ret_pvh, struct error *err);

#endif
