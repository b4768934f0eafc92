// SPDX-License-Identifier: Apache-2.0
/* test_api.c - the Firecracker client against an HTTP server that misbehaves; threads: yes */
#include "runtime/vmm/firecracker/api.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/vmm/driver.h"
#include "tests/lib/unit.h"

#define SECOND UINT64_C(1000000000)

/* Takes one connection, reads one request (head and body), answers with `answer` and closes unless
 * `mute`, when it keeps the connection until the client goes. */
struct server {
    int listener;
    const char *answer;
    size_t answer_len; /* 0 = strlen */
    bool mute;
    char seen[8192];
};

static void *serve(void *opaque)
{
    struct server *s = opaque;
    int fd = accept(s->listener, NULL, NULL);
    size_t len = 0, want = SIZE_MAX;

    while (len < want && len < sizeof(s->seen) - 1) {
        ssize_t n = recv(fd, s->seen + len, sizeof(s->seen) - 1 - len, 0);
        if (n <= 0)
            break;
        len += (size_t)n;
        s->seen[len] = '\0';
        const char *body = strstr(s->seen, "\r\n\r\n");
        const char *length = strstr(s->seen, "Content-Length: ");
        if (body)
            want = (size_t)(body + 4 - s->seen) + (length ? strtoul(length + 16, NULL, 10) : 0);
    }
    if (s->mute) {
        char c;
        (void)!recv(fd, &c, 1, 0);
    } else {
        size_t n = s->answer_len ? s->answer_len : strlen(s->answer);
        for (size_t off = 0; off < n;) {
            ssize_t w = send(fd, s->answer + off, n - off, MSG_NOSIGNAL);
            if (w <= 0)
                break;
            off += (size_t)w;
        }
    }
    (void)close(fd);
    return NULL;
}

struct session {
    struct server server;
    pthread_t thread;
    struct api *api;
    struct error err;
};

static void begin(struct session *s, const char *answer, bool mute)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "api.sock"};

    *s = (struct session){.server = {.answer = answer, .mute = mute}};
    (void)unlink("api.sock");
    s->server.listener = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(s->server.listener, (struct sockaddr *)&un, sizeof(un)), 0);
    ck_assert_int_eq(listen(s->server.listener, 4), 0);
    s->api = api_new("api.sock", NULL, &s->err);
    ck_assert_ptr_nonnull(s->api);
}

static void end(struct session *s)
{
    api_free(s->api);
    ck_assert_int_eq(pthread_join(s->thread, NULL), 0);
    (void)close(s->server.listener);
}

static void go(struct session *s)
{
    ck_assert_int_eq(pthread_create(&s->thread, NULL, serve, &s->server), 0);
}

UNIT_TEST(sends_a_body_and_takes_an_answer)
{
    struct session s;
    struct json_object *answer = NULL, *body = json_object_new_object();

    json_object_object_add(body, "path_on_host", json_object_new_string("a/b"));
    begin(&s, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"x\": 1}\n", false);
    go(&s);
    ck_assert_int_eq(
        api_call(s.api, "PUT", "/drives/d", body, vmm_now() + 60 * SECOND, &answer, &s.err), 0);
    ck_assert_str_eq(json_object_to_json_string(answer), "{ \"x\": 1 }");
    json_object_put(answer);
    end(&s);
    ck_assert_int_eq(strncmp(s.server.seen, "PUT /drives/d HTTP/1.1\r\n", 24), 0);
    ck_assert_ptr_nonnull(strstr(s.server.seen, "\r\n\r\n{\"path_on_host\":\"a/b\"}"));
    ck_assert_ptr_null(strstr(s.server.seen, "Expect"));
}
END_TEST

UNIT_TEST(answers)
{
    static char huge[API_ANSWER_MAX + 4096];
    static const struct {
        const char *answer;
        int code;
        const char *text;
    } cases[] = {
        {"HTTP/1.1 204 No Content\r\n\r\n", 0, NULL},
        {"HTTP/1.1 400 Bad Request\r\nContent-Length: 25\r\n\r\n{\"fault_message\":\"no vm\"}",
         EREMOTEIO, "Firecracker: PATCH /vm: no vm (HTTP status 400)"},
        {"HTTP/1.1 500 X\r\nContent-Length: 3\r\n\r\n<a>", EREMOTEIO, "HTTP status 500"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n<a>", EBADMSG, "answer"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", EBADMSG, "no object"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{", ECONNRESET, NULL},
        {"HTTP/1.1 302 Found\r\nLocation: http://localhost/evil\r\nContent-Length: 0\r\n\r\n",
         EREMOTEIO, "HTTP status 302"},
        {"\x16\x03\x01 garbage\r\n\r\n", -1, NULL},
        {"", ECONNRESET, NULL},
        {huge, EBADMSG, "more than"},
    };

    memset(huge, ' ', sizeof(huge) - 1);
    memcpy(huge, "HTTP/1.1 200 OK\r\n\r\n", 19);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct session s;
        struct json_object *body = json_object_new_object();
        json_object_object_add(body, "state", json_object_new_string("Paused"));
        begin(&s, cases[i].answer, false);
        go(&s);
        int rc = api_call(s.api, "PATCH", "/vm", body, vmm_now() + 60 * SECOND, NULL, &s.err);
        ck_assert_msg((rc == 0) == (cases[i].code == 0), "case %zu: %s", i, s.err.text);
        if (cases[i].code > 0)
            ck_assert_msg(s.err.code == cases[i].code, "case %zu: %d %s", i, s.err.code,
                          s.err.text);
        if (cases[i].text)
            ck_assert_msg(strstr(s.err.text, cases[i].text) != NULL, "case %zu: %s", i, s.err.text);
        end(&s);
    }
}
END_TEST

UNIT_TEST(mute_server_is_a_timeout)
{
    struct session s;

    begin(&s, "", true);
    go(&s);
    ck_assert_int_eq(
        api_call(s.api, "GET", "/version", NULL, vmm_now() + SECOND / 20, NULL, &s.err), -1);
    ck_assert_int_eq(s.err.code, ETIMEDOUT);
    end(&s);
}
END_TEST

UNIT_TEST(nobody_listens)
{
    struct error err = ERROR_INIT;
    struct api *api = api_new("nobody.sock", NULL, &err);

    ck_assert_int_eq(api_call(api, "GET", "/version", NULL, vmm_now() + 60 * SECOND, NULL, &err),
                     -1);
    ck_assert_int_eq(err.code, ECONNREFUSED);
    api_free(api);
}
END_TEST
