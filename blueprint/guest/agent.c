// SPDX-License-Identifier: Apache-2.0
/* agent.c - the guest's agent
 *
 * Theory of operation: one thread, one poll(2). The link to the host is down (waiting to call
 * again), dialing, or up. Calls that come through it start commands, which run beside each other;
 * each answers when it ends, if the link its call came through still stands.
 *
 * A machine that is suspended and comes back finds its streams reset, without having noticed any
 * time pass. The resume counts as done when we answered, so a lost link is called again at once,
 * see dial_pause(). A connect that was under way during the snapshot is answered by nobody: the
 * first attempts wait 250 ms only, then longer ones, up to the --vsock-timeout.
 *
 * What somebody waits for then is the answer, so all else is done before or after it. Before a
 * suspend: the socket of the next link, what resume.h prepares, and with our answer to that a
 * priority over all others. After the answer, and 5 ms
 * later, so that the kernel has sent it: the lost socket is closed, the log written, the addresses
 * announced; see tidy().
 *
 * A host that vanishes is noticed by its reset; for the case that none comes, a newline (which is
 * nothing between two messages) is sent every 10 s, and an answer that cannot be delivered for 10 s
 * ends the link.
 */
#include "blueprint/guest/agent.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blueprint/guest/job.h"
#include "blueprint/guest/resume.h"
#include "runtime/base/cleanup.h"
#include "runtime/wire/rpc.h"

#define MSEC UINT64_C(1000000)
#define FIRST_ATTEMPT (250 * MSEC)
#define HEARTBEAT (10000 * MSEC)
#define SEND_TIMEOUT (10000 * MSEC)
#define TIDY_PAUSE (5 * MSEC)
#define TIDY_LATEST (1000 * MSEC) /* for a lost link, when nobody calls */
#define STEADY (1000 * MSEC)      /* a link that stood this long was a good one */
#define JOBS_MAX 8

enum link_state {
    LINK_DOWN,    /* deadline: when to call next */
    LINK_DIALING, /* deadline: when to give up */
    LINK_UP,      /* deadline: when to send a newline, or to give up sending */
};

struct agent {
    const struct agent_options *opt;
    const struct context *ctx;
    enum link_state state;
    int fd; /* -1 in LINK_DOWN */
    uint64_t deadline;
    int spare;                 /* a socket for the next link; -1 = none */
    struct resume_ready ready; /* what else was made before a suspend */
    uint64_t tidy_at;          /* when tidy() is due; 0 = there is nothing */
    int lost;                  /* for tidy(): the last link's socket; -1 = none */
    bool resumed;              /* for tidy(): to be finished, done says what was done */
    struct resume_done done;
    uint64_t link;    /* counts links, so that a late answer misses the wrong one */
    uint64_t lost_at; /* when the last link went down */
    uint64_t up_at;   /* when this one came up */
    uint64_t pause;   /* the last pause between attempts */
    uint64_t attempt; /* how long the next attempt may take */
    bool heard;       /* a message came through this link */
    bool complained;  /* of the host's absence, since the last link */
    struct job jobs[JOBS_MAX];
    struct rpc_reader reader;
    size_t out_len;
    char out[2 * RPC_MESSAGE_MAX];
};

static const struct log *log_of(const struct agent *a)
{
    return context_log(a->ctx);
}

static uint64_t first_attempt(const struct agent *a)
{
    return a->opt->dial_timeout_ns < FIRST_ATTEMPT ? a->opt->dial_timeout_ns : FIRST_ATTEMPT;
}

/* What is left to do of a lost link and of an answered resume; and we are no more in a hurry. */
static void tidy(struct agent *a)
{
    cleanup_close_p(&a->lost);
    if (a->resumed) {
        log_info(log_of(a), "After resume");
        resume_finish(&a->done, a->opt->dry_resume, log_of(a));
        a->resumed = false;
    }
    resume_go_first(&a->ready, false);
    a->tidy_at = 0;
}

