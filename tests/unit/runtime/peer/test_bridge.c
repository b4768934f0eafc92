// SPDX-License-Identifier: Apache-2.0
/* test_bridge.c - which requests reach an act, and which come too late for it; threads: yes */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/peer/bridge.h"
#include "tests/lib/unit.h"

#define WAIT_MS 60000

/* Whether the act is cancelled within a minute. */
static bool cancelled(struct bridge *b)
{
    struct pollfd p = {.fd = b->cancel.fd, .events = POLLIN};

    return poll(&p, 1, WAIT_MS) == 1 && context_check(&b->ctx, NULL) < 0;
}

/* The thread has taken the word out. */
static void wait_heard(int word)
{
    struct pollfd p = {.fd = word, .events = POLLIN};

    while (poll(&p, 1, 0) == 1)
        (void)poll(NULL, 0, 1);
}

UNIT_TEST(what_is_heard_cancels)
{
    struct error err = ERROR_INIT;
    struct cancel above;
    struct context ctx = {.cancel = &above};
    struct bridge b;
    int word = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    ck_assert_int_eq(cancel_init(&above, &err), 0);
    ck_assert_msg(bridge_start(&b, &ctx, word, &err) == 0, "%s", err.text);
    ck_assert_int_eq(context_check(&b.ctx, NULL), 0);
    ck_assert_int_eq(eventfd_write(word, 1), 0);
    ck_assert(cancelled(&b));
    ck_assert_int_eq(context_check(&ctx, NULL), 0); /* not the one above */
    bridge_stop(&b);
    ck_assert_msg(bridge_start(&b, &ctx, word, &err) == 0, "%s", err.text);
    cancel_request(&above);
    ck_assert(cancelled(&b));
    bridge_deafen(&b, "too late to forget it");
    ck_assert_int_eq(context_check(&b.ctx, NULL), -1);
    bridge_stop(&b);
    cancel_destroy(&above);
    (void)close(word);
}
END_TEST

/* However the two race: what context_check() says behind bridge_deafen() it says for good. */
UNIT_TEST(behind_deafen_nothing_changes)
{
    for (int i = 0; i < 300; i++) {
        struct error err = ERROR_INIT;
        struct cancel above;
        struct context ctx = {.cancel = &above};
        struct bridge b;
        int word = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

        ck_assert_int_eq(cancel_init(&above, &err), 0);
        ck_assert_msg(bridge_start(&b, &ctx, word, &err) == 0, "%s", err.text);
        if (i % 2)
            cancel_request(&above);
        else
            ck_assert_int_eq(eventfd_write(word, 1), 0);
        for (volatile int n = 0; n < i * 100; n++)
            continue;
        bridge_deafen(&b, "the test says so");
        const int was = context_check(&b.ctx, NULL);
        ck_assert_int_eq(eventfd_write(word, 1), 0);
        wait_heard(word);
        cancel_request(&above);
        bridge_stop(&b);
        ck_assert_int_eq(context_check(&b.ctx, NULL), was);
        cancel_destroy(&above);
        (void)close(word);
    }
}
END_TEST
