// SPDX-License-Identifier: Apache-2.0
/* json.c - JSON from outside, read strictly through json-c */
#include "runtime/base/json.h"

#include <errno.h>
#include <json-c/json_object_iterator.h>
#include <json-c/json_tokener.h>
#include <json-c/json_util.h>
#include <limits.h>
#include <string.h>

static inline void cleanup_tokener_p(struct json_tokener **p)
{
    if (*p)
        json_tokener_free(*p);
}

/* Offset of a control character within a string, which RFC 8259 forbids and json-c lets pass; len
 * when there is none. */
static size_t find_control(const char *text, size_t len)
{
    bool in_string = false;

    for (size_t i = 0; i < len; i++) {
        if (text[i] == '"')
            in_string = !in_string;
        else if (in_string && (unsigned char)text[i] < 0x20)
            return i;
        else if (in_string && text[i] == '\\' && i + 1 < len && (unsigned char)text[i + 1] >= 0x20)
            i++;
    }
    return len;
}

struct json_object *json_parse(const char *text, size_t len, const char *what, struct error *err)
{
    CLEANUP(cleanup_tokener_p) struct json_tokener *tok = json_tokener_new_ex(JSON_DEPTH_MAX);
    if (!tok) {
        error_oom(err);
        return NULL;
    }
    if (len > INT_MAX - 1 || memchr(text, '\0', len)) {
        error_set(err, EBADMSG, "%s: not a JSON text (%s)", what,
                  len > INT_MAX - 1 ? "too long" : "it contains a NUL byte");
        return NULL;
    }
    if (len == 0) { /* json-c takes a length of 0 for "up to the NUL" */
        error_set(err, EBADMSG, "%s: the JSON text ends early", what);
        return NULL;
    }
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    cleanup_json struct json_object *doc = json_tokener_parse_ex(tok, text, (int)len);
    enum json_tokener_error code = json_tokener_get_error(tok);
    size_t end = json_tokener_get_parse_end(tok);
    if (code == json_tokener_continue) {
        end = len;
        /* A bare number ends only with what follows it; a NUL is "what follows" for json-c. */
        cleanup_json_p(&doc);
        doc = json_tokener_parse_ex(tok, "", 1);
        code = json_tokener_get_error(tok);
        if (code == json_tokener_continue || code == json_tokener_error_parse_eof) {
            error_set(err, EBADMSG, "%s: the JSON text ends early", what);
            return NULL;
        }
    }
    if (code != json_tokener_success) {
        error_set(err, EBADMSG, "%s: byte %zu: %s", what, json_tokener_get_parse_end(tok),
                  json_tokener_error_desc(code));
        return NULL;
    }
    size_t control = find_control(text, len);
    if (control < len) {
        error_set(err, EBADMSG, "%s: byte %zu: a control character within a string", what, control);
        return NULL;
    }
    for (size_t i = end; i < len; i++) {
        if (!strchr(" \t\r\n", text[i])) {
            error_set(err, EBADMSG, "%s: byte %zu: text after the JSON value", what, i);
            return NULL;
        }
    }
    if (!doc) {
        error_set(err, EBADMSG, "%s: null where a value is wanted", what);
        return NULL;
    }
    return steal_ptr(&doc);
}

/* Fetches obj[key] when it has the given type. */
static int get(struct json_object *obj, const char *key, enum json_type type, const char *what,
               struct json_object **ret, struct error *err)
{
    struct json_object *v = NULL;

    if (!json_object_is_type(obj, json_type_object))
        return error_set(err, EBADMSG, "%s: not a JSON object", what);
    if (!json_object_object_get_ex(obj, key, &v) || !v)
        return JSON_ABSENT;
    if (!json_object_is_type(v, type))
        return error_set(err, EBADMSG, "%s: %s: is a JSON %s, %s wanted", what, key,
                         json_type_to_name(json_object_get_type(v)), json_type_to_name(type));
    *ret = v;
    return JSON_OK;
}

int json_get_string(struct json_object *obj, const char *key, const char *what,
                    const char **ret_value, struct error *err)
{
    struct json_object *v;
    int rc = get(obj, key, json_type_string, what, &v, err);

    if (rc != JSON_OK)
        return rc;
    const char *s = json_object_get_string(v);
    if (strlen(s) != (size_t)json_object_get_string_len(v))
        return error_set(err, EBADMSG, "%s: %s: contains a NUL byte", what, key);
    *ret_value = s;
    return JSON_OK;
}

int json_get_bool(struct json_object *obj, const char *key, const char *what, bool *ret_value,
                  struct error *err)
{
    struct json_object *v;
    int rc = get(obj, key, json_type_boolean, what, &v, err);

