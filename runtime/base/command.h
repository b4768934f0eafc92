/* SPDX-License-Identifier: Apache-2.0 */
/* command.h - one table per command: parsing, --help, manual page and completion come from it
 *
 * Theory of operation: a program is one `struct command` and a run function. command_main() parses
 * the arguments into the program's own options struct (each option names a member by offset), sets
 * up logging, progress, signals and exit status, and calls run(). Options are accepted as -x v,
 * -x=v,
 * --x v and --x=v, as Go's flag package does; a boolean takes its value only after '='. The first
 * word that is no option, or "--", ends them; operands follow.
 *
 * Every command also has --help, --version, --log-format text|json and --log-level LEVEL. The
 * hidden
 * --dump-command prints the table for the tools that make the manual page and the completion.
 *
 * Exit status: 0 done, 1 failed, 2 wrong usage. SIGINT and SIGTERM request cancellation (a second
 * one kills the program). Results go to stdout, everything else to stderr.
 */
#ifndef RUNTIME_BASE_COMMAND_H
#define RUNTIME_BASE_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/context.h"
#include "runtime/base/error.h"

/* The member's type stands behind each kind. */
enum option_kind {
    OPTION_FLAG,   /* bool; --x, --x=false */
    OPTION_STRING, /* const char *; NULL when there is no default */
    OPTION_TEXT,   /* const char *; a value "@FILE" is replaced by the file's content (<= 16 MiB) */
    OPTION_UINT,   /* uint64_t, min..max */
    OPTION_INT,    /* int64_t, (int64_t)min..(int64_t)max */
    OPTION_SIZE,   /* uint64_t bytes; "256M" */
    OPTION_DURATION, /* uint64_t nanoseconds; "500ms" */
    OPTION_CHOICE, /* const char *, one of choices ("a|b|c"); the member points into argv or def */
    OPTION_LIST,   /* struct option_list; may be given many times */
};

struct option_list {
    const char **items; /* owned by command_main(), valid during run() */
    size_t count;
};

struct option {
    const char *name; /* long name without dashes */
    char letter;      /* a one-letter form, 0 = none */
    enum option_kind kind;
    size_t offset;     /* of the member in the options struct */
    const char *arg;   /* what the value is called in --help; choices for OPTION_CHOICE */
    const char *def;   /* default, in the syntax of a value; NULL = none (zero) */
    const char *help;  /* one sentence or more, no line breaks */
    uint64_t min, max; /* max 0 = the type's own limit */
    bool required;
};

/* Table entry for member `m` of options struct `type`: OPTION(struct opts, out, ...). */
#define OPTION(type, m, ...)                                                                       \
    {                                                                                              \
        .offset = offsetof(type, m), __VA_ARGS__                                                   \
    }

struct command {
    const char *name;     /* of the program */
    const char *summary;  /* what it does, for the head of --help and the manual's NAME */
    const char *operands; /* how they are written in the usage line; NULL = none are taken */
    int min_operands, max_operands; /* max -1 = any number */
    const struct option *options;
    size_t n_options;
    size_t options_size; /* sizeof the options struct */
    /* Returns 0, or -1 with *err set (code ERROR_USAGE: exit status 2). opts: the options struct,
     * valid during the call. */
    int (*run)(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err);
};

/* The whole of a program's main. Returns its exit status. */
int command_main(const struct command *cmd, int argc, char **argv);

/* Parses argv[1..argc) into opts (options_size bytes, zeroed here; defaults first).
 * *ret_operand: index of the first operand. Exposed for tests. The lists and texts in opts are
 * freed with command_release(). */
int command_parse(const struct command *cmd, int argc, char **argv, void *opts, int *ret_operand,
                  struct error *err);
void command_release(const struct command *cmd, void *opts);

#endif
