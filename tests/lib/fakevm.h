/* SPDX-License-Identifier: Apache-2.0 */
/* fakevm.h - a machine without a VMM, for tests of migration
 *
 * A "guest" thread writes to its devices as a guest would: it picks a device and a page at random
 * and writes the page's number and a counter all over it. The counter it wrote last is kept per
 * page outside the devices, in a world that both hosts share, so a test can say after any number of
 * moves which content every page must have. The world also counts who runs: two at once is the one
 * thing that must never be.
 */
#ifndef TESTS_LIB_FAKEVM_H
#define TESTS_LIB_FAKEVM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/block/block.h"
#include "runtime/migrate/migrate.h"

#define WORLD_DEVICES 2

struct world {
    uint64_t pages[WORLD_DEVICES];         /* of each device */
    _Atomic uint64_t *last[WORLD_DEVICES]; /* counter written last to a page; 0 = zeros */
    atomic_uint running;                   /* machines that run right now */
    atomic_bool split_brain;               /* two did */
    atomic_ullong writes;
};

/* Works in a folder in memory from here on, removed when the test's process ends: what is tested is
 * order, not how long a disk takes to sync. */
void fakevm_work_in_memory(void);

void world_init(struct world *w, uint64_t pages0, uint64_t pages1);
void world_destroy(struct world *w);

struct fakevm {
    struct world *world;
    char dir[64]; /* where its devices lie */
    struct block *blocks[WORLD_DEVICES];
    struct pull *pulls[WORLD_DEVICES];
    uint64_t seed, counter;
    pthread_t guest;
    bool has_guest;
    atomic_bool stop;
    unsigned rate; /* writes between two breaths; 0 = a guest that writes nothing */
    bool fail_load, fail_run, fail_suspend, fail_save, fail_prepare, fail_keep;
    /* suspend() and save() call it at their end, when no guest runs: a VMM that writes memory late.
     * May be NULL. */
    void (*late)(struct fakevm *vm, bool saving);
    bool half_suspend;       /* suspend() fails when the guest stands still already */
    unsigned resumed;        /* how often resume() was called */
    bool take_copy;          /* load() waits for everything, and wants no more */
    unsigned prepared, kept; /* how often; keep() also asserts that nothing was committed yet */
    bool discarded;
};

/* A machine whose devices are files of zeros in `dir` (made), with a dirty filter on top. */
void fakevm_make(struct fakevm *vm, struct world *world, const char *dir, uint64_t seed);
/* A host without a machine; fakevm_host() makes it one. */
void fakevm_empty(struct fakevm *vm, struct world *world, const char *dir, uint64_t seed);
/* Stops the guest, closes the devices. */
void fakevm_destroy(struct fakevm *vm);

/* The guest runs, or stands still after its current write. */
void fakevm_run(struct fakevm *vm);
void fakevm_stand_still(struct fakevm *vm);

/* Writes every page of every device, as a guest would; that of a guest whose rate is 0 only. */
void fakevm_write_all(struct fakevm *vm);

/* For migrate_send() and migrate_receive(). devices: WORLD_DEVICES of them. */
void fakevm_devices(struct fakevm *vm, struct migrate_device *devices);
struct migrate_machine fakevm_machine(struct fakevm *vm);
struct migrate_host fakevm_host(struct fakevm *vm);

/* Compares every page with the world; aborts the test with the first that differs. The guest stands
 * still. */
void fakevm_check(struct fakevm *vm);

#endif
