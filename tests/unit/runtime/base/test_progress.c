// SPDX-License-Identifier: Apache-2.0
/* test_progress.c - what a person sees of a long act: on a terminal, and in a log */
#include <fcntl.h>
#include <poll.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/progress.h"
#include "tests/lib/unit.h"

#define MIB (UINT64_C(1) << 20)

/* A terminal: what is drawn on *ret_slave is read from the result. */
static int open_terminal(int *ret_slave)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (master < 0)
        unit_skip("no pseudo terminals here");
    ck_assert_int_eq(grantpt(master), 0);
    ck_assert_int_eq(unlockpt(master), 0);
    *ret_slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    ck_assert_int_ge(*ret_slave, 0);
    return master;
}

/* Adds what is there to read to text. */
static void look(int fd, char *text, size_t size)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    while (poll(&p, 1, 0) == 1) {
        size_t len = strlen(text);
        ssize_t n = read(fd, text + len, size - 1 - len);
        if (n <= 0)
            return;
        text[len + (size_t)n] = '\0';
    }
}

static bool matches(const char *text, const char *pattern)
{
    regex_t re;

    ck_assert_int_eq(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool yes = regexec(&re, text, 0, NULL, 0) == 0;
    regfree(&re);
    return yes;
}

UNIT_TEST(a_bar_on_a_terminal)
{
    const struct timespec nap = {.tv_nsec = 20000000};
    struct progress_line line;
    char text[65536] = "";
    int slave, master = open_terminal(&slave);

    progress_line_init(&line, slave, NULL, false);
    progress_line_report(&line, "copy", 64 * MIB, 256 * MIB, "bytes");
    look(master, text, sizeof(text));
    ck_assert_msg(matches(text, "copy +\\[######------------------\\] +25% 64\\.0 MiB$"), "%s",
                  text);
    /* Another phase begins a line of its own, at once. */
    progress_line_report(&line, "settle 3", 128 * MIB, 256 * MIB, "bytes");
    look(master, text, sizeof(text));
    ck_assert_msg(matches(text, "settle 3 +\\[############------------\\] +50% 128\\.0 MiB$"), "%s",
                  text);
    /* The rate, and when it will be over, once a second has shown how fast it is: 0.1 MiB a nap. */
    for (uint64_t done = 128 * MIB; !strstr(text, " left"); done += MIB / 10) {
        progress_line_report(&line, "settle 3", done, 256 * MIB, "bytes");
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        look(master, text, sizeof(text));
    }
    ck_assert_msg(matches(text, "5[0-9]% [0-9]+\\.[0-9] MiB, [0-9]+\\.[0-9] MiB/s, [0-9]+ s left"),
                  "%s", text);
    double rate = strtod(strstr(text, " MiB, ") + 6, NULL);
    double left = strtod(strstr(text, " MiB/s, ") + 8, NULL);
    ck_assert_msg(rate > 0 && left * rate > 100 && left * rate < 150, "%f MiB/s, %f s", rate, left);
    progress_line_finish(&line);
    look(master, text, sizeof(text));
    ck_assert_str_eq(text + strlen(text) - 4, "\r\033[K"); /* nothing of it stays */
    (void)close(master);
    (void)close(slave);
}
END_TEST

UNIT_TEST(without_a_total_there_is_no_bar)
{
    struct progress_line line;
    char text[4096] = "";
    int slave, master = open_terminal(&slave);

    progress_line_init(&line, slave, NULL, false);
    progress_line_report(&line, "unpack", 1234, 0, "files");
    look(master, text, sizeof(text));
    ck_assert_msg(matches(text, "unpack +1234 files$"), "%s", text);
    progress_line_report(&line, "check", 9, 6, "files"); /* more than there should be */
    look(master, text, sizeof(text));
    ck_assert_ptr_nonnull(strstr(text, "100%"));
    progress_line_finish(&line);
    (void)close(master);
    (void)close(slave);
}
END_TEST

UNIT_TEST(nothing_is_drawn_elsewhere)
{
    struct progress_line line;
    char text[4096] = "";
    int fds[2], slave, master = open_terminal(&slave);

    ck_assert_int_eq(pipe(fds), 0);
    progress_line_init(&line, fds[1], NULL, false);
    progress_line_report(&line, "copy", 1, 2, "bytes");
    progress_line_report(&line, "settle 1", 2, 2, "bytes");
    progress_line_finish(&line);
    progress_line_init(&line, slave, NULL, true); /* lines of a log are wanted */
    progress_line_report(&line, "copy", 1, 2, "bytes");
    progress_line_finish(&line);
    look(fds[0], text, sizeof(text));
    look(master, text, sizeof(text));
    ck_assert_str_eq(text, "");
    (void)close(fds[0]);
    (void)close(fds[1]);
    (void)close(master);
    (void)close(slave);
}
END_TEST
