/* SPDX-License-Identifier: Apache-2.0 */
/* library.h - what the files of libdrafter share
 *
 * The public structs are turned into those of the modules here and nowhere else, so that the
 * modules may change. struct drafter_error is struct error under another name: its layout is
 * checked.
 */
#ifndef RUNTIME_LIB_LIBRARY_H
#define RUNTIME_LIB_LIBRARY_H

#include "runtime/base/context.h"
#include "runtime/drafter.h"
#include "runtime/snapshot/vm_options.h"

struct drafter {
    struct drafter_options o;
    struct log log;
    struct progress progress;
    struct cancel cancel;
    struct context ctx;
};

_Static_assert(sizeof(struct drafter_error) == sizeof(struct error) &&
                   offsetof(struct drafter_error, text) == offsetof(struct error, text) &&
                   DRAFTER_WRONG_USAGE == ERROR_USAGE,
               "one error type");
static inline struct error *library_error(struct drafter_error *err)
{
    return (struct error *)err;
}

/* Copies a caller's option struct, which may be older and shorter than ours; the rest is zero. A
 * longer one is newer than this library: what we do not know of must be zero (ENOTSUP). what names
 * it. Returns 0. */
int library_options(void *ret, size_t size, const void *options, const char *what,
                    struct error *err);

/* The commands' options of the same names, defaults filled in. Returns 0. */
int library_vm(const struct drafter_vm *vm, struct vm_opts *ret, struct error *err);

static inline uint64_t library_ns(uint64_t ms)
{
    return ms > UINT64_MAX / 1000000 ? UINT64_MAX : ms * 1000000;
}

/* A caller's descriptor as the modules have it: none is -1 there. */
static inline int library_fd(int fd)
{
    return fd > 0 ? fd : -1;
}

void library_event(const struct drafter *d, const struct drafter_event *event);

#endif
