// SPDX-License-Identifier: Apache-2.0
/* test_migration.c - migrations over a wire that does harm at a random point; threads: yes
 *
 * Whatever the wire does, the rule holds: one side at most runs the machine, nothing is lost,
 * memory and disk match the reference wherever it runs, a failure says why, and the next try
 * succeeds.
 */
#include <stdio.h>
#include <string.h>

#include "tests/lib/moves.h"
#include "tests/lib/unit.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define POINTS 150
#else
#define POINTS 600
#endif

UNIT_TIMEOUT(900);

static const uint8_t source_types[] = {0,           FRAME_OFFER,     FRAME_DATA,   FRAME_ABSENT,
                                       FRAME_STATE, FRAME_SUSPENDED, FRAME_COMMIT, FRAME_BYE};
static const uint8_t target_types[] = {0,           FRAME_ACCEPT,  FRAME_WANT,
                                       FRAME_READY, FRAME_RUNNING, FRAME_DONE};

static struct relay_fault random_fault(uint64_t *seed)
{
    struct relay_fault f = {.harm = 1 + unit_random(seed) % (HARMS - 1),
                            .where = unit_random(seed) % HARM_WHERES,
                            .direction = unit_random(seed) % 2};

    f.type = f.direction ? target_types[unit_random(seed) % sizeof(target_types)]
                         : source_types[unit_random(seed) % sizeof(source_types)];
    if (f.type == 0 || f.type == FRAME_DATA)
        f.number = unit_random(seed) % 80;
    else if (f.type == FRAME_WANT || f.type == FRAME_ABSENT)
        f.number = unit_random(seed) % 4;
    return f;
}

static const char *const harms[HARMS] = {"none", "cut", "corrupt", "stall", "repeat", "drop"};

UNIT_TEST(harm_at_any_point)
{
    uint64_t seed = unit_seed();
    unsigned struck = 0, moved = 0, stayed = 0;

    fakevm_work_in_memory();

    for (int i = 0; i < POINTS; i++) {
        struct world world;
        struct fakevm a, b, c;
        uint64_t before = seed;
        struct move m = {.fault = random_fault(&seed)};
        struct migrate_send_options *o = &m.send;

        o->idle_ns = m.fault.harm == HARM_STALL ? 150000000 : UINT64_C(600000000);
        o->postcopy = unit_random(&seed) % 3;
        o->zstd_level = unit_random(&seed) % 2;
        o->concurrency = 1 + unit_random(&seed) % 3;
        world_init(&world, 40 + unit_random(&seed) % 200, 40 + unit_random(&seed) % 200);
        fakevm_make(&a, &world, "a", unit_random(&seed));
        fakevm_empty(&b, &world, "b", 1);
        a.rate = b.rate = 1 + unit_random(&seed) % 8;
        fakevm_run(&a);
        printf("# %d: %s %s %u, where %d (seed %llu)\n", i, harms[m.fault.harm],
               frame_name(m.fault.type), m.fault.number, m.fault.where, (unsigned long long)before);
        move_run(&m, &a, &b);
        printf("#   source %llu ms: %s; target %llu ms: %s\n",
               (unsigned long long)m.source.total_ns / 1000000, m.source_err.text,
               (unsigned long long)m.target.total_ns / 1000000, m.target_err.text);
        struct fakevm *owner = move_check(&m, &a, &b);
        struck += m.struck;
        moved += owner == &b;
        stayed += owner == &a;
        /* The next try, over a good wire, from wherever it is. */
        if (owner == &a) {
            struct move again = {0};
            fakevm_destroy(&b);
            fakevm_empty(&c, &world, "c", 1);
            c.rate = 2;
            fakevm_run(&a);
            move_run(&again, &a, &c);
            ck_assert_msg(again.source_rc == 0, "the next try: %s", again.source_err.text);
            ck_assert_ptr_eq(move_check(&again, &a, &c), &c);
            fakevm_destroy(&c);
        }
        fakevm_destroy(&a);
        fakevm_destroy(&b);
        world_destroy(&world);
    }
    printf("# %u of %d points struck, %u moved, %u stayed\n", struck, POINTS, moved, stayed);
    ck_assert_uint_ge(struck, POINTS / 2);
    ck_assert_uint_gt(moved, 0);
    ck_assert_uint_gt(stayed, 0);
}
END_TEST
