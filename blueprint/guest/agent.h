/* SPDX-License-Identifier: Apache-2.0 */
/* agent.h - the guest's agent: calls its host, then does what the host asks before a suspend and
 * after a resume */
#ifndef BLUEPRINT_GUEST_AGENT_H
#define BLUEPRINT_GUEST_AGENT_H

#include "blueprint/guest/dial.h"
#include "runtime/base/context.h"

struct agent_options {
    struct dial_target target;
    uint64_t dial_timeout_ns;   /* of one attempt to connect */
    const char *shell;          /* runs a command as SHELL -c COMMAND */
    const char *before_suspend; /* commands; NULL or blank = nothing to run */
    const char *after_resume;
    bool dry_resume; /* log instead of setting clock and randomness */
};

/* Serves the host until ctx is cancelled, then returns 0; a lost host is called again for ever. -1
 * only when the agent itself cannot go on. Commands that still run then are killed. */
int agent_run(const struct agent_options *opt, const struct context *ctx, struct error *err);

#endif
