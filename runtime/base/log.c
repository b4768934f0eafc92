// SPDX-License-Identifier: Apache-2.0
/* log.c - events for people and programs */
#include "runtime/base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A record is put together in one buffer and written with one write(2), so that the lines of
 * several threads and processes do not mix. What does not fit is cut. */
#define LINE_MAX_BYTES 4096

static const char *const level_names[] = {"debug", "info", "warn", "error"};

struct line {
    char buf[LINE_MAX_BYTES];
    size_t len;
};

static void put(struct line *l, const char *s, size_t n)
{
    size_t room = sizeof(l->buf) - 3 - l->len; /* keeps place for closing quote, brace, newline */
    if (n > room)
        n = room;
    memcpy(l->buf + l->len, s, n);
    l->len += n;
}

static void puts_(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

/* Bytes of the UTF-8 sequence at s (RFC 3629); 0 when it is none. */
static size_t utf8_length(const unsigned char *s)
{
    const unsigned char c = s[0];
    const size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) /* the text's NUL too */
            return 0;
    /* Overlong forms, surrogates, and what lies beyond U+10FFFF. */
    if ((c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] > 0x9f) || (c == 0xf0 && s[1] < 0x90) ||
        (c == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

static void put_json_string(struct line *l, const char *s)
{
    put(l, "\"", 1);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        char esc[8];
        if (l->len > sizeof(l->buf) - 16)
            break;
        if (c == '"' || c == '\\') {
            esc[0] = '\\';
            esc[1] = (char)c;
            put(l, esc, 2);
        } else if (c == '\n') {
            put(l, "\\n", 2);
        } else if (c < 0x20 || c == 0x7f) {
            int n = snprintf(esc, sizeof(esc), "\\u%04x", c);
            put(l, esc, (size_t)n);
        } else {
            size_t n = utf8_length((const unsigned char *)s);
            if (n > 0)
                put(l, s, n);
            else
                put(l, "\xef\xbf\xbd", 3); /* U+FFFD, "replacement character" */
            s += n > 0 ? n - 1 : 0;
        }
    }
    put(l, "\"", 1);
}

static void put_value(struct line *l, const struct log_field *f, int json)
{
    char num[40];
    int n = 0;

    switch (f->kind) {
    case LOG_FIELD_STR: {
        int plain = *f->s != '\0';
        for (const char *p = f->s; *p; p++)
            if ((unsigned char)*p <= ' ' || *p == '"' || *p == '=' || *p == 0x7f)
                plain = 0;
        if (json || !plain)
            put_json_string(l, f->s);
        else
            puts_(l, f->s);
        return;
    }
    case LOG_FIELD_INT:
        n = snprintf(num, sizeof(num), "%" PRId64, f->i);
        break;
    case LOG_FIELD_UINT:
        n = snprintf(num, sizeof(num), "%" PRIu64, f->u);
        break;
    case LOG_FIELD_DOUBLE:
        n = snprintf(num, sizeof(num), "%.3f", f->d);
        break;
    case LOG_FIELD_END:
        return;
    }
    put(l, num, (size_t)n);
}

static void put_time(struct line *l)
{
    struct timespec ts;
    struct tm tm;
    char text[40];

    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(text + n, sizeof(text) - n, ".%03ldZ", ts.tv_nsec / 1000000);
    put(l, text, n);
}

static void flush(void *opaque, struct line *l)
{
    const int *fd = opaque;
    l->buf[l->len++] = '\n';
    /* A log that cannot be written is deliberately ignored: there is nowhere to say so. */
    ssize_t n = write(*fd, l->buf, l->len);
    (void)n;
}

void log_sink_text(void *opaque, enum log_level level, const char *message,
                   const struct log_field *fields)
{
    struct line l = {.len = 0};

    put_time(&l);
    put(&l, " ", 1);
    puts_(&l, level_names[level]);
    put(&l, "      ", 6 - strlen(level_names[level]));
    puts_(&l, message);
    for (; fields->kind != LOG_FIELD_END; fields++) {
        put(&l, " ", 1);
        puts_(&l, fields->key);
        put(&l, "=", 1);
        put_value(&l, fields, 0);
    }
    flush(opaque, &l);
}

/* The fields, and the end of the object. */
static void finish_json(int fd, struct line *l, const struct log_field *fields)
{
    for (; fields->kind != LOG_FIELD_END; fields++) {
        /* A field that might not fit is left out whole, so that the line stays valid JSON. */
        size_t before = l->len;
        put(l, ",", 1);
        put_json_string(l, fields->key);
        put(l, ":", 1);
        put_value(l, fields, 1);
        if (l->len > sizeof(l->buf) - 20) {
            l->len = before;
            break;
        }
    }
    l->buf[l->len++] = '}';
    flush(&fd, l);
}

void log_sink_json(void *opaque, enum log_level level, const char *message,
                   const struct log_field *fields)
{
    struct line l = {.len = 0};

    puts_(&l, "{\"time\":\"");
    put_time(&l);
    puts_(&l, "\",\"level\":\"");
    puts_(&l, level_names[level]);
    puts_(&l, "\",\"message\":");
    put_json_string(&l, message);
    finish_json(*(const int *)opaque, &l, fields);
}

void log_json_line(int fd, const char *event, const struct log_field *fields)
{
    struct line l = {.len = 0};

    puts_(&l, "{\"time\":\"");
    put_time(&l);
    puts_(&l, "\",\"event\":");
    put_json_string(&l, event);
    finish_json(fd, &l, fields);
}

void log_event(const struct log *log, enum log_level level, const char *message,
               const struct log_field *fields)
{
    if (log && log->sink && level >= log->level)
        log->sink(log->opaque, level, message, fields);
}

int log_level_parse(const char *word, enum log_level *ret_level)
{
    for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
        if (strcmp(word, level_names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return 0;
        }
    }
    return -1;
}

const char *log_level_name(enum log_level level)
{
    return level_names[level];
}
