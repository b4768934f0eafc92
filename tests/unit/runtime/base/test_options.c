// SPDX-License-Identifier: Apache-2.0
/* test_options.c - arguments into a struct by a table, and the frame of a program around it */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/command.h"
#include "runtime/base/io.h"
#include "tests/lib/unit.h"

struct opts {
    bool flag;
    const char *string, *choice;
    const char *text;
    uint64_t count, size, wait;
    int64_t shift;
    struct option_list list;
};

static const struct option options[] = {
    OPTION(struct opts, flag, .name = "flag", .letter = 'f', .kind = OPTION_FLAG, .help = "F."),
    OPTION(struct opts, string, .name = "string", .letter = 's', .kind = OPTION_STRING,
           .help = "S.", .def = "none"),
    OPTION(struct opts, text, .name = "text", .kind = OPTION_TEXT, .help = "T, as it is given"),
    OPTION(struct opts, choice, .name = "choice", .kind = OPTION_CHOICE, .arg = "red|green",
           .def = "red", .help = "C."),
    OPTION(struct opts, count, .name = "count", .kind = OPTION_UINT, .min = 2, .max = 9, .def = "3",
           .help = "N."),
    OPTION(struct opts, shift, .name = "shift", .kind = OPTION_INT, .help = "I."),
    OPTION(struct opts, size, .name = "size", .kind = OPTION_SIZE, .min = 1024, .help = "Z."),
    OPTION(struct opts, wait, .name = "wait", .kind = OPTION_DURATION, .help = "D."),
    OPTION(struct opts, list, .name = "list", .kind = OPTION_LIST, .help = "L."),
};

static int run(const void *o, int argc, char **argv, const struct context *ctx, struct error *err)
{
    const struct opts *opts = o;

    (void)ctx;
    if (opts->flag)
        return error_set(err, EIO, "bad\033thing");
    if (argc && strcmp(argv[0], "usage") == 0)
        return error_set(err, ERROR_USAGE, "not like this");
    printf("%s %d\n", opts->string, argc);
    return 0;
}

static struct command make(void)
{
    return (struct command){.name = "prog",
                            .summary = "does things",
                            .operands = "[FILE...]",
                            .max_operands = 2,
                            .options = options,
                            .n_options = ARRAY_SIZE(options),
                            .options_size = sizeof(struct opts),
                            .run = run};
}

/* Parses words separated by blanks. Returns the index of the first operand, or -1. */
static int parse(const struct command *cmd, const char *line, struct opts *opts, struct error *err)
{
    static char words[512], *rest;
    static char name[] = "prog";
    char *argv[32] = {name};
    int argc = 1, operand = 0;

    (void)snprintf(words, sizeof(words), "%s", line);
    for (char *w = strtok_r(words, " ", &rest); w; w = strtok_r(NULL, " ", &rest))
        argv[argc++] = w;
    *err = (struct error)ERROR_INIT;
    int rc = command_parse(cmd, argc, argv, opts, &operand, err);
    return rc < 0 ? -1 : operand;
}

UNIT_TEST(ways_to_write)
{
    static const char *const forms[] = {"-string v -f x",    "--string v --flag x",
                                        "-string=v -flag x", "--string=v --flag=true x",
                                        "-s v -f -- x",      "-s=v -f=1 x"};
    struct command cmd = make();
    struct opts o;
    struct error err;

    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        int operand = parse(&cmd, forms[i], &o, &err);
        ck_assert_msg(operand > 0, "%s: %s", forms[i], err.text);
        ck_assert_str_eq(o.string, "v");
        ck_assert(o.flag);
        command_release(&cmd, &o);
    }
    /* A flag's value stands behind '=' only; the first operand ends the options; "-" is one. */
    ck_assert_int_eq(parse(&cmd, "--flag false", &o, &err), 2);
    ck_assert(o.flag);
    ck_assert_int_eq(parse(&cmd, "--flag=false", &o, &err), 2);
    ck_assert(!o.flag);
    ck_assert_int_eq(parse(&cmd, "x --flag", &o, &err), 1);
    ck_assert(!o.flag);
    ck_assert_int_eq(parse(&cmd, "- -f", &o, &err), 1);
    ck_assert_int_eq(parse(&cmd, "-s --flag", &o, &err), 3);
    ck_assert_str_eq(o.string, "--flag");
}
END_TEST

