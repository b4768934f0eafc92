/* SPDX-License-Identifier: Apache-2.0 */
/* error.h - the one error convention of this project
 *
 * Theory of operation: a function that can fail takes `struct error *err` last and returns a
 * negative number on failure (a pointer-returning one returns NULL). Success leaves *err untouched;
 * failure leaves every `ret_` output untouched and *err says what happened. The lowest level names
 * the cause, each level on the way up adds the object and the act in front with error_wrap(), so
 * that the text reads from the outside in:
 *
 *     image redis: layer 2: entry "etc/../x": the path leaves the root
 *
 * The text lives inside the struct: making an error allocates nothing and nothing has to be freed.
 * Only a program's main prints an error; libraries never print and never exit.
 */
#ifndef RUNTIME_BASE_ERROR_H
#define RUNTIME_BASE_ERROR_H

#include <stdarg.h>

#define ERROR_TEXT_MAX 1024

/* Code for wrong usage of a command; a main turns it into exit status 2. Not an errno. */
#define ERROR_USAGE 10001

struct error {
    int code;                  /* an errno value, or ERROR_USAGE; 0 = no error was set */
    char text[ERROR_TEXT_MAX]; /* NUL-terminated; a longer text is cut in its middle */
};

#define ERROR_INIT                                                                                 \
    {                                                                                              \
        .code = 0, .text = ""                                                                      \
    }

/* Sets the error. code: what kind (an errno value the caller may act on: EBADMSG for malformed
 * input, ECANCELED for an interrupt, ...); fmt: the text. err may be NULL when the caller does not
 * care. Returns -1, so that `return error_set(...)` is the whole failure path. Keeps errno. */
int error_set(struct error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Like error_set() with the code taken from errno and ": strerror(errno)" appended. */
int error_sys(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Like error_sys() for functions that return an error number instead of setting errno. */
int error_num(struct error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<text>: " in front of an error that is already set; the code stays. Returns -1. */
int error_wrap(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Makes an error that is set one of wrong usage: what was refused is an option. Returns -1. */
int error_usage(struct error *err);

/* Sets ENOMEM. Returns -1. */
int error_oom(struct error *err);

/* clang's static analyzer sees one file at a time and would take these for functions that may
 * return 0, and whatever failed for done. */
#if defined(__clang_analyzer__) && !defined(ERROR_IMPLEMENTATION)
#define error_set(...) (error_set(__VA_ARGS__), -1)
#define error_sys(...) (error_sys(__VA_ARGS__), -1)
#define error_num(...) (error_num(__VA_ARGS__), -1)
#define error_wrap(...) (error_wrap(__VA_ARGS__), -1)
#define error_usage(err) (error_usage(err), -1)
#define error_oom(err) (error_oom(err), -1)
#endif

#endif
