// SPDX-License-Identifier: Apache-2.0
/* command.c - the frame of every program: logging, signals, --help, exit status */
#include "runtime/base/command.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/progress.h"

#ifndef DRAFTER_VERSION
#define DRAFTER_VERSION "unknown"
#endif

#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define HELP_WIDTH 80

/* The options every command has, behind its own. They live in `struct frame`, not in the command's
 * struct, so the table below is parsed by a command of its own. */
struct frame {
    bool help, version, dump;
    const char *log_format, *log_level;
};

static const struct option frame_options[] = {
    OPTION(struct frame, log_format, .name = "log-format", .kind = OPTION_CHOICE,
           .arg = "text|json", .def = "text", .help = "How events are written to stderr."),
    OPTION(struct frame, log_level, .name = "log-level", .kind = OPTION_CHOICE,
           .arg = "debug|info|warn|error", .def = "info", .help = "The least event written."),
    OPTION(struct frame, help, .name = "help", .letter = 'h', .kind = OPTION_FLAG,
           .help = "Print this and exit."),
    OPTION(struct frame, version, .name = "version", .kind = OPTION_FLAG,
           .help = "Print the version and exit."),
    OPTION(struct frame, dump, .name = "dump-command", .kind = OPTION_FLAG,
           .help = ""), /* hidden: no help text */
};

/* Prints text wrapped at HELP_WIDTH, every line indented. */
static void print_wrapped(const char *text, int indent)
{
    int column = 0;

    while (*text) {
        int n = (int)strcspn(text, " ");
        if (column > 0 && column + 1 + n > HELP_WIDTH) {
            printf("\n");
            column = 0;
        }
        column += printf("%*s%.*s", column ? 1 : indent, "", n, text);
        text += n;
        text += strspn(text, " ");
    }
    printf("\n");
}

static const char *argument_name(const struct option *o)
{
    if (o->kind == OPTION_FLAG)
        return NULL;
    return o->arg ? o->arg : "VALUE";
}

static void print_option(const struct option *o)
{
    char text[2048];
    const char *arg = argument_name(o);

    if (!*o->help)
        return;
    printf("  ");
    if (o->letter)
        printf("-%c, ", o->letter);
    printf("--%s%s%s\n", o->name, arg ? " " : "", arg ? arg : "");
    const char *stop = o->help[strlen(o->help) - 1] == '.' ? "" : ".";
    (void)snprintf(text, sizeof(text), "%s%s%s%s%s%s", o->help, stop,
                   o->required ? " Required." : "", o->def && *o->def ? " Default: " : "",
                   o->def && *o->def ? o->def : "", o->def && *o->def ? "." : "");
    print_wrapped(text, 8);
}

static void print_help(const struct command *cmd)
{
    printf("Usage: %s [OPTION...]%s%s\n\n", cmd->name, cmd->operands ? " " : "",
           cmd->operands ? cmd->operands : "");
    print_wrapped(cmd->summary, 0);
    printf("\nOptions:\n");
    for (size_t i = 0; i < cmd->n_options; i++)
        print_option(&cmd->options[i]);
    for (size_t i = 0; i < ARRAY_SIZE(frame_options); i++)
        print_option(&frame_options[i]);
}

/* One line a fact, fields separated by tabs: what the manual page and completion are made from. */
static void dump_options(const struct option *options, size_t n)
{
    static const char *const kinds[] = {"flag", "string",   "text",   "uint", "int",
                                        "size", "duration", "choice", "list"};
    for (size_t i = 0; i < n; i++) {
        const struct option *o = &options[i];
        const char *arg = argument_name(o);
        if (!*o->help)
            continue;
        printf("option\t%s\t%c\t%s\t%s\t%s\t%s\t%s\n", o->name, o->letter ? o->letter : '-',
               kinds[o->kind], arg ? arg : "-", o->def && *o->def ? o->def : "-",
               o->required ? "required" : "-", o->help);
    }
}

static void dump_command(const struct command *cmd)
{
    printf("name\t%s\nsummary\t%s\noperands\t%s\n", cmd->name, cmd->summary,
           cmd->operands ? cmd->operands : "-");
    dump_options(cmd->options, cmd->n_options);
    dump_options(frame_options, ARRAY_SIZE(frame_options));
}

/* The command's options and the frame's in one table; the frame's live behind the command's. */
static struct option *merge_tables(const struct command *cmd, size_t frame_offset)
{
    size_t n = cmd->n_options, m = ARRAY_SIZE(frame_options);
    struct option *all = calloc(n + m, sizeof(*all));

    if (!all)
        return NULL;
    if (n)
        memcpy(all, cmd->options, n * sizeof(*all));
    for (size_t i = 0; i < m; i++) {
        all[n + i] = frame_options[i];
        all[n + i].offset += frame_offset;
    }
    return all;
}

