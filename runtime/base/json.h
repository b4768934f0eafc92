/* SPDX-License-Identifier: Apache-2.0 */
/* json.h - JSON from outside, read strictly through json-c
 *
 * Theory of operation: a document is parsed whole with limits on its size and depth. Errors name
 * the place that `what` and the key give ("devices[2]: blockSize: not a number"). Getters
 * tell apart absent (JSON_ABSENT, the caller's default stays), present and of the right type
 * (JSON_OK), and wrong (an error). A JSON null counts as absent.
 */
#ifndef RUNTIME_BASE_JSON_H
#define RUNTIME_BASE_JSON_H

#include <json-c/json_object.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"

#define JSON_DEPTH_MAX 64

#define JSON_OK 0
#define JSON_ABSENT 1

/* Parses exactly one JSON value (RFC 8259; trailing white space allowed, nothing else; NUL bytes
 * refused; text need not be NUL-terminated). what names the document. The caller owns the result:
 * json_object_put(). Returns NULL on failure. Duplicate keys: the last one counts, as json-c does.
 */
struct json_object *json_parse(const char *text, size_t len, const char *what, struct error *err);

/* Getters on object `obj`; `what` names the object in errors. Strings belong to the document and
 * contain no NUL byte. Return JSON_OK, JSON_ABSENT, or -1. */
int json_get_string(struct json_object *obj, const char *key, const char *what,
                    const char **ret_value, struct error *err);
int json_get_bool(struct json_object *obj, const char *key, const char *what, bool *ret_value,
                  struct error *err);
int json_get_u64(struct json_object *obj, const char *key, uint64_t min, uint64_t max,
                 const char *what, uint64_t *ret_value, struct error *err);
int json_get_i64(struct json_object *obj, const char *key, int64_t min, int64_t max,
                 const char *what, int64_t *ret_value, struct error *err);
int json_get_object(struct json_object *obj, const char *key, const char *what,
                    struct json_object **ret_value, struct error *err);
int json_get_array(struct json_object *obj, const char *key, const char *what,
                   struct json_object **ret_value, struct error *err);

/* Turns JSON_ABSENT into the error "WHAT: KEY is missing"; other values pass through. */
int json_required(int got, const char *key, const char *what, struct error *err);

/* Refuses (EBADMSG) a document that is no object, or whose "format" is not `format`, or "version"
 * not `version`; again: what makes one of this version, for the message. Returns 0. */
int json_check_format(struct json_object *doc, const char *what, const char *format,
                      unsigned version, const char *again, struct error *err);

/* Refuses an object with a key that is not in the NULL-terminated list, naming it. */
int json_only_keys(struct json_object *obj, const char *const *keys, const char *what,
                   struct error *err);

/* Adds value under key and takes it over, also on failure. value NULL: whoever made it was out of
 * memory, which is what is said then. Returns 0. */
int json_add(struct json_object *obj, const char *key, struct json_object *value,
             struct error *err);

/* The same for an array. */
int json_append(struct json_object *array, struct json_object *value, struct error *err);

/* The document as text, keys in insertion order, two blanks of indent, a newline at its end. The
 * caller frees it. NULL only when out of memory. */
char *json_format(struct json_object *doc);

static inline void cleanup_json_p(struct json_object **p)
{
    if (*p)
        (void)json_object_put(*p);
    *p = NULL;
}
#define cleanup_json CLEANUP(cleanup_json_p)

#endif
