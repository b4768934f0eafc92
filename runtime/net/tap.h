/* SPDX-License-Identifier: Apache-2.0 */
/* tap.h - persistent tap links (Documentation/networking/tuntap.rst) */
#ifndef RUNTIME_NET_TAP_H
#define RUNTIME_NET_TAP_H

#include "runtime/base/error.h"

/* Makes a tap in the thread's namespace; one queue, no packet information, as Firecracker and QEMU
 * open it. name: checked by the caller. Returns 0. */
int tap_make(const char *name, struct error *err);

#endif
