// SPDX-License-Identifier: Apache-2.0
/* blockstack.c - runs a stack of block layers alone on a mount point */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/command.h"
#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/block/block.h"
#include "runtime/block/device.h"
#include "runtime/block/expose/mount.h"
#include "runtime/block/filter/stats.h"

struct options {
    const char *stack, *device, *name;
    uint64_t mode, status_fd;
    bool check, stats;
};

static const struct option options[] = {
    OPTION(struct options, stack, .name = "stack", .letter = 's', .kind = OPTION_TEXT,
           .arg = "JSON", .help = "The stack, source first; @FILE reads it from a file."),
    OPTION(struct options, device, .name = "device", .letter = 'd', .kind = OPTION_TEXT,
           .arg = "JSON",
           .help = "In place of --stack: an array of one device, as drafter-peer's --devices."),
    OPTION(struct options, name, .name = "name", .letter = 'n', .kind = OPTION_STRING,
           .arg = "NAME", .def = "disk", .help = "Name of the file on the mount point."),
    OPTION(struct options, mode, .name = "mode", .kind = OPTION_UINT, .arg = "MODE", .def = "0o600",
           .max = 0777, .help = "Permissions of the file, as 0o644."),
    OPTION(struct options, check, .name = "check", .kind = OPTION_FLAG,
           .help = "Open the stack, print it, close it; no mount point is needed."),
    OPTION(struct options, stats, .name = "stats", .kind = OPTION_FLAG,
           .help = "At the end, print the counters of the stack's stats layer."),
    OPTION(struct options, status_fd, .name = "status", .kind = OPTION_UINT, .arg = "FD",
           .def = "0", .max = 65535,
           .help = "Descriptor that gets the line \"ready\" when the file is there."),
};

static struct json_object *stack_of(const struct options *o, struct error *err)
{
    if (!o->stack == !o->device) {
        error_set(err, ERROR_USAGE, "give one of --stack and --device");
        return NULL;
    }
    if (o->stack)
        return json_parse(o->stack, strlen(o->stack), "stack", err);
    cleanup_devices struct devices list = {0};
    if (devices_parse(o->device, strlen(o->device), &list, err) < 0)
        return NULL;
    if (list.count != 1) {
        error_set(err, EINVAL, "--device: %zu devices, one wanted", list.count);
        return NULL;
    }
    return device_stack(&list.items[0], err);
}

static int print(struct block *top, struct error *err)
{
    cleanup_json struct json_object *stack = block_describe(top, err);
    cleanup_free char *text = stack ? json_format(stack) : NULL;

    if (!text)
        return stack ? error_oom(err) : -1;
    if (fputs(text, stdout) < 0 || fflush(stdout) != 0)
        return error_sys(err, "write to stdout");
    return 0;
}

static void print_stats(struct block *top)
{
    struct stats s;

    if (stats_get(top, &s) < 0)
        return;
    for (unsigned i = 0; i < STATS_OPS; i++)
        printf("%-5s requests=%llu errors=%llu bytes=%llu us=%llu\n",
               stats_op_name((enum stats_op)i), (unsigned long long)s.op[i].requests,
               (unsigned long long)s.op[i].errors, (unsigned long long)s.op[i].bytes,
               (unsigned long long)s.op[i].time_ns / 1000);
}

static int serve(const struct options *o, struct block *top, const char *path,
                 const struct context *ctx, struct error *err)
{
    cleanup_mount struct mount *m = mount_new(path, ctx, err);
    struct pollfd stop = {.fd = ctx->cancel->fd, .events = POLLIN};

    if (!m || mount_add_block(m, o->name, (unsigned)o->mode, geteuid(), getegid(), top, err) < 0 ||
        mount_start(m, err) < 0 || print(top, err) < 0)
        return -1;
    if (o->status_fd && io_write((int)o->status_fd, "ready\n", 6, "--status", err) < 0)
        return -1;
    while (poll(&stop, 1, -1) < 0 && errno == EINTR)
        continue;
    /* What waits for data that may never come must not hold up the end. Flush first: it may need
     * it. */
    return mount_stop(m, err);
}

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct options *o = opts;
    struct error close_err = ERROR_INIT;

    if (!o->check && argc != 1)
        return error_set(err, ERROR_USAGE, "give the mount point");
    cleanup_json struct json_object *stack = stack_of(o, err);
    if (!stack)
        return -1;
    struct block *top = block_open_json(stack, o->name, ctx, err);
    if (!top)
        return -1;
    int rc = o->check ? print(top, err) : serve(o, top, argv[0], ctx, err);
    if (o->stats)
        print_stats(top);
    if (block_close(top, &close_err) < 0 && rc == 0) {
        *err = close_err;
        rc = -1;
    }
    return rc;
}

static const struct command command = {
    .name = "blockstack",
    .summary = "run a stack of block layers alone on a mount point",
    .operands = "[MOUNTPOINT]",
    .min_operands = 0,
    .max_operands = 1,
    .options = options,
    .n_options = ARRAY_SIZE(options),
    .options_size = sizeof(struct options),
    .run = run,
};

int main(int argc, char **argv)
{
    return command_main(&command, argc, argv);
}