static void *take_signals(void *opaque)
{
    struct cancel *cancel = opaque;
    sigset_t set;
    int sig;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (sigwait(&set, &sig) != 0)
        return NULL;
    cancel_request(cancel);
    /* timeout(1) and shells signal a child and its group: the same wish, twice. */
    const struct timespec grace = {.tv_sec = 1};
    while (sigtimedwait(&set, NULL, &grace) > 0)
        ;
    /* From here on a second signal ends the program at once. */
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    for (;;)
        pause();
    return NULL;
}

/* Blocks SIGINT and SIGTERM in all threads and has one thread turn them into a request. */
static int start_signals(struct cancel *cancel, struct error *err)
{
    sigset_t set, hup, before;
    pthread_t thread;

    (void)signal(SIGPIPE, SIG_IGN);
    if (cancel_init(cancel, err) < 0)
        return -1;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    /* A command may take SIGHUP by a signalfd, which it can only when no other thread lets it in.
     */
    sigemptyset(&hup);
    sigaddset(&hup, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &hup, &before);
    int rc = pthread_create(&thread, NULL, take_signals, cancel);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        return error_num(err, rc, "start the signal thread");
    pthread_detach(thread);
    return 0;
}

/* Deep trees and many devices need many descriptors; the hard limit is what the host allows. */
static void raise_fd_limit(void)
{
    struct rlimit rl;

    if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
        rl.rlim_cur = rl.rlim_max < 65536 ? rl.rlim_max : 65536;
        (void)setrlimit(RLIMIT_NOFILE, &rl);
    }
}

static int run(const struct command *cmd, const void *opts, const struct frame *frame, int argc,
               char **argv, struct error *err)
{
    static struct cancel cancel = {.fd = -1}; /* outlives main for the signal thread */
    int fd = STDERR_FILENO;
    bool json = strcmp(frame->log_format, "json") == 0;
    struct log log = {.sink = json ? log_sink_json : log_sink_text, .opaque = &fd};
    struct progress_line line;
    struct progress progress;

    (void)log_level_parse(frame->log_level, &log.level);
    raise_fd_limit();
    if (start_signals(&cancel, err) < 0)
        return -1;
    progress_line_init(&line, STDERR_FILENO, &log, json);
    progress = (struct progress){.report = progress_line_report, .opaque = &line};
    struct context ctx = {.log = &log, .progress = &progress, .cancel = &cancel};
    int rc = cmd->run(opts, argc, argv, &ctx, err);
    progress_line_finish(&line);
    if (rc == 0 && (fflush(stdout) != 0 || ferror(stdout)))
        rc = error_sys(err, "write to stdout");
    return rc;
}

/* Names from outside end up in error texts: their control bytes must not reach a terminal. */
static void print_error(const char *name, const char *text)
{
    (void)fprintf(stderr, "%s: ", name);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < ' ' || *p == 0x7f)
            (void)fprintf(stderr, "\\x%02x", *p);
        else
            (void)fputc(*p, stderr);
    }
    (void)fputc('\n', stderr);
}

static int fail(const struct command *cmd, const struct error *err, const char *log_format)
{
    if (log_format && strcmp(log_format, "json") == 0) {
        int fd = STDERR_FILENO;
        struct log log = {.sink = log_sink_json, .opaque = &fd};
        log_event(&log, LOG_LEVEL_ERROR, "failed", log_fields(log_str("error", err->text)));
    } else {
        print_error(cmd->name, err->text);
        if (err->code == ERROR_USAGE)
            (void)fprintf(stderr, "%s: see %s --help\n", cmd->name, cmd->name);
    }
    return err->code == ERROR_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

int command_main(const struct command *cmd, int argc, char **argv)
{
    const size_t frame_offset = (cmd->options_size + 15) & ~(size_t)15;
    struct command all = *cmd;
    struct error err = ERROR_INIT;
    int operand = 0, rc;

    cleanup_free struct option *table = merge_tables(cmd, frame_offset);
    cleanup_free void *opts = calloc(1, frame_offset + sizeof(struct frame));
    if (!table || !opts) {
        error_oom(&err);
        return fail(cmd, &err, NULL);
    }
    const struct frame *frame = (void *)((char *)opts + frame_offset);
    all.options = table;
    all.n_options += ARRAY_SIZE(frame_options);
    all.options_size = frame_offset + sizeof(struct frame);
    rc = command_parse(&all, argc, argv, opts, &operand, &err);
    /* --help is honoured even where the rest is wrong or incomplete. */
    if (frame->help || frame->version || frame->dump) {
        if (frame->help)
            print_help(cmd);
        else if (frame->version)
            printf("%s (drafter) %s\n", cmd->name, DRAFTER_VERSION);
        else
            dump_command(cmd);
        rc = fflush(stdout) == 0 ? 0 : EXIT_FAILED;
    } else {
        if (rc == 0)
            rc = run(cmd, opts, frame, argc - operand, argv + operand, &err);
        rc = rc < 0 ? fail(cmd, &err, frame->log_format) : 0;
    }
    command_release(&all, opts);
    return rc;
}
