/* SPDX-License-Identifier: Apache-2.0 */
/* rules.h - nftables through libnftables (libnftables(3)): one text is one transaction */
#ifndef RUNTIME_NET_RULES_H
#define RUNTIME_NET_RULES_H

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"

struct rules;

/* A connection to the rules of the thread's network namespace. Tables with "flags owner" made
 * through it go away with it. The caller owns the result. */
struct rules *rules_open(struct error *err);
void rules_close(struct rules *r);
DEFINE_CLEANUP(cleanup_rules_p, struct rules *, rules_close)
#define cleanup_rules CLEANUP(cleanup_rules_p)

/* All of it takes effect, or nothing. what: whose rules, for the error. Returns 0. */
int rules_run(struct rules *r, const char *text, const char *what, struct error *err);

/* Warns of every base chain that drops forwarded packets by policy: an accept in a table of ours
 * cannot override it. */
void rules_warn_of_drops(struct rules *r, const struct log *log);

#endif
