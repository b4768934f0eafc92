/* SPDX-License-Identifier: Apache-2.0 */
/* terminate.h - takes a migration in and writes a package, instead of running the machine
 *
 * Theory of operation: a terminator is the target of a migration that makes files of what comes. It
 * says READY when the package is written and durable, and on the COMMIT gives it its name: from
 * then on the machine is the package's, and the source lets go of it.
 *
 * With keep_running it takes a copy: when it has everything it says so (MIGRATE_COPIED), and the
 * source resumes the machine at once. The package is what the machine was in that instant.
 */
#ifndef RUNTIME_PEER_TERMINATE_H
#define RUNTIME_PEER_TERMINATE_H

#include "runtime/migrate/report.h"
#include "runtime/peer/named.h"

/* Strings are the caller's and outlive the call. */
struct terminate_options {
    const char *raddr;
    struct transport_options transport;
    const char *output;               /* folder to make; NULL: devices */
    const struct named_list *devices; /* where each goes */
    bool replace;                     /* in place of what is there */
    bool keep_running;
    int status_fd; /* as peer.h has it */
    const char *trace;
};

/* Returns 0 when the package is there, whole and durable. Otherwise nothing of it is, and the
 * machine is where it was, unless the error says other. */
int terminate_run(const struct terminate_options *options, const struct context *ctx,
                  struct error *err);

#endif