UNIT_TEST(kinds)
{
    struct command cmd = make();
    struct opts o;
    struct error err;

    ck_assert_int_eq(parse(&cmd, "", &o, &err), 1);
    ck_assert_str_eq(o.string, "none");
    ck_assert_str_eq(o.choice, "red");
    ck_assert_ptr_null(o.text);
    ck_assert_uint_eq(o.count, 3);
    ck_assert_uint_eq(o.list.count, 0);
    int fd = open("f", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ck_assert_int_eq(io_write(fd, "from a file\n", 12, "f", &err), 0);
    close(fd);
    int operand = parse(&cmd,
                        "--text @f --choice green --count 9 --shift -7 --size 2K --wait 1.5s "
                        "--list a --list=b --list=",
                        &o, &err);
    ck_assert_msg(operand > 0, "%s", err.text);
    ck_assert_str_eq(o.text, "from a file\n");
    ck_assert_str_eq(o.choice, "green");
    ck_assert_uint_eq(o.count, 9);
    ck_assert_int_eq(o.shift, -7);
    ck_assert_uint_eq(o.size, 2048);
    ck_assert_uint_eq(o.wait, 1500000000);
    ck_assert_uint_eq(o.list.count, 3);
    ck_assert_str_eq(o.list.items[1], "b");
    ck_assert_str_eq(o.list.items[2], "");
    command_release(&cmd, &o);
    ck_assert_int_gt(parse(&cmd, "--text @f --text plain", &o, &err), 0);
    ck_assert_str_eq(o.text, "plain");
    command_release(&cmd, &o);
}
END_TEST

UNIT_TEST(refusals)
{
    static const struct {
        const char *line, *want;
    } tries[] = {
        {"--none", "--none: unknown option"},
        {"-x=1", "-x: unknown option"},
        {"--str v", "--str: unknown option"}, /* no abbreviations */
        {"-", NULL},
        {"--string", "--string: a value is missing"},
        {"--flag=maybe", "--flag"},
        {"--count 1", "--count"},
        {"--count 10", "--count"},
        {"--count 3x", "--count"},
        {"--count -3", "--count"},
        {"--count 99999999999999999999", "--count"},
        {"--shift 9223372036854775808", "--shift"},
        {"--size 1", "--size: 1 is too small"},
        {"--size 1Q", "--size"},
        {"--size 16E", "--size"},
        {"--wait 5", "--wait"},
        {"--choice blue", "\"blue\" is none of red|green"},
        {"--choice re", "is none of"},
        {"--choice red|green", "is none of"},
        {"--text @absent", "--text: absent"},
        {"a b c", "c: too many operands"},
    };
    struct command cmd = make();
    struct opts o;
    struct error err;

    for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
        int rc = parse(&cmd, tries[i].line, &o, &err);
        command_release(&cmd, &o);
        if (!tries[i].want) {
            ck_assert_int_gt(rc, 0);
            continue;
        }
        ck_assert_msg(rc == -1 && err.code == ERROR_USAGE && strstr(err.text, tries[i].want),
                      "%s: %d \"%s\"", tries[i].line, rc, err.text);
    }
    struct option required = options[1];
    required.required = true;
    required.def = NULL;
    cmd.options = &required;
    cmd.n_options = 1;
    ck_assert_int_eq(parse(&cmd, "", &o, &err), -1);
    ck_assert_str_eq(err.text, "--string is required");
    ck_assert_int_gt(parse(&cmd, "--string=", &o, &err), 0);
    cmd.operands = NULL;
    cmd.max_operands = 0;
    ck_assert_int_eq(parse(&cmd, "-s v x", &o, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "no operands are taken"));
    cmd.operands = "FILE";
    cmd.min_operands = cmd.max_operands = 1;
    ck_assert_int_eq(parse(&cmd, "-s v", &o, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "FILE wanted"));
}
END_TEST

/* command_main() in a process of its own, its output in files. Returns the exit status. */
static int program(const char *line, char **ret_out, char **ret_err)
{
    pid_t pid = fork();
    int status;

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        static char words[512], *rest;
        static char name[] = "prog";
        char *argv[32] = {name};
        int argc = 1;
        struct command cmd = make();
        (void)snprintf(words, sizeof(words), "%s", line);
        for (char *w = strtok_r(words, " ", &rest); w; w = strtok_r(NULL, " ", &rest))
            argv[argc++] = w;
        if (!freopen("out", "w", stdout) || !freopen("err", "w", stderr))
            _exit(99);
        status = command_main(&cmd, argc, argv);
        (void)fflush(NULL);
        _exit(status);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    *ret_out = io_read_file(AT_FDCWD, "out", 65536, NULL, NULL);
    *ret_err = io_read_file(AT_FDCWD, "err", 65536, NULL, NULL);
    return WEXITSTATUS(status);
}

UNIT_TEST(exit_status)
{
    static const struct {
        const char *line;
        int status;
        const char *out, *err; /* parts of them */
    } tries[] = {
        {"a b", 0, "none 2\n", ""},
        {"--flag", 1, "", "prog: bad\\x1bthing\n"}, /* nothing that moves a terminal's cursor */
        {"--flag --log-format json", 1, "", "\"error\":\"bad\\u001bthing\""},
        {"usage", 2, "", "prog: not like this\nprog: see prog --help\n"},
        {"--nonsense", 2, "", "--nonsense: unknown option"},
        {"--log-level loud", 2, "", "is none of debug|info|warn|error"},
        {"--help", 0, "Usage: prog [OPTION...] [FILE...]\n\ndoes things\n", ""},
        {"-h", 0, "--string VALUE\n        S. Default: none.", ""},
        {"-h", 0, "--text VALUE\n        T, as it is given.\n", ""},
        {"--help --nonsense", 0, "--log-format text|json", ""},
        {"--version", 0, "prog (drafter) ", ""},
        {"--dump-command", 0, "option\tstring\ts\tstring\tVALUE\tnone\t-\tS.\n", ""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
        char *out, *err;
        int status = program(tries[i].line, &out, &err);
        ck_assert_msg(status == tries[i].status && strstr(out, tries[i].out) &&
                          strstr(err, tries[i].err),
                      "%s: %d, out \"%s\", err \"%s\"", tries[i].line, status, out, err);
        if (!*tries[i].err)
            ck_assert_str_eq(err, "");
        ck_assert_ptr_null(strstr(out, "dump-command"));
        free(out);
        free(err);
    }
}
END_TEST
