// SPDX-License-Identifier: Apache-2.0
/* test_qmp.c - the QMP client against a server that misbehaves; threads: yes */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/vmm/driver.h"
#include "runtime/vmm/qemu/qmp.h"
#include "tests/lib/unit.h"

#define SECOND UINT64_C(1000000000)
#define GREETING                                                                                   \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "             \
    "\"package\": "                                                                                \
    "\"\"}, \"capabilities\": [\"oob\"]}}\r\n"

/* The server: says `before` at once, then answers the n-th line it reads with answers[n]; "%d" in
 * an answer becomes the number of the command. Closes after the last answer, unless `stay`. */
struct server {
    int fd;
    const char *before;
    const char *const *answers;
    bool stay, slow; /* slow: one byte at a time */
    int got_fd;      /* a descriptor that came along */
    char seen[4096];
};

static void say(struct server *s, const char *text)
{
    for (size_t i = 0, n = strlen(text); i < n; i += s->slow ? 1 : n)
        if (send(s->fd, text + i, s->slow ? 1 : n, MSG_NOSIGNAL) < 0)
            return;
}

static void *serve(void *opaque)
{
    struct server *s = opaque;
    size_t len = 0, line = 0;
    int command = 0;

    say(s, s->before);
    while (s->answers[command]) {
        char room[CMSG_SPACE(sizeof(int))];
        struct iovec iov = {.iov_base = s->seen + len, .iov_len = sizeof(s->seen) - 1 - len};
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
        ssize_t n = recvmsg(s->fd, &msg, 0);
        if (n <= 0)
            break;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        if (c && c->cmsg_type == SCM_RIGHTS)
            memcpy(&s->got_fd, CMSG_DATA(c), sizeof(int));
        len += (size_t)n;
        s->seen[len] = '\0';
        for (char *nl; s->answers[command] && (nl = strchr(s->seen + line, '\n'));) {
            char text[1024];
            line = (size_t)(nl - s->seen) + 1;
            (void)snprintf(text, sizeof(text), s->answers[command], command + 1);
            command++;
            say(s, text);
        }
    }
    if (!s->stay)
        (void)shutdown(s->fd, SHUT_RDWR);
    return NULL;
}

struct session {
    struct server server;
    pthread_t thread;
    struct qmp *q;
    struct error err;
};

static void begin(struct session *s, const char *before, const char *const *answers, bool stay,
                  bool slow)
{
    int pair[2];

    *s = (struct session){0};
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    s->server = (struct server){.fd = pair[1],
                                .before = before,
                                .answers = answers,
                                .stay = stay,
                                .slow = slow,
                                .got_fd = -1};
    s->q = qmp_new(pair[0], NULL, &s->err);
    ck_assert_ptr_nonnull(s->q);
    ck_assert_int_eq(pthread_create(&s->thread, NULL, serve, &s->server), 0);
}

static void end(struct session *s)
{
    qmp_free(s->q);
    ck_assert_int_eq(pthread_join(s->thread, NULL), 0);
    (void)close(s->server.fd);
    if (s->server.got_fd >= 0)
        (void)close(s->server.got_fd);
}

static const char *const greets[] = {"{\"return\": {}, \"id\": %d}\n",
                                     "{\"return\": {}, \"id\": %d}\n", NULL};

UNIT_TEST(greets_byte_by_byte)
{
    struct session s;
    char version[32];

    begin(&s, GREETING, greets, true, true);
    ck_assert_int_eq(qmp_greet(s.q, vmm_now() + 60 * SECOND, version, sizeof(version), &s.err), 0);
    ck_assert_str_eq(version, "7.2.22");
    ck_assert_int_eq(qmp_execute(s.q, "x", NULL, -1, vmm_now() + 60 * SECOND, NULL, &s.err), 0);
    end(&s);
}
END_TEST

