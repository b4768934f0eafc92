// SPDX-License-Identifier: Apache-2.0
/* options.c - command-line arguments into a command's options struct */
#include "runtime/base/command.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"
#include "runtime/base/parse.h"

#define TEXT_FILE_MAX (16u << 20)

static void *member(void *opts, const struct option *o)
{
    return (char *)opts + o->offset;
}

static int set_choice(const struct option *o, void *opts, const char *value, const char *what,
                      struct error *err)
{
    size_t len = strlen(value);

    for (const char *p = o->arg; *p;) {
        size_t n = strcspn(p, "|");
        if (n == len && memcmp(p, value, n) == 0) {
            *(const char **)member(opts, o) = value;
            return 0;
        }
        p += n + (p[n] == '|');
    }
    return error_set(err, EINVAL, "%s: \"%s\" is none of %s", what, value, o->arg);
}

/* OPTION_TEXT owns its text whether it came from a file or not, so that it can be freed alike. */
static int set_text(const struct option *o, void *opts, const char *value, const char *what,
                    struct error *err)
{
    char *text;

    if (value[0] == '@') {
        text = io_read_file(AT_FDCWD, value + 1, TEXT_FILE_MAX, NULL, err);
        if (!text)
            return error_wrap(err, "%s", what);
    } else if (!(text = strdup(value))) {
        return error_oom(err);
    }
    char **m = member(opts, o);
    free(*m);
    *m = text;
    return 0;
}

static int add_to_list(const struct option *o, void *opts, const char *value, struct error *err)
{
    struct option_list *l = member(opts, o);
    const char **items = reallocarray(l->items, l->count + 1, sizeof(*items));

    if (!items)
        return error_oom(err);
    items[l->count++] = value;
    l->items = items;
    return 0;
}

static int set_value(const struct option *o, void *opts, const char *value, const char *what,
                     struct error *err)
{
    switch (o->kind) {
    case OPTION_FLAG: {
        int b;
        if (parse_bool(value, what, &b, err) < 0)
            return -1;
        *(bool *)member(opts, o) = b;
        return 0;
    }
    case OPTION_STRING:
        *(const char **)member(opts, o) = value;
        return 0;
    case OPTION_TEXT:
        return set_text(o, opts, value, what, err);
    case OPTION_UINT:
        return parse_u64(value, o->min, o->max ? o->max : UINT64_MAX, what, member(opts, o), err);
    case OPTION_INT:
        return parse_i64(value, o->min || o->max ? (int64_t)o->min : INT64_MIN,
                         o->max ? (int64_t)o->max : INT64_MAX, what, member(opts, o), err);
    case OPTION_SIZE: {
        uint64_t n;
        if (parse_size(value, o->max ? o->max : INT64_MAX, what, &n, err) < 0)
            return -1;
        if (n < o->min)
            return error_set(err, ERANGE, "%s: %s is too small (at least %llu bytes)", what, value,
                             (unsigned long long)o->min);
        *(uint64_t *)member(opts, o) = n;
        return 0;
    }
    case OPTION_DURATION:
        return parse_duration(value, what, member(opts, o), err);
    case OPTION_CHOICE:
        return set_choice(o, opts, value, what, err);
    case OPTION_LIST:
        return add_to_list(o, opts, value, err);
    }
    return error_set(err, EINVAL, "%s: option of an unknown kind", what);
}

static const struct option *find_option(const struct command *cmd, const char *name, size_t len)
{
    for (size_t i = 0; i < cmd->n_options; i++) {
        const struct option *o = &cmd->options[i];
        if ((strlen(o->name) == len && memcmp(o->name, name, len) == 0) ||
            (len == 1 && o->letter && o->letter == name[0]))
            return o;
    }
    return NULL;
}

static int usage(struct error *err, struct error *cause)
{
    return error_set(err, ERROR_USAGE, "%s", cause->text);
}

/* Takes the option at argv[*i] and its value; advances *i past both. */
static int take_option(const struct command *cmd, int argc, char **argv, int *i, void *opts,
                       bool *seen, struct error *err)
{
    const char *arg = argv[*i];
    const char *name = arg + (arg[1] == '-' ? 2 : 1);
    size_t len = strcspn(name, "=");
    const struct option *o = find_option(cmd, name, len);
    struct error cause = ERROR_INIT;
    char what[128];

    if (!o)
        return error_set(err, ERROR_USAGE, "%.*s: unknown option", (int)(name - arg + (int)len),
                         arg);
    const char *value = name[len] == '=' ? name + len + 1 : NULL;
    if (!value && o->kind == OPTION_FLAG)
        value = "true";
    if (!value) {
        if (*i + 1 >= argc)
            return error_set(err, ERROR_USAGE, "--%s: a value is missing", o->name);
        value = argv[++*i];
    }
    (void)snprintf(what, sizeof(what), "--%s", o->name);
    if (set_value(o, opts, value, what, &cause) < 0)
        return usage(err, &cause);
    seen[o - cmd->options] = true;
    ++*i;
    return 0;
}

static int set_defaults(const struct command *cmd, void *opts, struct error *err)
{
    memset(opts, 0, cmd->options_size);
    for (size_t i = 0; i < cmd->n_options; i++) {
        const struct option *o = &cmd->options[i];
        if (o->def && set_value(o, opts, o->def, o->name, err) < 0)
            return error_wrap(err, "default");
    }
    return 0;
}

int command_parse(const struct command *cmd, int argc, char **argv, void *opts, int *ret_operand,
                  struct error *err)
{
    cleanup_free bool *seen = calloc(cmd->n_options + 1, sizeof(*seen));
    int i = 1;

    if (!seen)
        return error_oom(err);
    if (set_defaults(cmd, opts, err) < 0)
        return -1;
    while (i < argc && argv[i][0] == '-' && argv[i][1] != '\0') {
        if (strcmp(argv[i], "--") == 0) {
            i++;
            break;
        }
        if (take_option(cmd, argc, argv, &i, opts, seen, err) < 0)
            return -1;
    }
    for (size_t k = 0; k < cmd->n_options; k++)
        if (cmd->options[k].required && !seen[k])
            return error_set(err, ERROR_USAGE, "--%s is required", cmd->options[k].name);
    int operands = argc - i;
    if (operands < cmd->min_operands)
        return error_set(err, ERROR_USAGE, "too few operands: %s wanted", cmd->operands);
    if (!cmd->operands && operands > 0)
        return error_set(err, ERROR_USAGE, "%s: no operands are taken", argv[i]);
    if (cmd->operands && cmd->max_operands >= 0 && operands > cmd->max_operands)
        return error_set(err, ERROR_USAGE, "%s: too many operands: %s wanted",
                         argv[i + cmd->max_operands], cmd->operands);
    *ret_operand = i;
    return 0;
}

void command_release(const struct command *cmd, void *opts)
{
    for (size_t i = 0; i < cmd->n_options; i++) {
        const struct option *o = &cmd->options[i];
        if (o->kind == OPTION_TEXT) {
            char **m = member(opts, o);
            free(*m);
            *m = NULL;
        } else if (o->kind == OPTION_LIST) {
            struct option_list *l = member(opts, o);
            free(l->items);
            *l = (struct option_list){0};
        }
    }
}
