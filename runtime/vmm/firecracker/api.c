// SPDX-License-Identifier: Apache-2.0
/* api.c - Firecracker's HTTP interface on its UNIX socket
 *
 * libcurl brings two dozen libraries, and to link with them costs every start of a program 4 ms, a
 * tenth of what a machine on QEMU takes to resume. So it is loaded by whoever talks to Firecracker,
 * in a thread: a machine there resumes in 25 ms, and nobody needs libcurl before the process is
 * there and the devices are open.
 */
#include "runtime/vmm/firecracker/api.h"

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/json.h"
#include "runtime/vmm/driver.h"

#define CURL_LIBRARY "libcurl.so.4"

struct curl_calls {
    typeof(&curl_easy_init) init;
    typeof(&curl_easy_setopt) setopt;
    typeof(&curl_easy_perform) perform;
    typeof(&curl_easy_getinfo) getinfo;
    typeof(&curl_easy_strerror) strerror;
    typeof(&curl_easy_cleanup) cleanup;
    typeof(&curl_slist_append) append;
    typeof(&curl_slist_free_all) free_all;
};

struct api {
    char *socket_path;
    pthread_t
        loader; /* sets all but what api_call() needs for itself; joined before its first use */
    bool loading;
    struct error failure; /* the loader's; code 0 = none */
    void *library;
    struct curl_calls call;
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

/* dlsym(3) gives functions as objects, which POSIX allows and C does not. */
static int find(struct api *api, const char *name, void *ret_function, struct error *err)
{
    void *address = dlsym(api->library, name);

    if (!address)
        return error_set(err, ENOSYS, "%s has no %s", CURL_LIBRARY, name);
    memcpy(ret_function, &address, sizeof(address));
    return 0;
}

static int load_curl(struct api *api, struct error *err)
{
    struct curl_calls *c = &api->call;

    /* NODELETE: the libraries behind it do not bear being unloaded. */
    api->library = dlopen(CURL_LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!api->library)
        return error_set(err, ENOENT, "libcurl is needed for Firecracker: %s", dlerror());
    if (find(api, "curl_easy_init", &c->init, err) < 0 ||
        find(api, "curl_easy_setopt", &c->setopt, err) < 0 ||
        find(api, "curl_easy_perform", &c->perform, err) < 0 ||
        find(api, "curl_easy_getinfo", &c->getinfo, err) < 0 ||
        find(api, "curl_easy_strerror", &c->strerror, err) < 0 ||
        find(api, "curl_easy_cleanup", &c->cleanup, err) < 0 ||
        find(api, "curl_slist_append", &c->append, err) < 0 ||
        find(api, "curl_slist_free_all", &c->free_all, err) < 0)
        return -1;
    api->curl = c->init();
    return api->curl ? 0 : error_oom(err);
}

static int prepare(struct api *api, struct error *err)
{
    if (load_curl(api, err) < 0)
        return -1;
    /* Not "Expect: 100-continue", which Firecracker answers late. */
    api->headers = api->call.append(NULL, "Content-Type: application/json");
    struct curl_slist *more = api->call.append(api->headers, "Expect:");
    if (!more ||
        api->call.setopt(api->curl, CURLOPT_UNIX_SOCKET_PATH, api->socket_path) != CURLE_OK)
        return error_oom(err);
    api->headers = more;
    CURL *c = api->curl;
    (void)api->call.setopt(c, CURLOPT_NOSIGNAL, 1L);
    (void)api->call.setopt(c, CURLOPT_HTTPHEADER, api->headers);
    (void)api->call.setopt(c, CURLOPT_PROXY, "");
    (void)api->call.setopt(c, CURLOPT_PROTOCOLS_STR, "http");
    (void)api->call.setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    (void)api->call.setopt(c, CURLOPT_ERRORBUFFER, api->problem);
    (void)api->call.setopt(c, CURLOPT_WRITEFUNCTION, take_answer);
    (void)api->call.setopt(c, CURLOPT_WRITEDATA, api);
    (void)api->call.setopt(c, CURLOPT_NOPROGRESS, 0L);
    (void)api->call.setopt(c, CURLOPT_XFERINFOFUNCTION, look_around);
    (void)api->call.setopt(c, CURLOPT_XFERINFODATA, api);
    return 0;
}

static void *loader(void *opaque)
{
    struct api *api = opaque;

    (void)prepare(api, &api->failure);
    return NULL;
}

static void wait_loaded(struct api *api)
{
    if (api->loading)
        (void)pthread_join(api->loader, NULL);
    api->loading = false;
}

struct api *api_new(const char *socket_path, const struct context *ctx, struct error *err)
{
    struct api *api = calloc(1, sizeof(*api));

    if (!api || !(api->socket_path = strdup(socket_path))) {
        free(api);
        error_oom(err);
        return NULL;
    }
    api->ctx = ctx;
    int rc = pthread_create(&api->loader, NULL, loader, api);
    if (rc != 0) {
        error_num(err, rc, "start a thread");
        api_free(api);
        return NULL;
    }
    api->loading = true;
    return api;
}

void api_free(struct api *api)
{
    if (!api)
        return;
    wait_loaded(api);
    if (api->curl)
        api->call.cleanup(api->curl);
    if (api->headers)
        api->call.free_all(api->headers);
    if (api->library)
        (void)dlclose(api->library);
    free(api->answer);
    free(api->socket_path);
    free(api);
}

static int transfer_error(struct api *api, CURLcode rc, struct error *err)
{
    const char *text = api->problem[0] ? api->problem : api->call.strerror(rc);
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

    wait_loaded(api);
    if (api->failure.code) {
        if (err)
            *err = api->failure;
        return -1;
    }
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
    (void)api->call.setopt(c, CURLOPT_TIMEOUT_MS, ms > INT32_MAX ? INT32_MAX : (long)ms);
    (void)api->call.setopt(c, CURLOPT_URL, url);
    if (body) {
        const char *text = json_object_to_json_string_ext(body, JSON_C_TO_STRING_PLAIN |
                                                                    JSON_C_TO_STRING_NOSLASHESCAPE);
        if (!text)
            return error_oom(err);
        (void)api->call.setopt(c, CURLOPT_POSTFIELDSIZE, (long)strlen(text));
        if (api->call.setopt(c, CURLOPT_COPYPOSTFIELDS, text) != CURLE_OK)
            return error_oom(err);
        (void)api->call.setopt(c, CURLOPT_CUSTOMREQUEST, method);
    } else {
        (void)api->call.setopt(c, CURLOPT_CUSTOMREQUEST, NULL);
        (void)api->call.setopt(c, CURLOPT_HTTPGET, 1L);
    }
    CURLcode rc = api->call.perform(c);
    int result;
    if (rc != CURLE_OK) {
        result = transfer_error(api, rc, err);
    } else {
        (void)api->call.getinfo(c, CURLINFO_RESPONSE_CODE, &status);
        result = judge(api, status, ret_answer, err);
    }
    return result < 0 ? error_wrap(err, "Firecracker: %s %s", method, path) : 0;
}
