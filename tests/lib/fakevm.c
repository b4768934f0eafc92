// SPDX-License-Identifier: Apache-2.0
/* fakevm.c - a machine without a VMM, for tests of migration */
#include "tests/lib/fakevm.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/bytes.h"
#include "runtime/base/output.h"
#include "tests/lib/unit.h"

#define STATE_SIZE 70000 /* more than one frame's worth is not needed, more than one write is */

static const char *const names[WORLD_DEVICES] = {"disk", "memory"};

static char memory_folder[] = "/dev/shm/drafter-test.XXXXXX";

static void remove_memory_folder(void)
{
    (void)output_remove_tree(AT_FDCWD, memory_folder, NULL);
}

void fakevm_work_in_memory(void)
{
    if (!mkdtemp(memory_folder))
        return; /* no /dev/shm: the work folder is only slower */
    (void)atexit(remove_memory_folder);
    ck_assert_int_eq(chdir(memory_folder), 0);
}

void world_init(struct world *w, uint64_t pages0, uint64_t pages1)
{
    memset(w, 0, sizeof(*w));
    w->pages[0] = pages0;
    w->pages[1] = pages1;
    for (size_t d = 0; d < WORLD_DEVICES; d++)
        w->last[d] = calloc(w->pages[d], sizeof(*w->last[d]));
}

void world_destroy(struct world *w)
{
    for (size_t d = 0; d < WORLD_DEVICES; d++)
        free((void *)w->last[d]);
}

static void fill(uint8_t *page, uint64_t number, uint64_t counter)
{
    if (!counter) {
        memset(page, 0, BLOCK_PAGE);
        return;
    }
    for (size_t i = 0; i < BLOCK_PAGE; i += 16) {
        put_le64(page + i, number);
        put_le64(page + i + 8, counter);
    }
}

static struct block *open_file(const char *dir, const char *name, uint64_t pages, bool create)
{
    char path[128], text[256];
    struct error err = ERROR_INIT;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (create) {
        FILE *f = fopen(path, "w");
        ck_assert_ptr_nonnull(f);
        ck_assert_int_eq(ftruncate(fileno(f), (off_t)(pages * BLOCK_PAGE)), 0);
        (void)fclose(f);
    }
    int n = snprintf(text, sizeof(text),
                     "[{\"type\":\"file\",\"path\":\"%s\"},{\"type\":\"dirty\",\"expiry\":\"1h\"}]",
                     path);
    struct block *b = block_open(text, (size_t)n, name, NULL, &err);
    ck_assert_msg(b, "%s", err.text);
    return b;
}

void fakevm_empty(struct fakevm *vm, struct world *world, const char *dir, uint64_t seed)
{
    memset(vm, 0, sizeof(*vm));
    vm->world = world;
    vm->seed = seed ? seed : 1;
    (void)snprintf(vm->dir, sizeof(vm->dir), "%s", dir);
    ck_assert_int_eq(output_remove_tree(AT_FDCWD, dir, NULL),
                     0); /* tests of a file share a folder */
    ck_assert_int_eq(mkdir(dir, 0700), 0);
}

void fakevm_make(struct fakevm *vm, struct world *world, const char *dir, uint64_t seed)
{
    fakevm_empty(vm, world, dir, seed);
    for (size_t d = 0; d < WORLD_DEVICES; d++)
        vm->blocks[d] = open_file(dir, names[d], world->pages[d], true);
}

void fakevm_destroy(struct fakevm *vm)
{
    fakevm_stand_still(vm);
    for (size_t d = 0; d < WORLD_DEVICES; d++)
        if (vm->blocks[d])
            (void)block_close(vm->blocks[d], NULL);
    memset(vm->blocks, 0, sizeof(vm->blocks));
}

static bool write_page(struct fakevm *vm, size_t d, uint64_t number, uint64_t counter)
{
    struct world *w = vm->world;
    uint8_t page[BLOCK_PAGE];

    fill(page, number, counter);
    if (block_write(vm->blocks[d], page, sizeof(page), number * BLOCK_PAGE, 0, NULL) < 0)
        return false;
    atomic_store(&w->last[d][number], counter);
    atomic_fetch_add(&w->writes, 1);
    return true;
}

