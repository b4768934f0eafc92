// SPDX-License-Identifier: Apache-2.0
/* library.c - libarchive, loaded by whoever has an archive */
#include "blueprint/pack/library.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define LIBRARY "libarchive.so.13"

/* Loaded once and never again: it is the same for all. */
static struct pack_library calls;
static char problem[256];

/* dlsym(3) gives functions as objects, which POSIX allows and C does not. */
static void find(void *library, const char *name, void *ret_function)
{
    void *address = dlsym(library, name);

    if (address)
        memcpy(ret_function, &address, sizeof(address));
    else if (!problem[0])
        (void)snprintf(problem, sizeof(problem), "%s has no %s", LIBRARY, name);
}

static void load(void)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);

    if (!library) {
        (void)snprintf(problem, sizeof(problem), "%s", dlerror());
        return;
    }
#define FIND(name) find(library, #name, &calls.name);
    PACK_LIBRARY_CALLS(FIND)
#undef FIND
}

const struct pack_library *pack_library(struct error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, load);
    if (!problem[0])
        return &calls;
    error_set(err, ENOENT, "libarchive is needed for archives: %s", problem);
    return NULL;
}
