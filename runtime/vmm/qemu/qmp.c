// SPDX-License-Identifier: Apache-2.0
/* qmp.c - a client of QEMU's monitor protocol */
#include "runtime/vmm/qemu/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/json.h"
#include "runtime/vmm/driver.h"

struct qmp {
    int fd;
    const struct context *ctx;
    int64_t last_id;
    char *buf; /* bytes read but not yet taken, [0, len); room for size */
    size_t len, size;
    size_t scanned;                             /* of these, known to hold no newline */
    struct json_object *events[QMP_EVENTS_MAX]; /* oldest first */
    size_t n_events;
    /* What was begun and not answered, oldest first. */
    struct begun {
        int64_t id;
        char command[32];
    } begun[QMP_BEGUN_MAX];
    size_t n_begun;
};

struct qmp *qmp_new(int fd, const struct context *ctx, struct error *err)
{
    struct qmp *q = calloc(1, sizeof(*q));

    if (!q) {
        (void)close(fd);
        error_oom(err);
        return NULL;
    }
    q->fd = fd;
    q->ctx = ctx;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        error_sys(err, "QMP: socket");
        qmp_free(q);
        return NULL;
    }
    return q;
}

void qmp_free(struct qmp *q)
{
    if (!q)
        return;
    qmp_forget_events(q);
    (void)close(q->fd);
    free(q->buf);
    free(q);
}

void qmp_forget_events(struct qmp *q)
{
    for (size_t i = 0; i < q->n_events; i++)
        (void)json_object_put(q->events[i]);
    q->n_events = 0;
}

/* Waits until the socket is ready. Returns 0. */
static int wait_fd(struct qmp *q, short events, uint64_t deadline, struct error *err)
{
    struct cancel *cancel = q->ctx ? q->ctx->cancel : NULL;

    for (;;) {
        struct pollfd fds[2] = {{.fd = q->fd, .events = events},
                                {.fd = cancel ? cancel->fd : -1, .events = POLLIN}};
        uint64_t now = vmm_now();
        if (now >= deadline)
            return error_set(err, ETIMEDOUT, "QMP: no answer in time");
        uint64_t ms = (deadline - now + 999999) / 1000000;
        int n = poll(fds, 2, ms > 3600000 ? 3600000 : (int)ms);
        if (n < 0 && errno != EINTR)
            return error_sys(err, "QMP: poll");
        if (n <= 0)
            continue;
        if (fds[0].revents)
            return 0; /* before the cancellation: what is there is taken */
        return error_set(err, ECANCELED, "interrupted");
    }
}

static int send_all(struct qmp *q, const char *text, size_t len, int pass_fd, uint64_t deadline,
                    struct error *err)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};

    while (len > 0) {
        struct iovec iov = {.iov_base = (char *)text, .iov_len = len};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        if (pass_fd >= 0) {
            msg.msg_control = control.room;
            msg.msg_controllen = sizeof(control.room);
            struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
            c->cmsg_level = SOL_SOCKET;
            c->cmsg_type = SCM_RIGHTS;
            c->cmsg_len = CMSG_LEN(sizeof(int));
            memcpy(CMSG_DATA(c), &pass_fd, sizeof(int));
        }
        ssize_t n = sendmsg(q->fd, &msg, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
            if (wait_fd(q, POLLOUT, deadline, err) < 0)
                return -1;
            continue;
        }
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
            return error_set(err, ECONNRESET, "QMP: the connection has ended");
        if (n < 0)
            return error_sys(err, "QMP: send");
        text += n;
        len -= (size_t)n;
        pass_fd = -1; /* it went with the first byte */
    }
    return 0;
}

/* Reads more bytes into buf. Returns 0. */
static int fill(struct qmp *q, uint64_t deadline, struct error *err)
{
    if (q->len == q->size) {
        size_t size = q->size ? q->size * 2 : 4096;
        if (q->size >= QMP_LINE_MAX)
            return error_set(err, EBADMSG, "QMP: a line longer than %u bytes", QMP_LINE_MAX);
        char *p = realloc(q->buf, size);
        if (!p)
            return error_oom(err);
        q->buf = p;
        q->size = size;
    }
    for (;;) {
        ssize_t n = recv(q->fd, q->buf + q->len, q->size - q->len, 0);
        if (n > 0) {
            q->len += (size_t)n;
            return 0;
        }
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return error_set(err, ECONNRESET, "QMP: the connection has ended");
        if (errno == EAGAIN) {
            if (wait_fd(q, POLLIN, deadline, err) < 0)
                return -1;
        } else if (errno != EINTR) {
            return error_sys(err, "QMP: receive");
        }
    }
}

