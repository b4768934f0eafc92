// SPDX-License-Identifier: Apache-2.0
/* test_guestlink.c - the host's side of liveness and agent, against good, bad and absent guests;
 * threads: yes */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "runtime/guestlink/guestlink.h"
#include "runtime/wire/rpc.h"
#include "tests/lib/unit.h"

#define SEC UINT64_C(1000000000)
#define LONG_TIME (100 * SEC) /* never waited for when the code is right */
#define SHORT_TIME (SEC / 50) /* waited for in full */

static const struct guestlink_address address = {
    .vsock_path = "vsock.sock", .port = 26, .uid = (uid_t)-1, .gid = (gid_t)-1};

/* A guest's end of a connection. */
static int dial(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_ge(fd, 0);
    (void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static struct guestlink_agent *open_agent(void)
{
    struct guestlink_agent *a = NULL;
    struct error err = ERROR_INIT;
    int rc = guestlink_agent_listen(&address, NULL, &a, &err);

    ck_assert_msg(rc == 0, "%s", err.text);
    ck_assert_ptr_nonnull(a);
    return a;
}

/* A call that runs in a thread of its own. */
struct asked {
    pthread_t thread;
    struct guestlink_agent *agent;
    bool resume;
    uint64_t timeout;
    const struct context *ctx;
    int rc;
    struct error err;
};

static void *ask_thread(void *opaque)
{
    struct asked *q = opaque;

    q->rc = (q->resume ? guestlink_agent_after_resume
                       : guestlink_agent_before_suspend)(q->agent, q->timeout, q->ctx, &q->err);
    return NULL;
}

static void ask(struct asked *q, struct guestlink_agent *a, bool resume, uint64_t timeout)
{
    q->agent = a;
    q->resume = resume;
    q->timeout = timeout;
    ck_assert_int_eq(pthread_create(&q->thread, NULL, ask_thread, q), 0);
}

static void answered(struct asked *q)
{
    ck_assert_int_eq(pthread_join(q->thread, NULL), 0);
}

/* The guest reads one message. */
static void get(int fd, struct rpc_message *m)
{
    static struct rpc_reader reader;
    struct error err;
    size_t used;
    char c;

    rpc_reader_init(&reader);
    for (;;) {
        ck_assert_int_eq(read(fd, &c, 1), 1);
        int rc = rpc_reader_feed(&reader, &c, 1, &used, m, &err);
        ck_assert_int_ge(rc, 0);
        if (rc == 1)
            return;
    }
}

static void put(int fd, const char *text, size_t len)
{
    ck_assert_int_eq(send(fd, text, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void reply(int fd, const char *call, const char *error)
{
    char buf[1024];
    ssize_t n = rpc_encode_response(buf, sizeof(buf), call, error);

    ck_assert_int_gt(n, 0);
    put(fd, buf, (size_t)n);
}

static bool closed(int fd)
{
    char buf[4096];
    ssize_t n;

    while ((n = read(fd, buf, sizeof(buf))) > 0)
        ;
    return n == 0 || errno == ECONNRESET;
}

UNIT_TEST(liveness_sees_the_guest)
{
    struct guestlink_liveness *l;
    struct error err = ERROR_INIT;
    struct guestlink_address at = address;

    at.port = 25;
    ck_assert_int_eq(guestlink_liveness_listen(&at, &l, &err), 0);
    ck_assert_int_eq(guestlink_liveness_wait(l, 0, NULL, &err), -1);
    ck_assert_int_eq(err.code, ETIMEDOUT);
    ck_assert_ptr_nonnull(strstr(err.text, "vsock port 25"));
    int fd = dial("vsock.sock_25");
    ck_assert_int_ge(fd, 0);
    close(fd); /* a guest that has exited already was there all the same */
    ck_assert_int_eq(guestlink_liveness_wait(l, LONG_TIME, NULL, &err), 0);
    ck_assert_int_eq(guestlink_liveness_wait(l, 0, NULL, &err), 0);
    guestlink_liveness_close(l);
    ck_assert_int_eq(access("vsock.sock_25", F_OK), -1);
}
END_TEST

UNIT_TEST(liveness_can_be_cancelled)
{
    struct guestlink_liveness *l;
    struct error err = ERROR_INIT;
    struct cancel cancel;
    struct context ctx = {.cancel = &cancel};

    ck_assert_int_eq(cancel_init(&cancel, &err), 0);
    ck_assert_int_eq(guestlink_liveness_listen(&address, &l, &err), 0);
    cancel_request(&cancel);
    ck_assert_int_eq(guestlink_liveness_wait(l, LONG_TIME, &ctx, &err), -1);
    ck_assert_int_eq(err.code, ECANCELED);
    guestlink_liveness_close(l);
    cancel_destroy(&cancel);
}
END_TEST

UNIT_TEST(port_0_is_no_program)
{
    struct guestlink_address at = address;
    struct guestlink_agent *a = (void *)1;
    struct guestlink_liveness *l = (void *)1;
    struct error err;

    at.port = 0;
    ck_assert_int_eq(guestlink_agent_listen(&at, NULL, &a, &err), 0);
    ck_assert_int_eq(guestlink_liveness_listen(&at, &l, &err), 0);
    ck_assert_ptr_null(a);
    ck_assert_ptr_null(l);
    ck_assert_int_eq(guestlink_liveness_wait(l, 0, NULL, &err), 0);
    ck_assert_int_eq(guestlink_agent_wait(a, 0, NULL, &err), 0);
    ck_assert_int_eq(guestlink_agent_before_suspend(a, 0, NULL, &err), 0);
    ck_assert_int_eq(guestlink_agent_after_resume(a, 0, NULL, &err), 0);
    ck_assert(!guestlink_agent_connected(a));
    guestlink_agent_close(a);
    guestlink_liveness_close(l);
}
END_TEST

UNIT_TEST(socket_file)
{
    struct guestlink_address at = address;
    struct guestlink_agent *a;
    struct error err = ERROR_INIT;
    struct stat st;

    /* Not ours to remove. */
    FILE *f = fopen("vsock.sock_26", "w");
    fclose(f);
    ck_assert_int_eq(guestlink_agent_listen(&at, NULL, &a, &err), -1);
    ck_assert_int_eq(err.code, EEXIST);
    ck_assert_int_eq(stat("vsock.sock_26", &st), 0);
    unlink("vsock.sock_26");
    /* Left by a process that died. */
    struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = "vsock.sock_26"};
    int old = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(old, (struct sockaddr *)&sa, sizeof(sa)), 0);
    close(old);
    if (geteuid() == 0) {
        at.uid = 1234;
        at.gid = 4321;
    }
    ck_assert_int_eq(guestlink_agent_listen(&at, NULL, &a, &err), 0);
    ck_assert_int_eq(stat("vsock.sock_26", &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    if (geteuid() == 0) {
        ck_assert_uint_eq(st.st_uid, 1234);
        ck_assert_uint_eq(st.st_gid, 4321);
    }
    /* Somebody else's by now: it stays. */
    ck_assert_int_eq(rename("vsock.sock_26", "moved"), 0);
    f = fopen("vsock.sock_26", "w");
    fclose(f);
    guestlink_agent_close(a);
    ck_assert_int_eq(unlink("vsock.sock_26"), 0);
    at.vsock_path = "no/such/folder/vsock.sock";
    ck_assert_int_eq(guestlink_agent_listen(&at, NULL, &a, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "no/such/folder"));
}
END_TEST

UNIT_TEST(long_paths)
{
    char part[101], path[1024];
    struct guestlink_address at = address;
    struct guestlink_agent *a;
    struct error err = ERROR_INIT;

    memset(part, 'd', 100);
    part[100] = '\0';
    ck_assert_int_eq(mkdir(part, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/%s", part, part);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/%s/vsock.sock", part, part);
    at.vsock_path = path;
    ck_assert_msg(guestlink_agent_listen(&at, NULL, &a, &err) == 0, "%s", err.text);
    (void)snprintf(path, sizeof(path), "%s/%s", part, part);
    ck_assert_int_eq(chdir(path), 0);
    int fd = dial("vsock.sock_26");
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(guestlink_agent_wait(a, LONG_TIME, NULL, &err), 0);
    guestlink_agent_close(a);
    ck_assert_int_eq(access("vsock.sock_26", F_OK), -1);
    /* A last part that is too long has no way round. */
    memset(path, 'd', 110);
    path[110] = '\0';
    at.vsock_path = path;
    ck_assert_int_eq(guestlink_agent_listen(&at, NULL, &a, &err), -1);
    ck_assert_int_eq(err.code, ENAMETOOLONG);
    close(fd);
}
END_TEST

UNIT_TEST(good_agent)
{
    struct guestlink_agent *a = open_agent();
    struct asked q = {.rc = 7};
    struct rpc_message m;
    struct timespec now;
    struct error err;

    ask(&q, a, false, LONG_TIME); /* before the agent is there */
    int fd = dial("vsock.sock_26");
    get(fd, &m);
    ck_assert_int_eq(m.kind, RPC_REQUEST);
    ck_assert_str_eq(m.function, "BeforeSuspend");
    ck_assert_uint_eq(m.n_args, 0);
    ck_assert(!m.has_resume);
    ck_assert_uint_eq(strlen(m.call), 36);
    reply(fd, m.call, "");
    answered(&q);
    ck_assert_int_eq(q.rc, 0);

    ck_assert_int_eq(guestlink_agent_wait(a, LONG_TIME, NULL, &err), 0);
    ck_assert(guestlink_agent_connected(a));
    ask(&q, a, true, LONG_TIME);
    get(fd, &m);
    ck_assert_str_eq(m.function, "AfterResume");
    ck_assert(m.has_resume && m.resume.has_entropy);
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t off = (int64_t)now.tv_sec * (int64_t)SEC + now.tv_nsec - (int64_t)m.resume.time_ns;
    ck_assert(off >= 0 && off < 60 * (int64_t)SEC);
    put(fd, "\n\n ", 3);
    reply(fd, m.call, "exit status 1: <disk> full");
    answered(&q);
    ck_assert_int_eq(q.rc, -1);
    ck_assert_int_eq(q.err.code, EREMOTEIO);
    ck_assert_str_eq(q.err.text, "the guest's agent: AfterResume: exit status 1: <disk> full");
    guestlink_agent_close(a);
    ck_assert(closed(fd));
    close(fd);
}
END_TEST

/* The exact bytes of a request, for upstream's agent. */
UNIT_TEST(bytes_on_the_wire)
{
    struct guestlink_agent *a = open_agent();
    struct asked q = {.rc = 7};
    char buf[256] = "", want[256];
    struct rpc_message m;
    size_t len = 0;

    ask(&q, a, false, LONG_TIME);
    int fd = dial("vsock.sock_26");
    while (len == 0 || buf[len - 1] != '\n') {
        ssize_t n = read(fd, buf + len, sizeof(buf) - 1 - len);
        ck_assert_int_gt(n, 0);
        len += (size_t)n;
    }
    ck_assert_int_eq(rpc_decode(buf, len, &m, NULL), 0);
    int n = snprintf(want, sizeof(want),
                     "{\"request\":{\"call\":\"%s\",\"function\":\"BeforeSuspend\",\"args\":[]},"
                     "\"response\":null}\n",
                     m.call);
    ck_assert_uint_eq(len, (size_t)n);
    ck_assert_mem_eq(buf, want, len);
    reply(fd, m.call, "");
    answered(&q);
    guestlink_agent_close(a);
    close(fd);
}
END_TEST

UNIT_TEST(mute_agent_is_a_timeout)
{
    struct guestlink_agent *a = open_agent();
    struct rpc_message late, m;
    struct asked q = {.rc = 7};
    struct error err = ERROR_INIT;

    ck_assert_int_eq(guestlink_agent_before_suspend(a, SHORT_TIME, NULL, &err), -1);
    ck_assert_int_eq(err.code, ETIMEDOUT);
    ck_assert_ptr_nonnull(strstr(err.text, "did not connect to vsock port 26"));
    int fd = dial("vsock.sock_26");
    ck_assert_int_eq(guestlink_agent_wait(a, LONG_TIME, NULL, &err), 0);
    ck_assert_int_eq(guestlink_agent_before_suspend(a, SHORT_TIME, NULL, &err), -1);
    ck_assert_int_eq(err.code, ETIMEDOUT);
    ck_assert_ptr_nonnull(strstr(err.text, "no answer within"));
    get(fd, &late);
    /* The link lives: the late answer is dropped, the next call gets its own. */
    ask(&q, a, false, LONG_TIME);
    get(fd, &m);
    reply(fd, late.call, "too late");
    reply(fd, "no such call", "forged");
    reply(fd, m.call, "");
    answered(&q);
    ck_assert_int_eq(q.rc, 0);
    guestlink_agent_close(a);
    close(fd);
}
END_TEST

UNIT_TEST(lost_connection)
{
    struct guestlink_agent *a = open_agent();
    struct rpc_message m;
    struct asked q = {.rc = 7};

    ask(&q, a, false, LONG_TIME);
    int fd = dial("vsock.sock_26");
    get(fd, &m);
    close(fd);
    answered(&q); /* at once, not after LONG_TIME */
    ck_assert_int_eq(q.rc, -1);
    ck_assert_int_eq(q.err.code, ECONNRESET);
    /* A resume is asked for again, on whatever connection comes. */
    ask(&q, a, true, LONG_TIME);
    for (int i = 0; i < 3; i++) {
        fd = dial("vsock.sock_26");
        get(fd, &m);
        ck_assert_str_eq(m.function, "AfterResume");
        if (i < 2)
            close(fd);
    }
    reply(fd, m.call, "");
    answered(&q);
    ck_assert_int_eq(q.rc, 0);
    guestlink_agent_close(a);
    close(fd);
}
END_TEST

UNIT_TEST(newest_wins)
{
    struct guestlink_agent *a = open_agent();
    struct rpc_message m;
    struct asked q = {.rc = 7};

    int old = dial("vsock.sock_26");
    ask(&q, a, true, LONG_TIME);
    get(old, &m);
    int fd = dial("vsock.sock_26");
    get(fd, &m);
    ck_assert(closed(old));
    reply(fd, m.call, "");
    answered(&q);
    ck_assert_int_eq(q.rc, 0);
    guestlink_agent_close(a);
    close(old);
    close(fd);
}
END_TEST

UNIT_TEST(calls_beside_each_other)
{
    struct guestlink_agent *a = open_agent();
    struct asked q[8] = {{.rc = 7}};
    struct rpc_message m[8];
    char text[16];

    for (int i = 0; i < 8; i++)
        ask(&q[i], a, false, LONG_TIME);
    int fd = dial("vsock.sock_26");
    for (int i = 0; i < 8; i++)
        get(fd, &m[i]);
    for (int i = 7; i >= 0; i--) {
        (void)snprintf(text, sizeof(text), "number %d", i);
        reply(fd, m[i].call, text);
    }
    int seen = 0;
    for (int i = 0; i < 8; i++) {
        answered(&q[i]);
        ck_assert_int_eq(q[i].err.code, EREMOTEIO);
        seen |= 1 << (q[i].err.text[strlen(q[i].err.text) - 1] - '0');
    }
    ck_assert_int_eq(seen, 0xff);
    guestlink_agent_close(a);
    close(fd);
}
END_TEST

UNIT_TEST(cancelled)
{
    struct guestlink_agent *a = open_agent();
    struct error err = ERROR_INIT;
    struct cancel cancel;
    struct context ctx = {.cancel = &cancel};
    struct rpc_message m;
    struct asked q = {.ctx = &ctx};

    ck_assert_int_eq(cancel_init(&cancel, &err), 0);
    ask(&q, a, false, LONG_TIME);
    int fd = dial("vsock.sock_26");
    get(fd, &m);
    cancel_request(&cancel);
    answered(&q);
    ck_assert_int_eq(q.rc, -1);
    ck_assert_int_eq(q.err.code, ECANCELED);
    guestlink_agent_close(a);
    cancel_destroy(&cancel);
    close(fd);
}
END_TEST

/* Sends what a hostile guest sends until it is thrown out, then shows that a good one is served. */
static void hostile(const char *text, size_t len, bool over_and_over)
{
    struct guestlink_agent *a = open_agent();
    struct rpc_message m;
    struct asked q = {.rc = 7};

    int fd = dial("vsock.sock_26");
    ck_assert_int_ge(fd, 0);
    do {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n < 0)
            break;
        over_and_over &= n > 0;
    } while (over_and_over);
    ck_assert(closed(fd));
    close(fd);
    fd = dial("vsock.sock_26");
    ask(&q, a, false, LONG_TIME);
    get(fd, &m);
    reply(fd, m.call, "");
    answered(&q);
    ck_assert_int_eq(q.rc, 0);
    guestlink_agent_close(a);
    close(fd);
}

UNIT_TEST(hostile_garbage)
{
    hostile("GET / HTTP/1.1\r\n\r\n", 18, false);
    hostile("\0\0\0\0", 4, false);
    hostile("{\"request\":[]}", 14, false);
    hostile("{}]}", 4, false);
}
END_TEST

UNIT_TEST(hostile_giant_message)
{
    static char text[RPC_MESSAGE_MAX + 1000];

    memset(text, 'x', sizeof(text));
    static const char start[] = "{\"response\":{\"err\":\"";
    memcpy(text, start, sizeof(start) - 1);
    hostile(text, sizeof(text), false);
}
END_TEST

UNIT_TEST(hostile_floods)
{
    static const char answer[] = "{\"response\":{\"call\":\"x\",\"err\":\"\"}}\n";
    static const char request[] = "{\"request\":{\"call\":\"x\",\"function\":\"f\"}}\n";
    static char blanks[4096];

    memset(blanks, '\n', sizeof(blanks));
    hostile(blanks, sizeof(blanks), true);
    hostile(answer, sizeof(answer) - 1, true);
    hostile(request, sizeof(request) - 1, true); /* and never reads the answers */
}
END_TEST

UNIT_TEST(half_a_message_holds_nobody_up)
{
    struct guestlink_agent *a = open_agent();
    struct rpc_message m;
    struct asked q = {.rc = 7};

    int fd = dial("vsock.sock_26");
    put(fd, "{\"response\":{", 13);
    ask(&q, a, false, SHORT_TIME);
    get(fd, &m);
    answered(&q);
    ck_assert_int_eq(q.err.code, ETIMEDOUT);
    put(fd, "\"call\":\"x\"}}", 12);
    ask(&q, a, false, LONG_TIME);
    get(fd, &m);
    reply(fd, m.call, "");
    answered(&q);
    ck_assert_int_eq(q.rc, 0);
    guestlink_agent_close(a);
    close(fd);
}
END_TEST

/* A guest's question gets an answer that says no. */
UNIT_TEST(guests_questions_are_answered)
{
    struct guestlink_agent *a = open_agent();
    static const char request[] = "{\"request\":{\"call\":\"x\",\"function\":\"f\",\"args\":[]}}";
    struct rpc_message m;

    int fd = dial("vsock.sock_26");
    put(fd, request, sizeof(request) - 1);
    get(fd, &m);
    ck_assert_int_eq(m.kind, RPC_RESPONSE);
    ck_assert_str_eq(m.call, "x");
    ck_assert_ptr_nonnull(strstr(m.error, "unknown function"));
    guestlink_agent_close(a);
    close(fd);
}
END_TEST

/* Connections come and go while calls are made: nothing hangs, every call ends. */
struct churn {
    pthread_t thread;
    uint64_t seed;
    bool stop;
    pthread_mutex_t lock;
};

static bool stopped(struct churn *c)
{
    lock_scope(&c->lock);
    return c->stop;
}

static void *churn_thread(void *opaque)
{
    struct churn *c = opaque;
    char buf[1024];
    struct rpc_message m;

    while (!stopped(c)) {
        int fd = dial("vsock.sock_26");
        if (fd < 0)
            continue;
        struct timeval soon = {.tv_usec = 5000};
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
        ssize_t n = read(fd, buf, sizeof(buf));
        if (n > 0 && unit_random(&c->seed) % 2 && rpc_decode(buf, (size_t)n, &m, NULL) == 0) {
            n = rpc_encode_response(buf, sizeof(buf), m.call, "");
            (void)!send(fd, buf, (size_t)n, MSG_NOSIGNAL);
        }
        close(fd);
    }
    return NULL;
}

UNIT_TEST(churn)
{
    struct guestlink_agent *a = open_agent();
    struct churn c = {.seed = unit_seed()};
    struct asked q[4] = {{.rc = 7}};
    int ok = 0;

    (void)pthread_mutex_init(&c.lock, NULL);
    ck_assert_int_eq(pthread_create(&c.thread, NULL, churn_thread, &c), 0);
    for (int round = 0; round < 25; round++) {
        for (int i = 0; i < 4; i++)
            ask(&q[i], a, i % 2, i == 3 ? SHORT_TIME : LONG_TIME);
        for (int i = 0; i < 4; i++) {
            answered(&q[i]);
            ok += q[i].rc == 0;
            if (q[i].rc < 0)
                ck_assert(q[i].err.code == ECONNRESET || (i == 3 && q[i].err.code == ETIMEDOUT));
            else
                ck_assert_int_eq(q[i].rc, 0);
        }
    }
    ck_assert_int_ge(ok, 25); /* each round's patient resume */
    pthread_mutex_lock(&c.lock);
    c.stop = true;
    pthread_mutex_unlock(&c.lock);
    pthread_join(c.thread, NULL);
    guestlink_agent_close(a);
}
END_TEST