void fakevm_write_all(struct fakevm *vm)
{
    for (size_t d = 0; d < WORLD_DEVICES; d++)
        for (uint64_t number = 0; number < vm->world->pages[d]; number++)
            ck_assert(write_page(vm, d, number, ++vm->counter));
}

/* One write of the guest; a failure ends it, as an I/O error ends a guest's patience. */
static bool write_once(struct fakevm *vm)
{
    struct world *w = vm->world;
    size_t d = unit_random(&vm->seed) % WORLD_DEVICES;
    /* Half of the writes go to an eighth of the pages, as with real programs. */
    uint64_t span = unit_random(&vm->seed) % 2 ? w->pages[d] : w->pages[d] / 8 + 1;
    uint64_t number = unit_random(&vm->seed) % span;
    uint64_t counter = ++vm->counter;

    if (unit_random(&vm->seed) % 16 == 0)
        counter = 0; /* zeros are content too */
    return write_page(vm, d, number, counter);
}

static void *guest(void *opaque)
{
    struct fakevm *vm = opaque;

    while (!atomic_load(&vm->stop)) {
        for (unsigned i = 0; i < vm->rate && !atomic_load(&vm->stop); i++)
            if (!write_once(vm))
                return NULL;
        (void)sched_yield();
    }
    return NULL;
}

void fakevm_run(struct fakevm *vm)
{
    ck_assert(!vm->has_guest);
    if (atomic_fetch_add(&vm->world->running, 1) != 0)
        atomic_store(&vm->world->split_brain, true);
    atomic_store(&vm->stop, false);
    ck_assert_int_eq(pthread_create(&vm->guest, NULL, guest, vm), 0);
    vm->has_guest = true;
}

void fakevm_stand_still(struct fakevm *vm)
{
    if (!vm->has_guest)
        return;
    atomic_store(&vm->stop, true);
    (void)pthread_join(vm->guest, NULL);
    vm->has_guest = false;
    (void)atomic_fetch_sub(&vm->world->running, 1);
}

void fakevm_devices(struct fakevm *vm, struct migrate_device *devices)
{
    for (size_t d = 0; d < WORLD_DEVICES; d++)
        devices[d] = (struct migrate_device){.name = names[d],
                                             .block = vm->blocks[d],
                                             .block_size = 16384,
                                             .memory = d == 1,
                                             .max_dirty_blocks = 8,
                                             .min_cycles = 1,
                                             .max_cycles = 3};
}

static int suspend(void *opaque, struct error *err)
{
    struct fakevm *vm = opaque;

    if (vm->fail_suspend)
        return error_set(err, EIO, "the agent did not answer");
    fakevm_stand_still(vm);
    if (vm->half_suspend)
        return error_set(err, ETIMEDOUT, "the hypervisor did not answer");
    if (vm->late)
        vm->late(vm, false);
    return 0;
}

static int save(void *opaque, uint8_t **ret_state, size_t *ret_len, struct error *err)
{
    struct fakevm *vm = opaque;

    if (vm->fail_save)
        return error_set(err, EIO, "the state cannot be had");
    uint8_t *state = calloc(1, STATE_SIZE);
    if (!state)
        return error_oom(err);
    if (vm->late)
        vm->late(vm, true);
    put_le64(state, vm->counter);
    put_le64(state + STATE_SIZE - 8, vm->seed);
    *ret_state = state;
    *ret_len = STATE_SIZE;
    return 0;
}

static int resume(void *opaque, struct error *err)
{
    struct fakevm *vm = opaque;

    (void)err;
    vm->resumed++;
    if (!vm->has_guest)
        fakevm_run(vm);
    return 0;
}

static int prepare(void *opaque, struct error *err)
{
    struct fakevm *vm = opaque;

    vm->prepared++;
    return vm->fail_prepare ? error_set(err, ENOSPC, "no room to suspend it") : 0;
}

