// SPDX-License-Identifier: Apache-2.0
/* vsockhost.c - runs a VMM with a vsock device of ours, alone */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/command.h"
#include "runtime/base/spawn.h"
#include "runtime/block/expose/mount.h"
#include "runtime/vsock/vsock.h"

struct opts {
    const char *mount;
    const char *path;
    uint64_t cid;
};

static const struct option options[] = {
    OPTION(struct opts, mount, .name = "mount", .kind = OPTION_STRING, .arg = "FOLDER",
           .help = "an empty folder on which the device's file is mounted", .required = true),
    OPTION(struct opts, path, .name = "path", .kind = OPTION_STRING, .arg = "SOCKET",
           .def = "vsock.sock",
           .help =
               "the UNIX socket for connections to the guest; those of the guest to port P go to "
               "SOCKET_P"),
    OPTION(struct opts, cid, .name = "cid", .kind = OPTION_UINT, .arg = "CID", .def = "3",
           .help = "the guest's context id", .min = 3, .max = UINT32_MAX - 1),
};

/* argv with every "{fd}" replaced by the number. */
static char **fill_in(int argc, char **argv, int fd, struct error *err)
{
    char **out = calloc((size_t)argc + 1, sizeof(*out));

    for (int i = 0; out && i < argc; i++) {
        const char *at = strstr(argv[i], "{fd}");
        int rc = at ? asprintf(&out[i], "%.*s%d%s", (int)(at - argv[i]), argv[i], fd, at + 4)
                    : asprintf(&out[i], "%s", argv[i]);

        if (rc < 0) {
            out[i] = NULL;
            break;
        }
    }
    if (!out || (argc > 0 && !out[argc - 1])) {
        error_oom(err);
        return NULL; /* what was made stays: the program ends */
    }
    return out;
}

static int serve(const struct opts *o, struct mount *m, struct vsock *v, int argc, char **argv,
                 const struct context *ctx, struct error *err)
{
    cleanup_close int fd = -1;
    struct spawn_options spawn = {.stdin_fd = 0, .stdout_fd = 1, .stderr_fd = -1, .n_keep_fds = 1};
    struct vsock_stats stats;
    char text[64];
    char **args;
    int status, rc;
    pid_t pid;

    if (mount_start(m, err) < 0 || vsock_start(v, err) < 0)
        return -1;
    fd = vsock_open(v, err);
    if (fd < 0)
        return -1;
    args = fill_in(argc, argv, fd, err);
    if (!args)
        return -1;
    spawn.argv = (const char *const *)args;
    spawn.keep_fds = &fd;
    rc = spawn_start(&spawn, &pid, NULL, err);
    for (int i = 0; i < argc; i++)
        free(args[i]);
    free(args);
    if (rc < 0)
        return -1;
    cleanup_close_p(&fd);
    if (spawn_wait(pid, ctx, &status, err) < 0)
        return error_wrap(err, "%s", argv[0]);
    vsock_stats(v, &stats);
    log_info(ctx->log, "vsock: ended", log_str("path", o->path),
             log_uint("accepted", stats.accepted), log_uint("connected", stats.connected),
             log_uint("refused", stats.refused), log_uint("bytes-to-guest", stats.bytes_to_guest),
             log_uint("bytes-from-guest", stats.bytes_from_guest),
             log_uint("dropped", stats.packets_dropped));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return error_set(err, ECHILD, "%s: %s", argv[0],
                         spawn_describe(status, text, sizeof(text)));
    return 0;
}

static int run(const void *opts, int argc, char **argv, const struct context *ctx,
               struct error *err)
{
    const struct opts *o = opts;
    struct vsock_options vo = {
        .uds_path = o->path, .guest_cid = o->cid, .uid = geteuid(), .gid = getegid()};
    struct mount *m = mount_new(o->mount, ctx, err);
    struct vsock *v = m ? vsock_new(m, "vsock", &vo, ctx, err) : NULL;
    int rc = v ? serve(o, m, v, argc, argv, ctx, err) : -1;

    if (v)
        vsock_stop(v);
    if (m && mount_stop(m, rc < 0 ? NULL : err) < 0)
        rc = -1;
    mount_free(m);
    vsock_free(v);
    return rc;
}

int main(int argc, char **argv)
{
    static const struct command cmd = {
        .name = "vsockhost",
        .summary = "run a VMM with a vsock device over UNIX sockets",
        .operands = "COMMAND [ARGUMENT...]",
        .min_operands = 1,
        .max_operands = -1,
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .options_size = sizeof(struct opts),
        .run = run,
    };

    return command_main(&cmd, argc, argv);
}
