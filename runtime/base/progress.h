/* SPDX-License-Identifier: Apache-2.0 */
/* progress.h - a progress receiver for commands: a bar on a terminal, sparse plain lines elsewhere
 *
 * On a terminal one line (phase, bar, amount; after a second, rate and time left) is redrawn ten
 * times a second at most and wiped at the end, so that what stays on the screen is only results and
 * events. Elsewhere an act that takes longer than five seconds is logged every five ("working",
 * with phase, done, total), and a short one not at all.
 */
#ifndef RUNTIME_BASE_PROGRESS_H
#define RUNTIME_BASE_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/log.h"

struct progress_line {
    int fd;
    bool terminal;
    const struct log *log;
    pthread_mutex_t lock; /* guards what follows */
    bool drawn;           /* a line stands on the terminal */
    uint64_t last_ns;     /* when it was drawn or logged last */
    uint64_t phase_ns;    /* when the phase began */
    uint64_t phase_done;  /* what was done then, for the rate */
    char phase[32];
};

/* plain: log lines even on a terminal (for --log-format json). log: outlives the line. */
void progress_line_init(struct progress_line *line, int fd, const struct log *log, bool plain);

/* A `struct progress` report function; opaque is the line. Thread safe. */
void progress_line_report(void *opaque, const char *phase, uint64_t done, uint64_t total,
                          const char *unit);

/* Wipes what is drawn. */
void progress_line_finish(struct progress_line *line);

#endif
