// SPDX-License-Identifier: Apache-2.0
/* api.c - Firecracker's HTTP interface on its UNIX socket */
#include "runtime/vmm/firecracker/api.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/json.h"
#include "runtime/vmm/driver.h"

struct api {
    CURL *curl;
    struct curl_slist *headers;
    const struct context *ctx;
    char problem[CURL_ERROR_SIZE];
    char *answer; /* of the call under way */
    size_t len;
    bool too_long, out_of_memory, cancelled;
};

static size_t take_answer(char *data, size_t size, size_t n, void *opaque)
{
    struct api *api = opaque;
    size_t more = size * n;

    if (more > API_ANSWER_MAX - api->len) {
        api->too_long = true;
        return 0;
    }
    char *p = realloc(api->answer, api->len + more + 1);
    if (!p) {
        api->out_of_memory = true;
        return 0;
    }
    memcpy(p + api->len, data, more);
    api->answer = p;
    api->len += more;
    return more;
}

/* Called by libcurl at least once a second, and with every piece of data. */
static int look_around(void *opaque, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    struct api *api = opaque;

    (void)a, (void)b, (void)c, (void)d;
    api->cancelled = context_check(api->ctx, NULL) < 0;
    return api->cancelled;
}

struct api *api_new(const char *socket_path, const struct context *ctx, struct error *err)
{
    struct api *api = calloc(1, sizeof(*api));

    if (!api || !(api->curl = curl_easy_init())) {
        free(api);
        error_oom(err);
        return NULL;
    }
    api->ctx = ctx;
    /* Not "Expect: 100-continue", which Firecracker answers late. */
    api->headers = curl_slist_append(NULL, "Content-Type: application/json");
    struct curl_slist *more = curl_slist_append(api->headers, "Expect:");
    if (!more || curl_easy_setopt(api->curl, CURLOPT_UNIX_SOCKET_PATH, socket_path) != CURLE_OK) {
        api_free(api);
        error_oom(err);
        return NULL;
    }
    api->headers = more;
    CURL *c = api->curl;
    (void)curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(c, CURLOPT_HTTPHEADER, api->headers);
    (void)curl_easy_setopt(c, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http");
    (void)curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl_easy_setopt(c, CURLOPT_ERRORBUFFER, api->problem);
    (void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_answer);
    (void)curl_easy_setopt(c, CURLOPT_WRITEDATA, api);
    (void)curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    (void)curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, look_around);
    (void)curl_easy_setopt(c, CURLOPT_XFERINFODATA, api);
    return api;
}

void api_free(struct api *api)
{
    if (!api)
        return;
    curl_easy_cleanup(api->curl);
    curl_slist_free_all(api->headers);
    free(api->answer);
    free(api);
}

static int transfer_error(struct api *api, CURLcode rc, struct error *err)
{
    const char *text = api->problem[0] ? api->problem : curl_easy_strerror(rc);
    int code = EIO;

    if (api->cancelled)
        return error_set(err, ECANCELED, "interrupted");
    if (api->out_of_memory || rc == CURLE_OUT_OF_MEMORY)
        return error_oom(err);
    if (api->too_long)
        return error_set(err, EBADMSG, "an answer of more than %u bytes", API_ANSWER_MAX);
    switch (rc) {
    case CURLE_COULDNT_CONNECT:
        code = ECONNREFUSED;
        break;
    case CURLE_OPERATION_TIMEDOUT:
        return error_set(err, ETIMEDOUT, "no answer in time");
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
        code = ECONNRESET;
        break;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
        code = EBADMSG;
        break;
    default:
        break;
    }
    return error_set(err, code, "%s", text);
}

/* Turns status and body into a result. */
static int judge(struct api *api, long status, struct json_object **ret_answer, struct error *err)
{
    cleanup_json struct json_object *doc = NULL;
    const char *fault = NULL;

    if (api->len > 0) {
        doc = json_parse(api->answer, api->len, "answer", err);
        if (!doc && status < 300)
            return -1;
        if (doc && !json_object_is_type(doc, json_type_object)) {
            (void)json_object_put(doc);
            doc = NULL;
            if (status < 300)
                return error_set(err, EBADMSG, "an answer that is no object");
        }
    }
    if (status < 200 || status > 299) {
        if (doc)
            (void)json_get_string(doc, "fault_message", "answer", &fault, NULL);
        return error_set(err, EREMOTEIO, "%s (HTTP status %ld)", fault ? fault : "refused", status);
    }
    if (ret_answer)
        *ret_answer = steal_ptr(&doc);
    return 0;
}

int api_call(struct api *api, const char *method, const char *path, struct json_object *body,
             uint64_t deadline, struct json_object **ret_answer, struct error *err)
{
    cleanup_json struct json_object *owned = body;
    char url[256];
    long status = 0;
    uint64_t now = vmm_now();
    CURL *c = api->curl;

    api->problem[0] = '\0';
    api->len = 0;
    api->too_long = api->out_of_memory = api->cancelled = false;
    if (now >= deadline) {
        error_set(err, ETIMEDOUT, "no answer in time");
        return error_wrap(err, "Firecracker: %s %s", method, path);
    }
    uint64_t ms = (deadline - now + 999999) / 1000000;
    (void)snprintf(url, sizeof(url), "http://localhost%s", path);
    (void)curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, ms > INT32_MAX ? INT32_MAX : (long)ms);
    (void)curl_easy_setopt(c, CURLOPT_URL, url);
    if (body) {
        const char *text = json_object_to_json_string_ext(body, JSON_C_TO_STRING_PLAIN |
                                                                    JSON_C_TO_STRING_NOSLASHESCAPE);
        if (!text)
            return error_oom(err);
        (void)curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE, (long)strlen(text));
        if (curl_easy_setopt(c, CURLOPT_COPYPOSTFIELDS, text) != CURLE_OK)
            return error_oom(err);
        (void)curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
    } else {
        (void)curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, NULL);
        (void)curl_easy_setopt(c, CURLOPT_HTTPGET, 1L);
    }
    CURLcode rc = curl_easy_perform(c);
    int result;
    if (rc != CURLE_OK) {
        result = transfer_error(api, rc, err);
    } else {
        (void)curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
        result = judge(api, status, ret_answer, err);
    }
    return result < 0 ? error_wrap(err, "Firecracker: %s %s", method, path) : 0;
}
