// SPDX-License-Identifier: Apache-2.0
/* console.c - a pipe between a machine's console and ours, with a thread that reads along */
#include "runtime/snapshot/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <regex.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"

struct console {
    int r, w, out;
    int seen; /* eventfd: a line matched */
    regex_t re;
    bool have_re, running;
    pthread_t thread;
    char line[CONSOLE_LINE_MAX];
    size_t len;
};

static void take(struct console *c, char byte)
{
    if (byte != '\n') {
        if (c->len < sizeof(c->line) - 1)
            c->line[c->len++] = byte ? byte : ' ';
        return;
    }
    while (c->len > 0 && c->line[c->len - 1] == '\r')
        c->len--;
    c->line[c->len] = '\0';
    c->len = 0;
    if (regexec(&c->re, c->line, 0, NULL, 0) == 0)
        (void)eventfd_write(c->seen, 1);
}

static void *pump(void *opaque)
{
    struct console *c = opaque;
    char buf[4096];

    for (;;) {
        ssize_t n = io_read(c->r, buf, 1, "console", NULL); /* wait for one, take what is there */
        if (n <= 0)
            return NULL;
        int flags = fcntl(c->r, F_GETFL);
        (void)fcntl(c->r, F_SETFL, flags | O_NONBLOCK);
        ssize_t more = read(c->r, buf + 1, sizeof(buf) - 1);
        (void)fcntl(c->r, F_SETFL, flags);
        n += more > 0 ? more : 0;
        if (c->out >= 0)
            (void)io_write(c->out, buf, (size_t)n, "standard output", NULL);
        for (ssize_t i = 0; i < n; i++)
            take(c, buf[i]);
    }
}

struct console *console_new(int out_fd, const char *until, struct error *err)
{
    struct console *c = calloc(1, sizeof(*c));
    int fds[2];

    if (!c) {
        (void)error_oom(err);
        return NULL;
    }
    c->r = c->w = c->seen = -1;
    c->out = out_fd;
    if (regcomp(&c->re, until, REG_EXTENDED | REG_NOSUB) != 0) {
        (void)error_set(err, ERROR_USAGE, "\"%s\" is no regular expression", until);
        goto fail;
    }
    c->have_re = true;
    if (pipe2(fds, O_CLOEXEC) < 0) {
        (void)error_sys(err, "pipe");
        goto fail;
    }
    c->r = fds[0];
    c->w = fds[1];
    c->seen = eventfd(0, EFD_CLOEXEC);
    if (c->seen < 0) {
        (void)error_sys(err, "eventfd");
        goto fail;
    }
    int rc = pthread_create(&c->thread, NULL, pump, c);
    if (rc != 0) {
        (void)error_num(err, rc, "thread");
        goto fail;
    }
    c->running = true;
    return c;
fail:
    console_free(c);
    return NULL;
}

int console_fd(const struct console *c)
{
    return c->w;
}

int console_wait(struct console *c, uint64_t timeout_ns, const struct context *ctx,
                 struct error *err)
{
    struct timespec now;
    struct pollfd fds[2] = {{.fd = c->seen, .events = POLLIN},
                            {.fd = ctx && ctx->cancel ? ctx->cancel->fd : -1, .events = POLLIN}};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t start = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    for (;;) {
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        uint64_t gone = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 - start;
        uint64_t limit = timeout_ns / 1000000;
        uint64_t left = gone < limit ? limit - gone : 0;
        int n = poll(fds, 2, left > 3600000 ? 3600000 : (int)left);
        if (n < 0 && errno != EINTR)
            return error_sys(err, "poll");
        if (n > 0 && fds[0].revents)
            return 0;
        if (n > 0)
            return context_check(ctx, err);
        if (n == 0 && left == 0)
            return error_set(err, ETIMEDOUT, "no line of the console matched in time");
    }
}

void console_free(struct console *c)
{
    if (!c)
        return;
    cleanup_close_p(&c->w);
    if (c->running)
        (void)pthread_join(c->thread, NULL);
    cleanup_close_p(&c->r);
    cleanup_close_p(&c->seen);
    if (c->have_re)
        regfree(&c->re);
    free(c);
}
