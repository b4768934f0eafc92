/* SPDX-License-Identifier: Apache-2.0 */
/* hold.h - changes of the host's settings that several processes want, and that are set back
 *
 * Theory of operation: a hold is a file in /run/drafter, named after the host's network cookie and
 * the setting. Everybody who holds it has it locked (shared, flock(2)); the last one to let go
 * undoes the change. Its content is the value from before. A killed holder leaves the file without
 * a lock: the next holder finds the value from before in it, not the changed one. Taking and
 * letting go are serialised by one more lock file.
 */
#ifndef RUNTIME_NET_HOLD_H
#define RUNTIME_NET_HOLD_H

#include <stdint.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"

struct hold;

/* Sets a sysctl of the thread's network namespace ("net/ipv4/ip_forward") to `value` for as long as
 * anybody holds it. *ret becomes NULL when it had that value before (somebody else's wish) and
 * nobody of us holds it. If the sysctl is not there (IPv6 switched off) that is ENOENT. Returns 0.
 */
int hold_sysctl(uint64_t host, const char *sysctl, const char *value, struct hold **ret,
                struct error *err);
/* Sets it once more, where a link has been made anew. */
int hold_renew(const struct hold *h, struct error *err);
/* Lets go; the last one sets the old value back, unless somebody else has changed it since. A
 * sysctl that is gone with its link is fine. Frees h in every case; NULL is fine. *ret_last (may be
 * NULL): 1 = nobody else holds it. Returns 0. */
int hold_release(struct hold *h, int *ret_last, struct error *err);

/* Sets back what killed holders left and nobody holds now. Returns 0. */
int hold_sweep(uint64_t host, struct error *err);

#endif
