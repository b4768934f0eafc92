/* SPDX-License-Identifier: Apache-2.0 */
/* user_net.h - ports of this host that lead into a guest with QEMU's user-mode network */
#ifndef RUNTIME_SNAPSHOT_USER_NET_H
#define RUNTIME_SNAPSHOT_USER_NET_H

#include "runtime/base/command.h"

/* Checks each "PROTO:[HOST]:PORT-[GUEST]:GUESTPORT" of --forward, tries whether its port is free,
 * and joins them with commas as vmm.h takes them. *ret: the caller's, NULL when the list is empty.
 * A wrong one is ERROR_USAGE, a port that cannot be had the reason (EADDRINUSE); both are named.
 * IPv4 only: QEMU 7.2 knows no others (qemu(1), hostfwd). Returns 0. */
int user_net_forwards(const struct option_list *list, char **ret, struct error *err);

#endif
