/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - events for people and programs, delivered to whoever embeds us
 *
 * Theory of operation: library code describes what happened (message plus typed fields) to the
 * `struct log` it was handed; the sink decides where it goes. Libraries use DEBUG, INFO and WARN
 * only: a failure is returned, not logged. A warning that does not stop us ends in ", ignoring".
 * Message texts are stable, scripts look for them; variable parts go into fields. Never put a
 * secret into a field.
 */
#ifndef RUNTIME_BASE_LOG_H
#define RUNTIME_BASE_LOG_H

#include <stddef.h>
#include <stdint.h>

enum log_level {
    LOG_LEVEL_DEBUG,
    LOG_LEVEL_INFO,
    LOG_LEVEL_WARN,
    LOG_LEVEL_ERROR,
};

enum log_field_kind {
    LOG_FIELD_END, /* closes a list of fields */
    LOG_FIELD_STR,
    LOG_FIELD_INT,
    LOG_FIELD_UINT,
    LOG_FIELD_DOUBLE,
};

struct log_field {
    const char *key;
    enum log_field_kind kind;
    union {
        const char *s;
        int64_t i;
        uint64_t u;
        double d;
    };
};

/* sink: called with the lock-free caller's thread; must be thread safe. fields ends with
 * LOG_FIELD_END. Nothing outlives the call. */
struct log {
    enum log_level level; /* records below it are dropped before the sink */
    void (*sink)(void *opaque, enum log_level level, const char *message,
                 const struct log_field *fields);
    void *opaque;
};

static inline struct log_field log_str(const char *key, const char *s)
{
    return (struct log_field){.key = key, .kind = LOG_FIELD_STR, .s = s ? s : ""};
}

static inline struct log_field log_int(const char *key, int64_t i)
{
    return (struct log_field){.key = key, .kind = LOG_FIELD_INT, .i = i};
}

static inline struct log_field log_uint(const char *key, uint64_t u)
{
    return (struct log_field){.key = key, .kind = LOG_FIELD_UINT, .u = u};
}

static inline struct log_field log_double(const char *key, double d)
{
    return (struct log_field){.key = key, .kind = LOG_FIELD_DOUBLE, .d = d};
}

/* log may be NULL: nothing happens. */
void log_event(const struct log *log, enum log_level level, const char *message,
               const struct log_field *fields);

/* log_info(log, "Resumed VM", log_int("ms", 41), log_str("path", p)). The list begins with an
 * element that is skipped, so that it may be empty. */
#define log_fields(...)                                                                            \
    ((const struct log_field[]){{.key = ""}, ##__VA_ARGS__, {.kind = LOG_FIELD_END}} + 1)
#define log_debug(log, message, ...)                                                               \
    log_event(log, LOG_LEVEL_DEBUG, message, log_fields(__VA_ARGS__))
#define log_info(log, message, ...) log_event(log, LOG_LEVEL_INFO, message, log_fields(__VA_ARGS__))
#define log_warn(log, message, ...) log_event(log, LOG_LEVEL_WARN, message, log_fields(__VA_ARGS__))

/* "debug", "info", "warn" or "error" to a level. Returns -1 for another word, without an error. */
int log_level_parse(const char *word, enum log_level *ret_level);
const char *log_level_name(enum log_level level);

/* Ready sinks. opaque is an int pointer to the fd to write to (one write per record).
 * text: "2026-11-23T21:43:11Z info  Resumed VM ms=41 path=out/vm"; values with blanks or control
 * characters are quoted as JSON strings. json: {"time":...,"level":...,"message":...,fields...}. */
void log_sink_text(void *opaque, enum log_level level, const char *message,
                   const struct log_field *fields);
void log_sink_json(void *opaque, enum log_level level, const char *message,
                   const struct log_field *fields);

/* Writes {"time":...,"event":EVENT,fields...} as one line with one write(2), for programs that
 * follow what happens rather than read a log. What cannot be written is lost. */
void log_json_line(int fd, const char *event, const struct log_field *fields);

#endif