/* The next message, an object; NULL on failure. The caller puts it. */
static struct json_object *next_message(struct qmp *q, uint64_t deadline, struct error *err)
{
    for (;;) {
        char *nl =
            q->len > q->scanned ? memchr(q->buf + q->scanned, '\n', q->len - q->scanned) : NULL;
        if (!nl) {
            q->scanned = q->len;
            if (fill(q, deadline, err) < 0)
                return NULL;
            continue;
        }
        size_t line = (size_t)(nl - q->buf);
        bool blank = strspn(q->buf, " \t\r\n") > line;
        struct json_object *msg = blank ? NULL : json_parse(q->buf, line, "QMP message", err);
        memmove(q->buf, nl + 1, q->len - line - 1);
        q->len -= line + 1;
        q->scanned = 0;
        if (blank)
            continue;
        if (msg && !json_object_is_type(msg, json_type_object)) {
            (void)json_object_put(msg);
            msg = NULL;
            error_set(err, EBADMSG, "QMP: a message that is no object");
        }
        return msg;
    }
}

/* Whether msg is an event; then it is kept (and put here). */
static bool keep_event(struct qmp *q, struct json_object *msg)
{
    struct json_object *name = NULL;

    if (!json_object_object_get_ex(msg, "event", &name) ||
        !json_object_is_type(name, json_type_string))
        return false;
    log_debug(context_log(q->ctx), "QMP event", log_str("event", json_object_get_string(name)));
    if (q->n_events == QMP_EVENTS_MAX) {
        (void)json_object_put(q->events[0]);
        memmove(q->events, q->events + 1, (QMP_EVENTS_MAX - 1) * sizeof(*q->events));
        q->n_events--;
    }
    q->events[q->n_events++] = msg;
    return true;
}

int qmp_greet(struct qmp *q, uint64_t deadline, char *version, size_t size, struct error *err)
{
    const char *what = "QMP greeting";
    struct json_object *head = NULL, *v = NULL, *numbers = NULL;
    uint64_t major = 0, minor = 0, micro = 0;

    cleanup_json struct json_object *msg = next_message(q, deadline, err);
    if (!msg ||
        json_required(json_get_object(msg, "QMP", what, &head, err), "QMP", what, err) < 0 ||
        json_required(json_get_object(head, "version", what, &v, err), "version", what, err) < 0 ||
        json_required(json_get_object(v, "qemu", what, &numbers, err), "qemu", what, err) < 0 ||
        json_get_u64(numbers, "major", 0, 9999, what, &major, err) < 0 ||
        json_get_u64(numbers, "minor", 0, 9999, what, &minor, err) < 0 ||
        json_get_u64(numbers, "micro", 0, 9999, what, &micro, err) < 0)
        return -1;
    if (qmp_begin(q, "qmp_capabilities", NULL, -1, deadline, err) < 0)
        return -1;
    (void)snprintf(version, size, "%ju.%ju.%ju", (uintmax_t)major, (uintmax_t)minor,
                   (uintmax_t)micro);
    return 0;
}

static int take_answer(struct json_object *msg, const char *command, struct json_object **ret_value,
                       struct error *err)
{
    struct json_object *e = NULL, *value = NULL;

    if (json_object_object_get_ex(msg, "error", &e)) {
        const char *text = NULL;
        if (!json_object_is_type(e, json_type_object) ||
            json_get_string(e, "desc", "QMP error", &text, err) != JSON_OK)
            return error_set(err, EBADMSG, "QMP: %s: an error without a description", command);
        return error_set(err, EREMOTEIO, "QMP: %s: %s", command, text);
    }
    (void)json_object_object_get_ex(msg, "return", &value);
    if (ret_value)
        *ret_value = json_object_get(value);
    return 0;
}

/* Takes the answer to a begun command, if it is one. Returns 1 then, 0 when it is none, -1 when it
 * says that the command failed. */
static int take_begun(struct qmp *q, int64_t id, struct json_object *msg, struct error *err)
{
    for (size_t i = 0; i < q->n_begun; i++) {
        if (q->begun[i].id != id)
            continue;
        struct begun b = q->begun[i];
        q->n_begun--;
        memmove(q->begun + i, q->begun + i + 1, (q->n_begun - i) * sizeof(*q->begun));
        return take_answer(msg, b.command, NULL, err) < 0 ? -1 : 1;
    }
    return 0;
}

/* Looks at one message while waiting for the answer to command last_id. Returns 1 when it is the
 * answer, 0 when it was something else that may come, -1 on errors. */