static int keep(void *opaque, struct error *err)
{
    struct fakevm *vm = opaque;
    enum migrate_record_state state;
    char record[80], peer[WIRE_REASON_MAX + 1];

    vm->kept++;
    ck_assert_msg(!vm->has_guest, "kept while it ran");
    /* Whoever commits without waiting has every chance to be seen. */
    for (int i = 0; i < 200; i++)
        (void)sched_yield();
    (void)snprintf(record, sizeof(record), "%s/migration", vm->dir);
    ck_assert_int_eq(migrate_record_read(record, &state, peer, NULL), 0);
    ck_assert_msg(state == MIGRATE_RECORD_NONE, "committed before it was kept");
    return vm->fail_keep ? error_set(err, EIO, "the disk is gone") : 0;
}

struct migrate_machine fakevm_machine(struct fakevm *vm)
{
    return (struct migrate_machine){.prepare = prepare,
                                    .suspend = suspend,
                                    .save = save,
                                    .keep = keep,
                                    .resume = resume,
                                    .opaque = vm};
}

static int offer(void *opaque, const struct wire_device *offered, size_t n, const char *machine,
                 size_t machine_len, const struct pull_options *pull, struct pull **pulls,
                 uint8_t *shares_base, struct error *err)
{
    struct fakevm *vm = opaque;

    (void)machine;
    (void)machine_len;
    (void)shares_base;
    if (n != WORLD_DEVICES)
        return error_set(err, EPROTO, "%zu devices", n);
    for (size_t d = 0; d < n; d++) {
        if (strcmp(offered[d].name, names[d]) != 0 ||
            offered[d].size != vm->world->pages[d] * BLOCK_PAGE)
            return error_set(err, EPROTO, "device %s is not ours", offered[d].name);
        struct block *below = open_file(vm->dir, names[d], vm->world->pages[d], true);
        struct block *top = pull_open(below, &pull[d], NULL, &vm->pulls[d], err);
        ck_assert_ptr_nonnull(top);
        vm->blocks[d] = top;
        pulls[d] = vm->pulls[d];
    }
    return 0;
}

static int load(void *opaque, const uint8_t *state, size_t len, struct error *err)
{
    struct fakevm *vm = opaque;
    uint8_t page[BLOCK_PAGE];

    if (vm->fail_load)
        return error_set(err, EIO, "the state does not fit");
    ck_assert_uint_eq(len, STATE_SIZE);
    vm->counter = get_le64(state);
    vm->seed = get_le64(state + len - 8);
    for (size_t d = 0; vm->take_copy && d < WORLD_DEVICES; d++)
        if (pull_wait(vm->pulls[d], err) < 0)
            return -1;
    if (vm->take_copy)
        return 1;
    /* As a VMM's devices do: loading reads guest memory, which may not be here yet. */
    return block_read(vm->blocks[1], page, sizeof(page), 0, err);
}

static int run(void *opaque, struct error *err)
{
    struct fakevm *vm = opaque;

    if (vm->fail_run)
        return error_set(err, EIO, "the processor is on fire");
    fakevm_run(vm);
    return 0;
}

static void discard(void *opaque)
{
    struct fakevm *vm = opaque;
    vm->discarded = true;
}

struct migrate_host fakevm_host(struct fakevm *vm)
{
    return (struct migrate_host){
        .offer = offer, .load = load, .run = run, .discard = discard, .opaque = vm};
}

void fakevm_check(struct fakevm *vm)
{
    uint8_t want[BLOCK_PAGE], got[BLOCK_PAGE];
    struct error err = ERROR_INIT;

    for (size_t d = 0; d < WORLD_DEVICES; d++) {
        for (uint64_t p = 0; p < vm->world->pages[d]; p++) {
            fill(want, p, atomic_load(&vm->world->last[d][p]));
            ck_assert_msg(block_read(vm->blocks[d], got, sizeof(got), p * BLOCK_PAGE, &err) == 0,
                          "%s", err.text);
            ck_assert_msg(memcmp(got, want, sizeof(got)) == 0,
                          "device %s page %llu: counter %llu, %llu wanted", names[d],
                          (unsigned long long)p, (unsigned long long)get_le64(got + 8),
                          (unsigned long long)get_le64(want + 8));
        }
    }
}
