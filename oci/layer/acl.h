/* SPDX-License-Identifier: Apache-2.0 */
/* acl.h - POSIX ACLs that an image carries as extended attributes; inside of oci/layer */
#ifndef OCI_LAYER_ACL_H
#define OCI_LAYER_ACL_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/error.h"

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

/* Checks the value of attribute ACL_ACCESS or ACL_DEFAULT of an object of the given mode and brings
 * it, in place, into the form that a kernel would give it back in after a chmod(2) to that mode.
 * Errors: EBADMSG. Returns 1 when the attribute stays, 0 when it says nothing that the mode does
 * not say already and goes. Source: acl(5), include/uapi/linux/posix_acl_xattr.h, fs/posix_acl.c.
 */
int acl_normalize(const char *name, uint32_t mode, uint8_t *value, size_t size, struct error *err);

#endif
