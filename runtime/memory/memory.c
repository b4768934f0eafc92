// SPDX-License-Identifier: Apache-2.0
/* memory.c - a guest's memory as a file of a mount; see memory.h */
#include "runtime/memory/memory.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/json.h"
#include "runtime/block/filter/dirty.h"

struct memory {
    struct mount *mount;
    struct block *stack;
    struct dirty *dirty;
    char *name, *path;
};

static void memory_free(struct memory *mem)
{
    free(mem->name);
    free(mem->path);
    free(mem);
}

DEFINE_CLEANUP(cleanup_memory_p, struct memory *, memory_free)

/* The stack with a dirty layer on it; NULL on failure. */
static struct block *with_dirty(struct block *stack, struct error *err)
{
    static const char layer[] = "[{\"type\":\"dirty\"}]";

    if (dirty_find(stack))
        return stack;
    cleanup_json struct json_object *layers = json_parse(layer, sizeof(layer) - 1, "stack", err);
    return layers ? block_stack(stack, layers, NULL, NULL, err) : NULL;
}

struct memory *memory_open(struct mount *m, const char *name, unsigned mode, uid_t uid, gid_t gid,
                           struct block *stack, struct error *err)
{
    CLEANUP(cleanup_memory_p) struct memory *mem = calloc(1, sizeof(*mem));

    if (!mem || !(mem->name = strdup(name)) ||
        asprintf(&mem->path, "%s/%s", mount_path(m), name) < 0) {
        error_oom(err);
        return NULL;
    }
    mem->mount = m;
    mem->stack = with_dirty(stack, err);
    if (!mem->stack)
        return NULL;
    mem->dirty = dirty_find(mem->stack);
    if (mount_add_block(m, name, mode, uid, gid, mem->stack, err) < 0) {
        if (mem->stack != stack)
            block_take_off(mem->stack);
        return NULL;
    }
    return steal_ptr(&mem);
}

int memory_close(struct memory *mem, struct error *err)
{
    if (!mem)
        return 0;
    int rc = block_close(mem->stack, err);
    memory_free(mem);
    return rc;
}

const char *memory_path(const struct memory *mem)
{
    return mem->path;
}

struct block *memory_stack(struct memory *mem)
{
    return mem->stack;
}

uint64_t memory_size(const struct memory *mem)
{
    return block_size(mem->stack);
}

uint64_t memory_pages(const struct memory *mem)
{
    return dirty_size(mem->dirty);
}

int memory_flush(struct memory *mem, struct error *err)
{
    return mount_flush(mem->mount, mem->name, err);
}

int memory_look(struct memory *mem, struct bitmap *into, uint64_t *ret_count, struct error *err)
{
    if (memory_flush(mem, err) < 0)
        return -1;
    uint64_t n = dirty_take(mem->dirty, into);
    if (ret_count)
        *ret_count = n;
    return 0;
}
