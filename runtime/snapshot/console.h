/* SPDX-License-Identifier: Apache-2.0 */
/* console.h - a machine's console, passed on and watched for a line */
#ifndef RUNTIME_SNAPSHOT_CONSOLE_H
#define RUNTIME_SNAPSHOT_CONSOLE_H

#include <stdint.h>

#include "runtime/base/context.h"
#include "runtime/base/error.h"

#define CONSOLE_LINE_MAX 4096 /* bytes of a line that are looked at */

struct console;

/* Passes what is written to console_fd() on to out_fd (-1: nowhere) until a line, without its CR
 * LF and with NULs as blanks, matches the extended regular expression, and from then on. NULL on
 * failure. */
struct console *console_new(int out_fd, const char *until, struct error *err);

/* Where the VMM writes; owned by the console. */
int console_fd(const struct console *c);

/* Waits for the line. ECANCELED with the context, ETIMEDOUT. Returns 0. */
int console_wait(struct console *c, uint64_t timeout_ns, const struct context *ctx,
                 struct error *err);

void console_free(struct console *c); /* after the VMM; NULL is fine */

#endif
