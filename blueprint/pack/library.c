// SPDX-License-Identifier: Apache-2.0
/* library.c - libarchive, loaded by whoever has an archive */
#include "blueprint/pack/library.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#define LIBRARY "libarchive.so.13"

/* dlsym(3) gives functions as objects, which POSIX allows and C does not. */
static int find(void *library, const char *name, void *ret_function, struct error *err)
{
    void *address = dlsym(library, name);

    if (!address)
        return error_set(err, ENOENT, "%s has no %s", LIBRARY, name);
    memcpy(ret_function, &address, sizeof(address));
    return 0;
}

int pack_library_load(struct pack_library *ret, struct error *err)
{
    /* NODELETE: the libraries behind it do not bear being unloaded, and so nobody has to close it.
     */
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);

    if (!library)
        return error_set(err, ENOENT, "libarchive is needed for archives: %s", dlerror());
#define FIND(name)                                                                                 \
    if (find(library, #name, &ret->name, err) < 0)                                                 \
        return -1;
    PACK_LIBRARY_CALLS(FIND)
#undef FIND
    return 0;
}
