/* SPDX-License-Identifier: Apache-2.0 */
/* api.h - Firecracker's HTTP interface on its UNIX socket; not for outside this module */
#ifndef RUNTIME_VMM_FIRECRACKER_API_H
#define RUNTIME_VMM_FIRECRACKER_API_H

#include <json-c/json_object.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/context.h"
#include "runtime/base/error.h"

#define API_ANSWER_MAX (1u << 20)

struct api;

/* socket_path: at most 107 bytes; nothing is connected yet. libcurl is loaded meanwhile by a
 * thread; when that fails each call does. ctx outlives it. NULL on failure. */
struct api *api_new(const char *socket_path, const struct context *ctx, struct error *err);
void api_free(struct api *api);

/* One request. method: "GET", "PUT", "PATCH"; path: "/drives/disk"; body: an object, put in any
 * case, NULL = none. Errors: ECONNREFUSED nobody listens (yet), ECONNRESET the connection broke,
 * ETIMEDOUT, ECANCELED, EBADMSG nonsense, EREMOTEIO a status other than 2xx, with Firecracker's
 * fault_message. *ret_answer (may be NULL): the answer's object, NULL when it had none; to be put
 * by the caller. deadline: CLOCK_MONOTONIC nanoseconds. Returns 0. */
int api_call(struct api *api, const char *method, const char *path, struct json_object *body,
             uint64_t deadline, struct json_object **ret_answer, struct error *err);

#endif