static void next_attempt(struct agent *a, uint64_t now)
{
    /* The first call after a good link goes out at once. */
    const bool at_once = a->state == LINK_UP && a->pause == 0;

    if (!at_once)
        a->pause = dial_pause(a->pause, now - a->lost_at);
    a->deadline = at_once ? now : now + a->pause;
    a->state = LINK_DOWN;
}

static void leave_link(struct agent *a, uint64_t now)
{
    a->lost_at = now;
    a->attempt = first_attempt(a);
    if (a->heard || now - a->up_at >= STEADY)
        a->pause = 0;
    a->complained = false;
}

/* Takes the link down, and says when to call again. */
static void link_down(struct agent *a, const char *why)
{
    const uint64_t now = dial_now();

    if (a->state == LINK_UP) {
        log_debug(log_of(a), "Lost the host", log_str("why", why));
        leave_link(a, now);
        a->tidy_at = a->tidy_at ? a->tidy_at : now + TIDY_LATEST;
    } else if (!a->complained) {
        log_info(log_of(a), "Waiting for the host", log_str("why", why));
        a->complained = true;
    }
    cleanup_close_p(&a->fd);
    next_attempt(a, now);
}

/* The link is gone without our doing. That is what a resume looks like, so the next one comes
 * before anything else. */
static void link_lost(struct agent *a)
{
    const uint64_t now = dial_now();

    if (a->lost >= 0)
        tidy(a);
    leave_link(a, now);
    a->lost = steal_fd(&a->fd);
    a->tidy_at = now + TIDY_LATEST;
    next_attempt(a, now);
}

static void link_up(struct agent *a)
{
    a->state = LINK_UP;
    a->link++;
    a->heard = false;
    a->up_at = dial_now();
    a->deadline = a->up_at + HEARTBEAT;
    a->out_len = 0;
    rpc_reader_init(&a->reader);
    log_debug(log_of(a), "Connected to the host");
}

static void call_host(struct agent *a)
{
    struct error err;

    a->fd = a->spare >= 0 ? steal_fd(&a->spare) : dial_socket(&a->opt->target, &err);
    int rc = a->fd < 0 ? -1 : dial_connect(&a->opt->target, a->fd, &err);
    if (rc < 0) {
        link_down(a, err.text);
        return;
    }
    if (rc == 0) {
        link_up(a);
        return;
    }
    a->state = LINK_DIALING;
    a->deadline = dial_now() + a->attempt;
}

/* Sends what there is. A full socket keeps the rest for POLLOUT. */
static void flush(struct agent *a)
{
    while (a->out_len > 0) {
        ssize_t n = send(a->fd, a->out, a->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            link_down(a, strerror(errno));
            return;
        }
        a->out_len -= (size_t)n;
        memmove(a->out, a->out + n, a->out_len);
        a->deadline = dial_now() + (a->out_len ? SEND_TIMEOUT : HEARTBEAT);
    }
}

static void answer(struct agent *a, const char *call, const char *error)
{
    ssize_t n = rpc_encode_response(a->out + a->out_len, sizeof(a->out) - a->out_len, call, error);

    if (n < 0) {
        link_down(a, "the host asks but does not read the answers");
        return;
    }
    if (a->out_len == 0)
        a->deadline = dial_now() + SEND_TIMEOUT;
    a->out_len += (size_t)n;
    flush(a);
}

/* A free job: an unused one, or the one of a command that has ended but left its pipe open. */
static struct job *find_job(struct agent *a)
{
    for (size_t i = 0; i < JOBS_MAX; i++)
        if (!a->jobs[i].used)
            return &a->jobs[i];
    for (size_t i = 0; i < JOBS_MAX; i++) {
        if (a->jobs[i].pidfd < 0) {
            job_drop(&a->jobs[i]);
            return &a->jobs[i];
        }
    }
    return NULL;
}

static bool is_blank(const char *s)
{
    return !s || s[strspn(s, " \t\r\n\v\f")] == '\0';
}

