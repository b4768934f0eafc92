/* SPDX-License-Identifier: Apache-2.0 */
/* notify.h - telling who started us how we are (sd_notify(3): the protocol, without the library) */
#ifndef RUNTIME_BASE_NOTIFY_H
#define RUNTIME_BASE_NOTIFY_H

#include "runtime/base/error.h"

/* Sends `state` ("READY=1", "STOPPING=1", lines of it) to the socket $NOTIFY_SOCKET names; without
 * one nothing happens. Returns 0. */
int notify_state(const char *state, struct error *err);

/* Writes "ready\n" to fd and closes it; -1 = nothing. Returns 0. */
int notify_ready_fd(int fd, struct error *err);

#endif