/* Begun commands are answered while another is waited for; the first that failed fails that one. */
UNIT_TEST(begun_commands)
{
    static const char *const answers[] = {
        "{\"return\": {}, \"id\": %d}\n",
        "",
        "{\"return\": {}, \"id\": 2}\n{\"return\": {\"a\": 5}, \"id\": %d}\n",
        "{\"error\": {\"desc\": \"no such thing\"}, \"id\": %d}\n",
        "{\"event\": \"STOP\"}\n{\"return\": {\"late\": 1}, \"id\": %d}\n",
        "{\"return\": {\"b\": 6}, \"id\": %d}\n",
        NULL};
    struct session s;
    char version[32];
    struct json_object *value = NULL;
    uint64_t deadline = vmm_now() + 60 * SECOND;

    begin(&s, GREETING, answers, true, false);
    ck_assert_int_eq(qmp_greet(s.q, deadline, version, sizeof(version), &s.err), 0);
    ck_assert_int_eq(qmp_begin(s.q, "one", NULL, -1, deadline, &s.err), 0);
    ck_assert_int_eq(qmp_execute(s.q, "two", NULL, -1, deadline, &value, &s.err), 0);
    ck_assert_str_eq(json_object_to_json_string(value), "{ \"a\": 5 }");
    json_object_put(value);
    ck_assert_int_eq(qmp_begin(s.q, "three", NULL, -1, deadline, &s.err), 0);
    ck_assert_int_eq(qmp_execute(s.q, "four", NULL, -1, deadline, &value, &s.err), -1);
    ck_assert_int_eq(s.err.code, EREMOTEIO);
    ck_assert_str_eq(s.err.text, "four: QMP: three: no such thing");
    ck_assert_int_eq(qmp_execute(s.q, "five", NULL, -1, deadline, &value, &s.err), 0);
    ck_assert_str_eq(json_object_to_json_string(value), "{ \"b\": 6 }");
    json_object_put(value);
    ck_assert_int_eq(qmp_wait_event(s.q, "STOP", deadline, NULL, &s.err), 0);
    end(&s);
}
END_TEST

/* Whoever waits for an event hears of the failure too; more than a few are not begun. */
UNIT_TEST(begun_and_failed)
{
    static const char *const answers[] = {
        "", "", "", "{\"error\": {\"desc\": \"out of it\"}, \"id\": 1}\n", NULL};
    struct session s;
    uint64_t deadline = vmm_now() + 60 * SECOND;

    begin(&s, "", answers, true, false);
    for (unsigned i = 0; i < QMP_BEGUN_MAX; i++)
        ck_assert_int_eq(qmp_begin(s.q, i ? "more" : "first", NULL, -1, deadline, &s.err), 0);
    ck_assert_int_eq(qmp_begin(s.q, "more", NULL, -1, deadline, &s.err), -1);
    ck_assert_int_eq(s.err.code, ENOBUFS);
    ck_assert_int_eq(qmp_wait_event(s.q, "X", deadline, NULL, &s.err), -1);
    ck_assert_int_eq(s.err.code, EREMOTEIO);
    ck_assert_str_eq(s.err.text, "event X: QMP: first: out of it");
    end(&s);
}
END_TEST

UNIT_TEST(command_events_error_and_fd)
{
    static const char *const answers[] = {
        "{\"return\": {}, \"id\": %d}\n",
        "{\"event\": \"STOP\"}\n{\"event\": \"MIGRATION\", \"data\": {\"status\": \"setup\"}}\n"
        "{\"return\": {\"a\": 5}, \"id\": %d}\n{\"event\": \"LATE\"}\n",
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}, \"id\": %d}\n",
        NULL};
    struct session s;
    char version[32];
    struct json_object *value = NULL, *data = NULL;
    int pipefd[2];

    ck_assert_int_eq(pipe(pipefd), 0);
    begin(&s, GREETING, answers, true, false);
    uint64_t deadline = vmm_now() + 60 * SECOND;
    ck_assert_int_eq(qmp_greet(s.q, deadline, version, sizeof(version), &s.err), 0);
    struct json_object *args = json_object_new_object();
    json_object_object_add(args, "fdname", json_object_new_string("x"));
    ck_assert_int_eq(qmp_execute(s.q, "getfd", args, pipefd[0], deadline, &value, &s.err), 0);
    ck_assert_str_eq(json_object_to_json_string(value), "{ \"a\": 5 }");
    json_object_put(value);
    ck_assert_int_eq(qmp_wait_event(s.q, "MIGRATION", deadline, &data, &s.err), 0);
    ck_assert_str_eq(json_object_to_json_string(data), "{ \"status\": \"setup\" }");
    json_object_put(data);
    ck_assert_int_eq(qmp_wait_event(s.q, "LATE", deadline, &data, &s.err), 0);
    ck_assert_ptr_null(data);
    ck_assert_int_eq(qmp_wait_event(s.q, "STOP", deadline, NULL, &s.err), 0);
    ck_assert_int_eq(qmp_execute(s.q, "cont", NULL, -1, deadline, NULL, &s.err), -1);
    ck_assert_int_eq(s.err.code, EREMOTEIO);
    ck_assert_str_eq(s.err.text, "QMP: cont: no such thing");
    end(&s);
    ck_assert_ptr_nonnull(strstr(s.server.seen, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":"
                                                "\"x\"},\"id\":2}\n"));
    (void)close(pipefd[0]);
    (void)close(pipefd[1]);
}
END_TEST

