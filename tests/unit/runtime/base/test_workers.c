// SPDX-License-Identifier: Apache-2.0
/* test_workers.c - the thread pool; threads: yes */
#include <errno.h>
#include <stdatomic.h>

#include "runtime/base/workers.h"
#include "tests/lib/unit.h"

static atomic_int done, dropped;

static int work(void *job, struct error *err)
{
    if (job)
        return error_set(err, EIO, "job failed");
    atomic_fetch_add(&done, 1);
    return 0;
}

static void drop(void *job)
{
    (void)job;
    atomic_fetch_add(&dropped, 1);
}

UNIT_TEST(all_jobs_run)
{
    struct error err;
    struct workers *w = workers_new(4, 3, &err);

    ck_assert_ptr_nonnull(w);
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(workers_submit(w, work, drop, NULL, &err), 0);
    ck_assert_int_eq(workers_finish(w, &err), 0);
    ck_assert_int_eq(done, 1000);
    ck_assert_int_eq(dropped, 0);
    workers_free(w);
}
END_TEST

UNIT_TEST(first_failure_stops)
{
    struct error err;
    struct workers *w = workers_new(2, 4, &err);
    int rc = 0, n = 0;

    ck_assert_int_eq(workers_submit(w, work, drop, w, &err), 0);
    while (rc == 0) { /* bounded: the failure is seen as soon as a worker ran the first job */
        rc = workers_submit(w, work, drop, NULL, &err);
        n++;
    }
    ck_assert_str_eq(err.text, "job failed");
    ck_assert_int_eq(workers_finish(w, &err), -1);
    ck_assert_int_eq(err.code, EIO);
    workers_free(w);
    ck_assert_int_eq(done + dropped, n);
}
END_TEST