    if (rc == JSON_OK)
        *ret_value = json_object_get_boolean(v);
    return rc;
}

/* json-c clamps what does not fit; the number's own text tells a clamped value from a true limit.
 */
int json_get_i64(struct json_object *obj, const char *key, int64_t min, int64_t max,
                 const char *what, int64_t *ret_value, struct error *err)
{
    struct json_object *v;
    int rc = get(obj, key, json_type_int, what, &v, err);

    if (rc != JSON_OK)
        return rc;
    int64_t n = json_object_get_int64(v);
    int clamped = (n == INT64_MAX && json_object_get_uint64(v) != (uint64_t)INT64_MAX);
    if (clamped || n < min || n > max)
        return error_set(err, ERANGE, "%s: %s: %s is out of range (%lld to %lld)", what, key,
                         json_object_get_string(v), (long long)min, (long long)max);
    *ret_value = n;
    return JSON_OK;
}

int json_get_u64(struct json_object *obj, const char *key, uint64_t min, uint64_t max,
                 const char *what, uint64_t *ret_value, struct error *err)
{
    struct json_object *v;
    int rc = get(obj, key, json_type_int, what, &v, err);

    if (rc != JSON_OK)
        return rc;
    uint64_t n = json_object_get_uint64(v);
    if (json_object_get_int64(v) < 0 || n < min || n > max)
        return error_set(err, ERANGE, "%s: %s: %s is out of range (%llu to %llu)", what, key,
                         json_object_get_string(v), (unsigned long long)min,
                         (unsigned long long)max);
    *ret_value = n;
    return JSON_OK;
}

int json_get_object(struct json_object *obj, const char *key, const char *what,
                    struct json_object **ret_value, struct error *err)
{
    return get(obj, key, json_type_object, what, ret_value, err);
}

int json_get_array(struct json_object *obj, const char *key, const char *what,
                   struct json_object **ret_value, struct error *err)
{
    return get(obj, key, json_type_array, what, ret_value, err);
}

int json_required(int got, const char *key, const char *what, struct error *err)
{
    if (got == JSON_ABSENT)
        return error_set(err, EBADMSG, "%s: %s is missing", what, key);
    return got;
}

int json_check_format(struct json_object *doc, const char *what, const char *format,
                      unsigned version, const char *again, struct error *err)
{
    const char *got_format;
    uint64_t got;

    if (!json_object_is_type(doc, json_type_object))
        return error_set(err, EBADMSG, "%s: is no JSON object", what);
    if (json_required(json_get_string(doc, "format", what, &got_format, err), "format", what, err) <
        0)
        return -1;
    if (strcmp(got_format, format) != 0)
        return error_set(err, EBADMSG, "%s: format: \"%.80s\", not \"%s\"", what, got_format,
                         format);
    if (json_required(json_get_u64(doc, "version", 0, UINT32_MAX, what, &got, err), "version", what,
                      err) < 0)
        return -1;
    if (got != version)
        return error_set(err, EBADMSG, "%s: version: is %llu, this program reads version %u: %s",
                         what, (unsigned long long)got, version, again);
    return 0;
}

int json_only_keys(struct json_object *obj, const char *const *keys, const char *what,
                   struct error *err)
{
    if (!json_object_is_type(obj, json_type_object))
        return error_set(err, EBADMSG, "%s: not a JSON object", what);
    struct json_object_iterator end = json_object_iter_end(obj);
    for (struct json_object_iterator it = json_object_iter_begin(obj);
         !json_object_iter_equal(&it, &end); json_object_iter_next(&it)) {
        const char *name = json_object_iter_peek_name(&it);
        const char *const *k = keys;
        while (*k && strcmp(*k, name) != 0)
            k++;
        if (!*k)
            return error_set(err, EBADMSG, "%s: unknown key \"%s\"", what, name);
    }
    return 0;
}

int json_add(struct json_object *obj, const char *key, struct json_object *value, struct error *err)
{
    if (obj && value && json_object_object_add(obj, key, value) == 0)
        return 0;
    (void)json_object_put(value);
    return error_oom(err);
}

int json_append(struct json_object *array, struct json_object *value, struct error *err)
{
    if (array && value && json_object_array_add(array, value) == 0)
        return 0;
    (void)json_object_put(value);
    return error_oom(err);
}

char *json_format(struct json_object *doc)
{
    const int flags =
        JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE;
    size_t len;
    const char *text = json_object_to_json_string_length(doc, flags, &len);
    char *copy = text ? malloc(len + 2) : NULL;

    if (!copy)
        return NULL;
    memcpy(copy, text, len);
    copy[len] = '\n';
    copy[len + 1] = '\0';
    return copy;
}
