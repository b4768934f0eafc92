// SPDX-License-Identifier: Apache-2.0
/* error.c - making and wrapping errors */
#define ERROR_IMPLEMENTATION
#include "runtime/base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Formats into text[0..ERROR_TEXT_MAX): a text that does not fit keeps its two ends, because the
 * front names the object and the end the cause. */
static void set_text(struct error *err, const char *text, size_t len)
{
    static const char gap[] = " [...] ";
    const size_t room = sizeof(err->text) - 1;

    if (len <= room) {
        memmove(err->text, text, len);
        err->text[len] = '\0';
        return;
    }
    const size_t head = room / 2;
    const size_t tail = room - head - (sizeof(gap) - 1);
    memmove(err->text, text, head);
    memcpy(err->text + head, gap, sizeof(gap) - 1);
    memmove(err->text + head + sizeof(gap) - 1, text + len - tail, tail);
    err->text[room] = '\0';
}

static int set_va(struct error *err, int code, const char *suffix, const char *fmt, va_list ap)
{
    char buf[4 * ERROR_TEXT_MAX];
    int saved = errno;

    if (err) {
        int n = vsnprintf(buf, sizeof(buf), fmt, ap);
        size_t len = n < 0 ? 0 : (size_t)n < sizeof(buf) ? (size_t)n : sizeof(buf) - 1;
        for (const char *part = suffix ? ": " : NULL; part; part = part == suffix ? NULL : suffix) {
            size_t k = strlen(part);
            if (k > sizeof(buf) - 1 - len)
                k = sizeof(buf) - 1 - len;
            memcpy(buf + len, part, k);
            len += k;
        }
        err->code = code;
        set_text(err, buf, len);
    }
    errno = saved;
    return -1;
}

int error_set(struct error *err, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set_va(err, code, NULL, fmt, ap);
    va_end(ap);
    return -1;
}

/* The text of an error number. musl, which the guest's programs are linked with, has only the POSIX
 * strerror_r(), but its strerror() returns constants and is thread safe. */
static const char *describe(int errnum, char *buf, size_t size)
{
#ifdef __GLIBC__
    return strerror_r(errnum, buf, size);
#else
    (void)buf;
    (void)size;
    return strerror(errnum);
#endif
}

int error_num(struct error *err, int errnum, const char *fmt, ...)
{
    char name[128];
    va_list ap;
    va_start(ap, fmt);
    set_va(err, errnum, describe(errnum, name, sizeof(name)), fmt, ap);
    va_end(ap);
    return -1;
}

int error_sys(struct error *err, const char *fmt, ...)
{
    char name[128];
    int errnum = errno;
    va_list ap;
    va_start(ap, fmt);
    set_va(err, errnum, describe(errnum, name, sizeof(name)), fmt, ap);
    va_end(ap);
    return -1;
}

int error_wrap(struct error *err, const char *fmt, ...)
{
    if (!err)
        return -1;
    struct error inner = *err;
    va_list ap;
    va_start(ap, fmt);
    set_va(err, inner.code, inner.text, fmt, ap);
    va_end(ap);
    return -1;
}

int error_usage(struct error *err)
{
    if (err)
        err->code = ERROR_USAGE;
    return -1;
}

int error_oom(struct error *err)
{
    return error_set(err, ENOMEM, "out of memory");
}
