// SPDX-License-Identifier: Apache-2.0
/* ticks.c - a client outside: when did the guest last speak here, and when first there
 *
 *     ticks SOURCE TARGET >RESULT
 *
 * SOURCE and TARGET are FIFOs that carry the consoles of the test guest (tests/guest/testguest.h)
 * before and after a move. Once the target has said "tick", one line is printed:
 *     GAP-MS START-S WRITES-FIRST WRITES-LAST
 * the time between the last complete tick line of the source and the first of the target; when the
 * target first spoke; and what the guest had written at the first and the last tick of the source
 * since the line "mark" was written into SOURCE (by whoever starts the move). Both are read to
 * their end or until the program is killed, so that no console ever blocks.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct side {
    int fd;
    char line[256];
    size_t len;
    double first, last; /* tick lines, seconds; 0 = none */
    unsigned long long first_writes, last_writes;
};

static double now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void hear_line(struct side *s, double when)
{
    unsigned long long tick, writes;

    s->line[s->len] = '\0';
    if (strstr(s->line, "mark")) {
        s->first = 0;
        return;
    }
    if (sscanf(s->line, "tick %llu writes=%llu", &tick, &writes) != 2)
        return;
    if (s->first == 0) {
        s->first = when;
        s->first_writes = writes;
    }
    s->last = when;
    s->last_writes = writes;
}

static void hear(struct side *s)
{
    char buf[4096];
    ssize_t n = read(s->fd, buf, sizeof(buf));
    double when = now();

    for (ssize_t i = 0; i < n; i++) {
        if (buf[i] == '\r')
            continue;
        if (buf[i] == '\n' || s->len == sizeof(s->line) - 1) {
            hear_line(s, when);
            s->len = 0;
        } else {
            s->line[s->len++] = buf[i];
        }
    }
}

int main(int argc, char **argv)
{
    struct side side[2] = {{0}};
    bool said = false;

    if (argc != 3)
        return 2;
    for (int i = 0; i < 2; i++) {
        side[i].fd = open(argv[1 + i], O_RDWR | O_CLOEXEC);
        if (side[i].fd < 0) {
            perror(argv[1 + i]);
            return 1;
        }
    }
    for (;;) {
        struct pollfd p[2] = {{.fd = side[0].fd, .events = POLLIN},
                              {.fd = side[1].fd, .events = POLLIN}};
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return 1;
        for (int i = 0; i < 2; i++)
            if (p[i].revents)
                hear(&side[i]);
        if (!said && side[1].first > 0 && side[0].last > 0) {
            said = true;
            printf("%.2f %.6f %llu %llu\n", (side[1].first - side[0].last) * 1e3, side[1].first,
                   side[0].first_writes, side[0].last_writes);
            (void)fflush(stdout);
        }
    }
}