static int is_answer(struct qmp *q, struct json_object *msg, struct error *err)
{
    struct json_object *id = NULL;

    if (!json_object_object_get_ex(msg, "return", NULL) &&
        !json_object_object_get_ex(msg, "error", NULL))
        return error_set(err, EBADMSG, "QMP: a message that is neither answer nor event");
    if (!json_object_object_get_ex(msg, "id", &id)) {
        /* QEMU answers without an id what it could not parse. */
        if (json_object_object_get_ex(msg, "error", NULL))
            return 1;
        return error_set(err, EBADMSG, "QMP: an answer without an id");
    }
    if (!json_object_is_type(id, json_type_int) || json_object_get_int64(id) < 1 ||
        json_object_get_int64(id) > q->last_id)
        return error_set(err, EBADMSG, "QMP: an answer to a command that was not sent");
    int rc = take_begun(q, json_object_get_int64(id), msg, err);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    return json_object_get_int64(id) == q->last_id;
}

/* Sends a command with the next id. Puts args. */
static int send_command(struct qmp *q, const char *command, struct json_object *args, int pass_fd,
                        uint64_t deadline, struct error *err)
{
    cleanup_json struct json_object *doc = json_object_new_object();
    cleanup_free char *line = NULL;

    if (!doc) {
        (void)json_object_put(args);
        return error_oom(err);
    }
    json_object_object_add(doc, "execute", json_object_new_string(command));
    if (args)
        json_object_object_add(doc, "arguments", args);
    json_object_object_add(doc, "id", json_object_new_int64(++q->last_id));
    const char *text = json_object_to_json_string_ext(doc, JSON_C_TO_STRING_PLAIN);
    if (!text || asprintf(&line, "%s\n", text) < 0) {
        line = NULL;
        return error_oom(err);
    }
    if (send_all(q, line, strlen(line), pass_fd, deadline, err) < 0)
        return error_wrap(err, "%s", command);
    return 0;
}

int qmp_begin(struct qmp *q, const char *command, struct json_object *args, int pass_fd,
              uint64_t deadline, struct error *err)
{
    if (q->n_begun == QMP_BEGUN_MAX) {
        (void)json_object_put(args);
        return error_set(err, ENOBUFS, "QMP: %s: %u commands wait for an answer", command,
                         QMP_BEGUN_MAX);
    }
    if (send_command(q, command, args, pass_fd, deadline, err) < 0)
        return -1;
    struct begun *b = &q->begun[q->n_begun++];
    b->id = q->last_id;
    (void)snprintf(b->command, sizeof(b->command), "%s", command);
    return 0;
}

int qmp_execute(struct qmp *q, const char *command, struct json_object *args, int pass_fd,
                uint64_t deadline, struct json_object **ret_value, struct error *err)
{
    if (send_command(q, command, args, pass_fd, deadline, err) < 0)
        return -1;
    for (;;) {
        cleanup_json struct json_object *msg = next_message(q, deadline, err);
        if (!msg)
            return error_wrap(err, "%s", command);
        if (keep_event(q, msg)) {
            msg = NULL;
            continue;
        }
        int rc = is_answer(q, msg, err);
        if (rc < 0)
            return error_wrap(err, "%s", command);
        if (rc > 0)
            return take_answer(msg, command, ret_value, err);
    }
}

/* Takes the first kept event of that name, from number `from` on. */
static bool take_event(struct qmp *q, const char *name, size_t from, struct json_object **ret_data)
{
    for (size_t i = from; i < q->n_events; i++) {
        struct json_object *word = NULL, *data = NULL;
        (void)json_object_object_get_ex(q->events[i], "event", &word);
        if (strcmp(json_object_get_string(word), name) != 0)
            continue;
        (void)json_object_object_get_ex(q->events[i], "data", &data);
        if (ret_data)
            *ret_data = json_object_get(data);
        (void)json_object_put(q->events[i]);
        q->n_events--;
        memmove(q->events + i, q->events + i + 1, (q->n_events - i) * sizeof(*q->events));
        return true;
    }
    return false;
}

bool qmp_take_event(struct qmp *q, const char *name)
{
    return take_event(q, name, 0, NULL);
}

int qmp_wait_event(struct qmp *q, const char *name, uint64_t deadline,
                   struct json_object **ret_data, struct error *err)
{
    size_t seen = 0;

    for (;;) {
        if (take_event(q, name, seen, ret_data))
            return 0;
        seen = q->n_events;
        cleanup_json struct json_object *msg = next_message(q, deadline, err);
        if (!msg)
            return error_wrap(err, "event %s", name);
        if (keep_event(q, msg)) {
            msg = NULL;
            seen = q->n_events - 1; /* older ones were looked at; it may have pushed one out */
            continue;
        }
        if (is_answer(q, msg, err) < 0)
            return error_wrap(err, "event %s", name); /* an answer that came late is dropped */
    }
}
