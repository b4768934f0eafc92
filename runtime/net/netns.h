/* SPDX-License-Identifier: Apache-2.0 */
/* netns.h - named network namespaces, as `ip netns` keeps them (ip-netns(8)), and whose they are
 *
 * A namespace's name is a file in /run/netns on which its /proc/PID/ns/net is mounted. Ours have a
 * file of the same name in /run/drafter/netns: "COOKIE HOST\n", the network cookies
 * (SO_NETNS_COOKIE, unique while the machine runs) of the namespace and of the one it belongs to.
 */
#ifndef RUNTIME_NET_NETNS_H
#define RUNTIME_NET_NETNS_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/error.h"

enum netns_owner {
    NETNS_ABSENT,
    NETNS_OURS,    /* mark and namespace agree */
    NETNS_REMAINS, /* ours by its mark, but half made or half removed: nothing to keep */
    NETNS_FOREIGN, /* somebody else's, or of another host namespace */
};

/* Cookie of the thread's network namespace. Returns 0. */
int netns_cookie(uint64_t *ret, struct error *err);

/* Makes both folders; /run/netns becomes a shared mount, as `ip netns add` does. Returns 0. */
int netns_prepare(struct error *err);

/* Whether names made here are seen in this mount namespace only, while another one, of which it is
 * a slave (mount_namespaces(7)), looks into the same folder: so it is below `ip netns exec`. */
bool netns_names_hidden(void);

/* What stands under a name. host: cookie of the host. Returns 0. */
int netns_look(const char *name, uint64_t host, enum netns_owner *ret, struct error *err);

/* Makes a namespace, moves the calling thread into it, and gives it a name that is ABSENT. On
 * failure the thread may stand in a namespace without a name. Returns 0. */
int netns_create(const char *name, uint64_t host, struct error *err);

/* Takes the name of one of ours away; the namespace lives on while a process is in it. Absence is
 * fine. Returns 0. */
int netns_remove(const char *name, struct error *err);

/* Calls take() with the name of each mark whose host is `host`, until it fails. Returns 0. */
int netns_each_mark(uint64_t host, int (*take)(const char *name, void *opaque, struct error *err),
                    void *opaque, struct error *err);

#endif
