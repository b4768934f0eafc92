/* SPDX-License-Identifier: Apache-2.0 */
/* unit.h - C tests on libcheck, found by the linker instead of listed
 *
 *     UNIT_TEST(parses_sizes)
 *     {
 *         ck_assert_int_eq(...);
 *     }
 *     END_TEST
 *
 * Each file is a program of its own: unit_main.c collects its tests from a linker section, runs
 * each in a process of its own and prints TAP. A test that cannot run here calls unit_skip("needs
 * root") before it asserts anything. Tests run in an empty work folder that is theirs.
 */
#ifndef TESTS_LIB_UNIT_H
#define TESTS_LIB_UNIT_H

#undef NDEBUG
#include <assert.h>
#include <check.h>
#include <stdint.h>
#include <stdlib.h>

#define UNIT_TEST(name)                                                                            \
    static const TTest *name __attribute__((unused));                                              \
    static const TTest name##_ttest;                                                               \
    static const TTest *const name##_entry __attribute__((section("unit_tests"), used)) =          \
        &name##_ttest;                                                                             \
    START_TEST(name)

/* Seconds one test of this file may take, when the default of 120 is not enough; once per file. */
#define UNIT_TIMEOUT(seconds) const int unit_timeout = (seconds)

/* Ends the running test as skipped, with the reason. */
_Noreturn void unit_skip(const char *reason);

/* The seed of random tests: $SEED, or one that changes with each run; printed when a test fails. */
uint64_t unit_seed(void);

/* xorshift64*: small, good enough, the same everywhere. state must not be 0. */
static inline uint64_t unit_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(0x2545F4914F6CDD1D);
}

#endif
