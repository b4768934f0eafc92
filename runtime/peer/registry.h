/* SPDX-License-Identifier: Apache-2.0 */
/* registry.h - serves a package to any number of peers at once
 *
 * Theory of operation: a registry is the source of migrations whose machine stands still and stays:
 * runtime/migrate moves a copy of it to each puller. So a puller is a drafter-peer that takes over
 * (--raddr), or a drafter-terminator. Pulls know nothing of each other: each has stacks, threads
 * and a session of its own; the package's files are opened once, and only read (served.h).
 *
 *     accept, greeting --> thread: session zero: a new pull, migrate_send()
 *                                  a pull's session: its link is taken up again
 *
 * Who has not said its greeting yet takes no place of a pull (transport.h, hello).
 */
#ifndef RUNTIME_PEER_REGISTRY_H
#define RUNTIME_PEER_REGISTRY_H

#include "runtime/migrate/report.h"
#include "runtime/peer/named.h"
#include "runtime/snapshot/package.h"

#define REGISTRY_PULLS_MAX 4096

/* Strings are the caller's and outlive the call. */
struct registry_options {
    const char *package;              /* folder; NULL: devices */
    const struct named_list *devices; /* among them "state" and "config" */
    const char *laddr;
    struct transport_options transport;
    unsigned pulls;       /* at once, 1 to REGISTRY_PULLS_MAX; more clients are turned away */
    unsigned concurrency; /* threads of each pull; 0 = one for every processor, 4 at most */
    bool no_verify;       /* trust the files: digests are not read, and bases not offered */
    bool postcopy_off;    /* a puller runs the machine when it has everything */
    int zstd_level;
    uint64_t bandwidth; /* of each pull, bytes a second; 0 = no limit */
    uint64_t answer_ns; /* a puller that takes nothing and does not say what is due for so long is
                           given up; 0 = never */
    int status_fd;      /* as peer.h has it */
};

/* Serves until the context is cancelled: then pulls whose machine does not run yet are called off,
 * and the others served to their end. Returns 0. */
int registry_run(const struct registry_options *options, const struct context *ctx,
                 struct error *err);

#endif
