// SPDX-License-Identifier: Apache-2.0
/* unit_main.c - runs the tests of one file and prints TAP
 *
 * libcheck forks per test. A skip has no place in libcheck's results, so the child leaves its
 * reason in a file named after its test and passes; the TAP lines are written here, from both.
 */
#include "tests/lib/unit.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

extern const TTest *const __start_unit_tests[];
extern const TTest *const __stop_unit_tests[];
extern const int unit_timeout __attribute__((weak)); /* a file may define it: UNIT_TIMEOUT() */

#define DEFAULT_TIMEOUT 120

static uint64_t seed;

_Noreturn void unit_skip(const char *reason)
{
    char path[64];
    /* The parent knows the child by its pid only through the order of results: one file a test. */
    (void)snprintf(path, sizeof(path), "skip.%s", getenv("UNIT_CURRENT") ?: "x");
    FILE *f = fopen(path, "w");
    if (f) {
        (void)fputs(reason, f);
        (void)fclose(f);
    }
    exit(0);
}

uint64_t unit_seed(void)
{
    return seed;
}

static void print_yaml(const char *text)
{
    printf("  # ");
    for (; *text; text++) {
        putchar(*text);
        if (*text == '\n')
            printf("  # ");
    }
    printf("\n");
}

/* Runs one test as a suite of its own. Returns 1 when it failed. */
static int run_one(const TTest *test, int number)
{
    char skip[64], reason[256] = "";
    Suite *suite = suite_create(test->name);
    TCase *tcase = tcase_create(test->name);

    (void)snprintf(skip, sizeof(skip), "%d", number);
    (void)setenv("UNIT_CURRENT", skip, 1);
    (void)snprintf(skip, sizeof(skip), "skip.%d", number);
    tcase_set_timeout(tcase, &unit_timeout ? unit_timeout : DEFAULT_TIMEOUT);
    tcase_add_test(tcase, test);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_SILENT);
    int failed = srunner_ntests_failed(runner);
    FILE *f = fopen(skip, "r");
    if (f) {
        if (!fgets(reason, sizeof(reason), f))
            reason[0] = '\0';
        (void)fclose(f);
        (void)unlink(skip);
    }
    printf("%s %d - %s%s%s\n", failed ? "not ok" : "ok", number, test->name,
           *reason ? " # SKIP " : "", reason);
    if (failed) {
        TestResult **results = srunner_failures(runner);
        char where[512];
        (void)snprintf(where, sizeof(where), "%s:%d: %s (SEED=%llu)", tr_lfile(results[0]),
                       tr_lno(results[0]), tr_msg(results[0]), (unsigned long long)seed);
        print_yaml(where);
        free(results);
    }
    srunner_free(runner);
    (void)fflush(stdout);
    return failed != 0;
}

int main(int argc, char **argv)
{
    const char *env = getenv("SEED");
    const char *only = argc > 1 ? argv[1] : NULL;
    int failed = 0, number = 0;

    seed = env ? strtoull(env, NULL, 0) : (uint64_t)time(NULL) * 2654435761u ^ (uint64_t)getpid();
    seed += !seed;
    setbuf(stdout, NULL);
    printf("1..%td\n", only ? 1 : __stop_unit_tests - __start_unit_tests);
    for (const TTest *const *t = __start_unit_tests; t < __stop_unit_tests; t++)
        if (!only || strcmp((*t)->name, only) == 0)
            failed |= run_one(*t, ++number);
    return failed || (only && !number);
}
