/* SPDX-License-Identifier: Apache-2.0 */
/* initrd.h - the small first file system that loads drivers and finds the root
 *
 * Theory of operation: a distribution's kernel has its virtio drivers as modules. The initrd holds
 * these, unpacked and in an order in which each finds what it depends on, the list of that order,
 * and one static program, /init (blueprint/guest/initrd/init.c). It is written as a cpio archive
 * ("newc") with fixed times and owners, so the same input gives the same bytes.
 *
 *     /init  /dev/console  /modules/order  /modules/NAME.ko ...
 *
 * Sources: Linux Documentation/driver-api/early-userspace/buffer-format.rst (newc),
 * ELF specification, modinfo(8) ("depends").
 */
#ifndef BLUEPRINT_KERNEL_INITRD_H
#define BLUEPRINT_KERNEL_INITRD_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/error.h"

#define INITRD_MODULE_MAX (64u << 20) /* bytes of one module, unpacked */
#define INITRD_MODULES_MAX 256
#define INITRD_INIT_MAX (16u << 20)
#define MODULE_NAME_MAX                                                                            \
    55 /* MODULE_NAME_LEN of include/linux/moduleparam.h, 64-bit, less the NUL */

struct initrd_options {
    const char *modules_dir;    /* holds modules.builtin and kernel/ (/lib/modules/RELEASE) */
    const char *const *modules; /* names; one that ends in '?' may be missing */
    size_t n_modules;
    const char *init; /* the program that becomes /init */
};

/* Builds the archive and writes it to fd. *ret_loaded: how many modules are in it; 0 = the kernel
 * has everything built in, and nothing was written. Returns 0. */
int initrd_build(const struct initrd_options *opt, int fd, size_t *ret_loaded, struct error *err);

/* The names a module depends on, from its .modinfo section: comma-separated, "" = none. The text
 * points into the module. Errors: EBADMSG when the bytes are no module. Returns 0. */
int module_depends(const uint8_t *ko, size_t len, const char *what, const char **ret_depends,
                   struct error *err);

#endif
