// SPDX-License-Identifier: Apache-2.0
/* shortage.c - a process without a descriptor to spare, for tests of who listens */
#include "tests/lib/shortage.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "tests/lib/unit.h"

static void hear(void *opaque, enum log_level level, const char *message,
                 const struct log_field *fields)
{
    struct shortage *s = opaque;

    (void)level;
    (void)fields;
    if (strcmp(message, "Clients have to wait") != 0)
        return;
    lock_scope(&s->lock);
    s->count++;
    (void)pthread_cond_broadcast(&s->heard);
}

void shortage_init(struct shortage *s)
{
    *s = (struct shortage){.log = {.level = LOG_LEVEL_WARN, .sink = hear, .opaque = s},
                           .lock = PTHREAD_MUTEX_INITIALIZER,
                           .heard = PTHREAD_COND_INITIALIZER};
}

void shortage_begin(struct shortage *s)
{
    int lowest = dup(STDERR_FILENO); /* the first that is free: none below it is */

    ck_assert_int_ge(lowest, 0);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &s->before), 0);
    struct rlimit none = {.rlim_cur = (rlim_t)lowest, .rlim_max = s->before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    (void)close(lowest);
    ck_assert_int_eq(dup(STDERR_FILENO), -1);
    ck_assert_int_eq(errno, EMFILE);
}

void shortage_end(struct shortage *s)
{
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &s->before), 0);
}

void shortage_wait(struct shortage *s)
{
    struct timespec end;
    int rc = 0;

    (void)clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 60;
    lock_scope(&s->lock);
    while (!s->count && rc == 0)
        rc = pthread_cond_timedwait(&s->heard, &s->lock, &end);
    ck_assert_msg(s->count, "nobody said that clients have to wait");
}

unsigned shortage_count(struct shortage *s)
{
    lock_scope(&s->lock);
    return s->count;
}