/* While there is time: what will be needed when there is none. */
static void prepare(struct agent *a)
{
    tidy(a);
    log_info(log_of(a), "Before suspend");
    if (a->spare < 0)
        a->spare = dial_socket(&a->opt->target, NULL);
    resume_prepare(&a->ready, a->opt->dry_resume);
}

static void resume(struct agent *a, const struct rpc_message *m)
{
    if (a->resumed) /* twice in a moment: the first one's log first */
        tidy(a);
    for (size_t i = 0; i < JOBS_MAX; i++)
        a->jobs[i].suspend = false; /* its suspend is over */
    resume_apply(&a->ready, m->has_resume ? &m->resume : NULL, a->opt->dry_resume, &a->done,
                 log_of(a));
    a->resumed = true;
    a->tidy_at = dial_now() + TIDY_PAUSE;
}

/* A request is always answered, whatever it asks for; upstream's agent drops the link instead. */
static void serve(struct agent *a, const struct rpc_message *m)
{
    const bool suspend = strcmp(m->function, RPC_BEFORE_SUSPEND) == 0;
    const bool after = strcmp(m->function, RPC_AFTER_RESUME) == 0;
    const char *command = suspend ? a->opt->before_suspend : a->opt->after_resume;
    struct error err;

    if (m->problem) {
        error_set(&err, EINVAL, "bad request: %s", m->problem);
        answer(a, m->call, err.text);
        return;
    }
    if (!suspend && !after) {
        error_set(&err, ENOSYS, "unknown function \"%s\": this agent has %s and %s", m->function,
                  RPC_BEFORE_SUSPEND, RPC_AFTER_RESUME);
        answer(a, m->call, err.text);
        return;
    }
    if (m->n_args > 0) {
        error_set(&err, EINVAL, "%s: %zu arguments given, it takes none", m->function, m->n_args);
        answer(a, m->call, err.text);
        return;
    }
    if (suspend)
        prepare(a);
    else
        resume(a, m);
    if (is_blank(command)) {
        if (suspend)
            resume_go_first(&a->ready, true);
        answer(a, m->call, "");
        return;
    }
    if (!suspend) /* a command of the user's comes when all is as it should be */
        tidy(a);
    struct job *job = find_job(a);
    if (!job) {
        error_set(&err, EBUSY, "%s: %d commands of earlier calls still run", m->function, JOBS_MAX);
        answer(a, m->call, err.text);
        return;
    }
    if (job_start(job, suspend ? "before-suspend" : "after-resume", a->opt->shell, command, &err) <
        0) {
        answer(a, m->call, err.text);
        return;
    }
    job->suspend = suspend;
    job->link = a->link;
    memcpy(job->call, m->call, sizeof(job->call));
}

static void hear(struct agent *a)
{
    struct rpc_message m;
    struct error err;
    char buf[4096];
    size_t used;
    const uint64_t link = a->link;

    ssize_t n = recv(a->fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        link_lost(a);
        return;
    }
    for (size_t at = 0; at < (size_t)n && a->state == LINK_UP && a->link == link; at += used) {
        int rc = rpc_reader_feed(&a->reader, buf + at, (size_t)n - at, &used, &m, &err);
        if (rc < 0) {
            link_down(a, err.text);
            return;
        }
        if (rc == 0)
            return;
        a->heard = true;
        /* We call nobody, so a response answers nothing: dropped, as upstream does. */
        if (m.kind == RPC_REQUEST)
            serve(a, &m);
    }
}

static void end_job(struct agent *a, struct job *job)
{
    struct error err = ERROR_INIT;

    int rc = job_finish(job, &err);
    if (rc < 0)
        log_warn(log_of(a), "Command failed, telling the host", log_str("error", err.text));
    else if (job->suspend && a->state == LINK_UP && job->link == a->link)
        resume_go_first(&a->ready, true);
    if (a->state == LINK_UP && job->link == a->link)
        answer(a, job->call, rc < 0 ? err.text : "");
    else
        log_warn(log_of(a), "The host that asked is gone, nobody to answer, ignoring",
                 log_str("command", job->what));
    if (job->out < 0)
        job->used = false;
}