/* A stale answer (of a command that timed out) is dropped; one from the future is not. */
UNIT_TEST(stale_answer_is_dropped)
{
    static const char *const answers[] = {"",
                                          "{\"return\": {\"n\": 1}, \"id\": 1}\n{\"return\": "
                                          "{\"n\": 2}, \"id\": %d}\n",
                                          NULL};
    struct session s;
    struct json_object *value = NULL;

    begin(&s, "", answers, true, false);
    ck_assert_int_eq(qmp_execute(s.q, "slow", NULL, -1, vmm_now() + SECOND / 50, NULL, &s.err), -1);
    ck_assert_int_eq(s.err.code, ETIMEDOUT);
    ck_assert_int_eq(qmp_execute(s.q, "next", NULL, -1, vmm_now() + 60 * SECOND, &value, &s.err),
                     0);
    ck_assert_str_eq(json_object_to_json_string(value), "{ \"n\": 2 }");
    json_object_put(value);
    end(&s);
}
END_TEST

UNIT_TEST(hostile_answers)
{
    static const struct {
        const char *answer;
        int code;
    } cases[] = {
        {"{\"return\": {}, \"id\": 7}\n", EBADMSG},
        {"{\"return\": {}, \"id\": \"x\"}\n", EBADMSG},
        {"{\"return\": {}}\n", EBADMSG},
        {"[1, 2]\n", EBADMSG},
        {"{\"huh\": 1}\n", EBADMSG},
        {"{\"return\": \n", EBADMSG},
        {"{\"error\": {\"class\": 1}, \"id\": 1}\n", EBADMSG},
        {"{\"error\": 5, \"id\": 1}\n", EBADMSG},
        {"{\"error\": {\"desc\": \"bad JSON\"}}\n", EREMOTEIO},
        {"{\"return\": {}", ECONNRESET},
        {"\n \r\n", ECONNRESET},
        {"", ECONNRESET},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *const answers[] = {cases[i].answer, NULL};
        struct session s;
        begin(&s, "", answers, false, false);
        ck_assert_int_eq(qmp_execute(s.q, "x", NULL, -1, vmm_now() + 60 * SECOND, NULL, &s.err),
                         -1);
        ck_assert_msg(s.err.code == cases[i].code, "case %zu: %d %s", i, s.err.code, s.err.text);
        end(&s);
    }
}
END_TEST

UNIT_TEST(endless_line_is_refused)
{
    static char line[QMP_LINE_MAX + 4096];
    static const char *const none[] = {NULL};
    struct session s;
    char version[32];

    memset(line, ' ', sizeof(line) - 1);
    begin(&s, line, none, true, false);
    ck_assert_int_eq(qmp_greet(s.q, vmm_now() + 60 * SECOND, version, sizeof(version), &s.err), -1);
    ck_assert_int_eq(s.err.code, EBADMSG);
    end(&s);
}
END_TEST

UNIT_TEST(event_flood_keeps_the_newest)
{
    static char flood[QMP_EVENTS_MAX * 4 * 24];
    static const char *const none[] = {NULL};
    struct session s;
    char *p = flood;

    for (int i = 0; i < QMP_EVENTS_MAX * 2; i++)
        p += sprintf(p, "{\"event\": \"E%d\"}\n", i);
    begin(&s, flood, none, true, false);
    uint64_t deadline = vmm_now() + 60 * SECOND;
    char last[16], old[16];
    (void)snprintf(last, sizeof(last), "E%d", QMP_EVENTS_MAX * 2 - 1);
    (void)snprintf(old, sizeof(old), "E%d", QMP_EVENTS_MAX + 3);
    ck_assert_int_eq(qmp_wait_event(s.q, last, deadline, NULL, &s.err), 0);
    ck_assert_int_eq(qmp_wait_event(s.q, old, deadline, NULL, &s.err), 0);
    ck_assert_int_eq(qmp_wait_event(s.q, "E3", vmm_now() + SECOND / 50, NULL, &s.err), -1);
    ck_assert_int_eq(s.err.code, ETIMEDOUT);
    end(&s);
}
END_TEST

UNIT_TEST(cancellation_ends_a_wait)
{
    struct cancel cancel;
    struct context ctx = {.cancel = &cancel};
    struct error err = ERROR_INIT;
    int pair[2];

    ck_assert_int_eq(cancel_init(&cancel, &err), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct qmp *q = qmp_new(pair[0], &ctx, &err);
    cancel_request(&cancel);
    ck_assert_int_eq(qmp_wait_event(q, "X", vmm_now() + 60 * SECOND, NULL, &err), -1);
    ck_assert_int_eq(err.code, ECANCELED);
    qmp_free(q);
    (void)close(pair[1]);
    cancel_destroy(&cancel);
}
END_TEST
