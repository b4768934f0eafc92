// SPDX-License-Identifier: Apache-2.0
/* progress.c - a progress receiver for commands */
#include "runtime/base/progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"

#define REDRAW_NS UINT64_C(100000000)
#define LOG_NS UINT64_C(5000000000)
#define BAR_WIDTH 24
#define RATE_AFTER_S 1.0

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void progress_line_init(struct progress_line *line, int fd, const struct log *log, bool plain)
{
    memset(line, 0, sizeof(*line));
    line->fd = fd;
    line->terminal = !plain && isatty(fd);
    line->log = log;
    (void)pthread_mutex_init(&line->lock, NULL);
}

/* "1234 files" or "12.3 MiB": what a person reads fastest. */
static void format_amount(char *buf, size_t size, uint64_t n, const char *unit)
{
    if (strcmp(unit, "bytes") == 0)
        (void)snprintf(buf, size, "%.1f MiB", (double)n / (1 << 20));
    else
        (void)snprintf(buf, size, "%llu %s", (unsigned long long)n, unit);
}

/* " 95.1 MiB/s, 12 s left", once the phase has gone on for long enough to say. */
static void format_rate(char *buf, size_t size, const struct progress_line *line, uint64_t done,
                        uint64_t total, const char *unit)
{
    double seconds = (double)(line->last_ns - line->phase_ns) / 1e9;
    char amount[64];

    buf[0] = '\0';
    if (seconds < RATE_AFTER_S || done <= line->phase_done)
        return;
    double rate = (double)(done - line->phase_done) / seconds;
    format_amount(amount, sizeof(amount), (uint64_t)rate, unit);
    if (total > done)
        (void)snprintf(buf, size, ", %s/s, %.0f s left", amount, (double)(total - done) / rate);
    else
        (void)snprintf(buf, size, ", %s/s", amount);
}

static void draw(struct progress_line *line, uint64_t done, uint64_t total, const char *unit)
{
    char text[384], amount[160], bar[BAR_WIDTH + 1];
    int n;

    format_amount(amount, sizeof(amount), done, unit);
    n = (int)strlen(amount);
    format_rate(amount + n, sizeof(amount) - (size_t)n, line, done, total, unit);
    if (total) {
        unsigned percent = done >= total ? 100 : (unsigned)((__uint128_t)done * 100 / total);
        unsigned full = percent * BAR_WIDTH / 100;
        memset(bar, '#', full);
        memset(bar + full, '-', BAR_WIDTH - full);
        bar[BAR_WIDTH] = '\0';
        n = snprintf(text, sizeof(text), "\r\033[K%-10s [%s] %3u%% %s", line->phase, bar, percent,
                     amount);
    } else {
        n = snprintf(text, sizeof(text), "\r\033[K%-10s %s", line->phase, amount);
    }
    ssize_t w = write(line->fd, text, (size_t)n);
    (void)w;
    line->drawn = true;
}

void progress_line_report(void *opaque, const char *phase, uint64_t done, uint64_t total,
                          const char *unit)
{
    struct progress_line *line = opaque;
    uint64_t now = now_ns();

    lock_scope(&line->lock);
    if (strncmp(line->phase, phase, sizeof(line->phase) - 1) != 0) {
        (void)snprintf(line->phase, sizeof(line->phase), "%s", phase);
        line->phase_ns = line->last_ns = now;
        line->phase_done = done;
        if (line->terminal)
            draw(line, done, total, unit);
        return;
    }
    if (now - line->last_ns < (line->terminal ? REDRAW_NS : LOG_NS))
        return;
    line->last_ns = now;
    if (line->terminal)
        draw(line, done, total, unit);
    else
        log_info(line->log, "working", log_str("phase", phase), log_uint("done", done),
                 log_uint("total", total), log_str("unit", unit),
                 log_uint("seconds", (now - line->phase_ns) / 1000000000u));
}

void progress_line_finish(struct progress_line *line)
{
    {
        lock_scope(&line->lock);
        if (line->drawn) {
            ssize_t w = write(line->fd, "\r\033[K", 4);
            (void)w;
        }
        line->drawn = false;
    }
    (void)pthread_mutex_destroy(&line->lock);
}
