/* SPDX-License-Identifier: Apache-2.0 */
/* qmp.h - a client of QEMU's monitor protocol (docs/interop/qmp-spec); not for outside this module
 *
 * Theory of operation: synchronous, on one connected stream socket, one command at a time (the
 * caller serialises). Each wait has a deadline and ends with the connection or the context's
 * cancellation. Each command carries an id; an answer to an earlier command (one that timed out) is
 * dropped, any other surprise is an error. A command that was only begun saves a round trip: QEMU
 * answers in order, so whoever waits next, for an answer or an event, hears of its failure. Events
 * that come in between are kept, the newest QMP_EVENTS_MAX, until qmp_wait_event() takes them or
 * qmp_forget_events(). The peer is not trusted: lines are at most QMP_LINE_MAX bytes, and parsed
 * with the limits of json.h.
 */
#ifndef RUNTIME_VMM_QEMU_QMP_H
#define RUNTIME_VMM_QEMU_QMP_H

#include <json-c/json_object.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/context.h"
#include "runtime/base/error.h"

#define QMP_LINE_MAX (1u << 20)
#define QMP_EVENTS_MAX 64
#define QMP_BEGUN_MAX 4

struct qmp;

/* Takes the socket over, also on failure. ctx outlives the client. Returns NULL on failure. */
struct qmp *qmp_new(int fd, const struct context *ctx, struct error *err);
void qmp_free(struct qmp *q);

/* deadline: CLOCK_MONOTONIC nanoseconds, in all functions below. A connection that ended is
 * ECONNRESET, a deadline ETIMEDOUT, nonsense from the peer EBADMSG, an error answer EREMOTEIO with
 * QEMU's own text. */

/* Reads the greeting and begins to leave negotiation mode. version: "7.2.22" on success. Returns 0.
 */
int qmp_greet(struct qmp *q, uint64_t deadline, char *version, size_t size, struct error *err);

/* Runs one command. args: its arguments, an object that is put in any case; NULL = none. pass_fd:
 * is sent along (SCM_RIGHTS) for getfd; -1 = none; stays the caller's. *ret_value (may be NULL)
 * gets the "return" member, to be put by the caller. Returns 0. */
int qmp_execute(struct qmp *q, const char *command, struct json_object *args, int pass_fd,
                uint64_t deadline, struct json_object **ret_value, struct error *err);

/* Sends a command whose answer nobody needs, unless it is an error: that fails the next of the
 * functions that wait, with this command's name. args, pass_fd: as above. At most QMP_BEGUN_MAX at
 * a time, more are ENOBUFS. Returns 0 when it was sent. */
int qmp_begin(struct qmp *q, const char *command, struct json_object *args, int pass_fd,
              uint64_t deadline, struct error *err);

/* Takes the oldest kept event of that name, or waits for one. *ret_data (may be NULL): its "data",
 * to be put by the caller; NULL when it has none. Returns 0. */
int qmp_wait_event(struct qmp *q, const char *name, uint64_t deadline,
                   struct json_object **ret_data, struct error *err);

/* Takes an event of that name that came already. Returns whether there was one. */
bool qmp_take_event(struct qmp *q, const char *name);

void qmp_forget_events(struct qmp *q);

#endif
