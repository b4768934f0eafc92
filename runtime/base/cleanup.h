/* SPDX-License-Identifier: Apache-2.0 */
/* cleanup.h - scope guards for the types everybody uses
 *
 * A guard takes NULL or -1, keeps errno, and resets its variable. A result leaves its scope with
 * steal_ptr() or steal_fd(). Other types bring a guard of their own in their own header.
 */
#ifndef RUNTIME_BASE_CLEANUP_H
#define RUNTIME_BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A guard that is never read (it only holds) is no mistake: unused. */
#define CLEANUP(fn) __attribute__((cleanup(fn), unused))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Defines a guard `name` for a pointer type and its destructor. */
#define DEFINE_CLEANUP(name, type, destroy)                                                        \
    static inline void name(type *p)                                                               \
    {                                                                                              \
        int saved_ = errno;                                                                        \
        if (*p)                                                                                    \
            destroy(*p);                                                                           \
        *p = NULL;                                                                                 \
        errno = saved_;                                                                            \
    }

static inline void cleanup_free_p(void *p)
{
    void **pp = p;
    int saved = errno;
    free(*pp);
    *pp = NULL;
    errno = saved;
}

static inline void cleanup_close_p(int *fd)
{
    int saved = errno;
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
    errno = saved;
}

DEFINE_CLEANUP(cleanup_fclose_p, FILE *, (void)fclose)
DEFINE_CLEANUP(cleanup_closedir_p, DIR *, (void)closedir)

#define cleanup_free CLEANUP(cleanup_free_p)
#define cleanup_close CLEANUP(cleanup_close_p)
#define cleanup_fclose CLEANUP(cleanup_fclose_p)
#define cleanup_closedir CLEANUP(cleanup_closedir_p)

static inline int steal_fd(int *fd)
{
    int v = *fd;
    *fd = -1;
    return v;
}

/* Moves a pointer out of a guarded variable, keeping its type. */
#define steal_ptr(pp)                                                                              \
    __extension__({                                                                                \
        __typeof__(*(pp)) v_ = *(pp);                                                              \
        *(pp) = NULL;                                                                              \
        v_;                                                                                        \
    })

/* Holds a mutex until the end of the scope: `lock_scope(&self->lock);` */
static inline void unlock_p(pthread_mutex_t **m)
{
    if (*m)
        (void)pthread_mutex_unlock(*m);
}

static inline pthread_mutex_t *lock_and_return(pthread_mutex_t *m)
{
    (void)pthread_mutex_lock(m);
    return m;
}

#define LOCK_NAME2(line) lock_guard_##line
#define LOCK_NAME(line) LOCK_NAME2(line)
#define lock_scope(m)                                                                              \
    pthread_mutex_t *LOCK_NAME(__LINE__) __attribute__((cleanup(unlock_p), unused)) =              \
        lock_and_return(m)

#endif