static void at_deadline(struct agent *a)
{
    if (a->state == LINK_DOWN) {
        call_host(a);
    } else if (a->state == LINK_DIALING) {
        a->attempt =
            2 * a->attempt < a->opt->dial_timeout_ns ? 2 * a->attempt : a->opt->dial_timeout_ns;
        link_down(a, "no answer to the connect");
    } else if (a->out_len > 0) {
        link_down(a, "it reads no answers");
    } else {
        a->deadline = dial_now() + SEND_TIMEOUT;
        a->out[a->out_len++] = '\n';
        flush(a);
    }
}

static void link_event(struct agent *a, short revents)
{
    struct error err;

    if (a->state == LINK_DIALING) {
        if (dial_finish(&a->opt->target, a->fd, &err) < 0)
            link_down(a, err.text);
        else
            link_up(a);
        return;
    }
    if (a->state == LINK_UP && (revents & POLLOUT))
        flush(a);
    if (a->state == LINK_UP && (revents & ~POLLOUT))
        hear(a);
}

/* One turn: waits for the link, a command, the deadline or the request to stop. */
static int turn(struct agent *a, struct error *err)
{
    struct pollfd p[2 + 2 * JOBS_MAX];
    const uint64_t now = dial_now();

    if (a->deadline <= now) {
        at_deadline(a);
        return 0;
    }
    if (a->tidy_at && a->tidy_at <= now) {
        tidy(a);
        return 0;
    }
    const uint64_t next = a->tidy_at && a->tidy_at < a->deadline ? a->tidy_at : a->deadline;
    p[0] =
        (struct pollfd){.fd = a->ctx && a->ctx->cancel ? a->ctx->cancel->fd : -1, .events = POLLIN};
    p[1] =
        (struct pollfd){.fd = a->fd,
                        .events = (short)((a->state == LINK_UP ? POLLIN : 0) |
                                          (a->state == LINK_DIALING || a->out_len ? POLLOUT : 0))};
    for (size_t i = 0; i < JOBS_MAX; i++) {
        const bool used = a->jobs[i].used;
        p[2 + 2 * i] = (struct pollfd){.fd = used ? a->jobs[i].pidfd : -1, .events = POLLIN};
        p[3 + 2 * i] = (struct pollfd){.fd = used ? a->jobs[i].out : -1, .events = POLLIN};
    }
    int n = poll(p, ARRAY_SIZE(p), (int)((next - now + MSEC - 1) / MSEC));
    if (n < 0 && errno != EINTR)
        return error_sys(err, "poll");
    if (n <= 0)
        return 0;
    for (size_t i = 0; i < JOBS_MAX; i++) {
        struct job *job = &a->jobs[i];
        if (p[3 + 2 * i].revents)
            job_output(job);
        if (p[2 + 2 * i].revents)
            end_job(a, job);
        else if (job->used && job->pidfd < 0 && job->out < 0)
            job->used = false;
    }
    /* Answering a command may have taken the link down, and with it the descriptor. */
    if (p[1].revents && p[1].fd == a->fd)
        link_event(a, p[1].revents);
    return 0;
}

int agent_run(const struct agent_options *opt, const struct context *ctx, struct error *err)
{
    cleanup_free struct agent *a = calloc(1, sizeof(*a));
    int rc = 0;

    if (!a)
        return error_oom(err);
    a->opt = opt;
    a->ctx = ctx;
    a->fd = a->spare = a->lost = -1;
    a->ready = (struct resume_ready)RESUME_READY_INIT;
    a->attempt = first_attempt(a);
    a->lost_at = dial_now();
    a->deadline = a->lost_at;
    while (rc == 0 && context_check(ctx, NULL) == 0)
        rc = turn(a, err);
    for (size_t i = 0; i < JOBS_MAX; i++)
        job_drop(&a->jobs[i]);
    tidy(a);
    resume_unprepare(&a->ready);
    cleanup_close_p(&a->spare);
    cleanup_close_p(&a->fd);
    return rc;
}
