// SPDX-License-Identifier: Apache-2.0
/* test_library.c - libdrafter without a hypervisor: machines that are only devices move, are called
 * off and told of; registry and terminate on device lists; option structs, old and wrong */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/drafter.h"
#include "runtime/snapshot/package.h"
#include "tests/lib/unit.h"

#define MEMORY_SIZE (4u << 20)

static void put(const char *path, const void *data, size_t len, uint64_t size)
{
    struct error err = ERROR_INIT;
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(io_pwrite(fd, data, len, 0, path, &err), 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
}

static uint8_t *pattern(void)
{
    uint8_t *p = malloc(MEMORY_SIZE);
    uint64_t seed = 7;

    ck_assert_ptr_nonnull(p);
    for (size_t i = 0; i < MEMORY_SIZE; i += 8) {
        uint64_t x = unit_random(&seed);
        memcpy(p + i, &x, 8);
    }
    return p;
}

static bool same(const char *path, const void *want, size_t len)
{
    struct error err = ERROR_INIT;
    size_t got_len;
    cleanup_free char *got = io_read_file(AT_FDCWD, path, 16 << 20, &got_len, &err);
    ck_assert_msg(got != NULL, "%s", err.text);
    return got_len >= len && memcmp(got, want, len) == 0;
}

static void needs_fuse(void)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        unit_skip("no /dev/fuse, or not for this user");
    (void)close(fd);
}

/* Events, as a program reads them: a line at a time, waited for. */
struct events {
    int write_fd;
    FILE *in;
    char line[4096];
};

static void events_open(struct events *e)
{
    int fds[2];
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    e->write_fd = fds[1];
    e->in = fdopen(fds[0], "r");
    ck_assert_ptr_nonnull(e->in);
}

static void events_wait(struct events *e, const char *text)
{
    do
        ck_assert_msg(fgets(e->line, sizeof(e->line), e->in) != NULL, "no event has %s", text);
    while (!strstr(e->line, text));
}

static void events_close(struct events *e)
{
    (void)close(e->write_fd);
    (void)fclose(e->in);
}

/* A machine that is its devices only, in a folder of its own. */
struct mock {
    struct drafter *d;
    struct drafter_machine *m;
    struct drafter_machine_options o;
    char devices[512], trace[32], vms[32];
    struct events events;
    struct drafter_error err;
    pthread_t server;
    int served;
};

static void mock_open(struct mock *k, const char *name)
{
    char state[] = "state of a machine";
    char path[64];

    k->o = (struct drafter_machine_options)DRAFTER_MACHINE_OPTIONS_INIT;
    k->err = (struct drafter_error){0};
    ck_assert_int_eq(mkdir(name, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/memory", name);
    put(path, "", 0, MEMORY_SIZE);
    (void)snprintf(path, sizeof(path), "%s/state", name);
    put(path, state, sizeof(state), 1 << 20);
    (void)snprintf(k->devices, sizeof(k->devices),
                   "[{\"name\":\"memory\",\"base\":\"%s/memory\",\"makeMigratable\":true,"
                   "\"minCycles\":1,\"maxCycles\":1,\"cycleThrottle\":1000000},"
                   "{\"name\":\"state\",\"base\":\"%s/state\"}]",
                   name, name);
    (void)snprintf(k->trace, sizeof(k->trace), "%s/trace", name);
    (void)snprintf(k->vms, sizeof(k->vms), "%s/vms", name);
    events_open(&k->events);
    k->d = drafter_new(NULL, &k->err);
    ck_assert_msg(k->d != NULL, "%s", k->err.text);
    k->o.devices = k->devices;
    k->o.mock = true;
    k->o.vm.folder = k->vms;
    k->o.status_fd = k->events.write_fd;
    k->o.trace = k->trace;
}

static void mock_make(struct mock *k)
{
    k->m = drafter_machine_new(k->d, &k->o, &k->err);
    ck_assert_msg(k->m != NULL, "%s", k->err.text);
}

static void *serve(void *opaque)
{
    struct mock *k = opaque;
    k->served = drafter_machine_serve(k->m, &k->err);
    return NULL;
}

/* The target's part of a move is its start. */
static void *take(void *opaque)
{
    struct mock *k = opaque;
    k->served = drafter_machine_start(k->m, &k->err);
    return NULL;
}

static void mock_serve(struct mock *k)
{
    ck_assert_msg(drafter_machine_start(k->m, &k->err) == 0, "%s", k->err.text);
    ck_assert_int_eq(pthread_create(&k->server, NULL, serve, k), 0);
    events_wait(&k->events, "\"listening\"");
}

static void mock_close(struct mock *k)
{
    ck_assert_msg(drafter_machine_free(k->m, &k->err) == 0, "%s", k->err.text);
    drafter_free(k->d);
    events_close(&k->events);
}

UNIT_TEST(a_move_is_told_and_traced)
{
    needs_fuse();
    struct mock from, to;
    cleanup_free uint8_t *want = pattern();

    mock_open(&from, "from");
    mock_open(&to, "to");
    put("from/memory", want, MEMORY_SIZE, MEMORY_SIZE);
    from.o.laddr = to.o.raddr = "unix:move.sock";
    from.o.idle_timeout_ms = to.o.idle_timeout_ms = 60000;
    from.o.retake_timeout_ms = to.o.retake_timeout_ms = 60000;
    mock_make(&from);
    mock_make(&to);
    mock_serve(&from);
    ck_assert_msg(drafter_machine_start(to.m, &to.err) == 0, "%s", to.err.text);
    ck_assert_int_eq(pthread_join(from.server, NULL), 0);
    ck_assert_msg(from.served == 0, "%s", from.err.text);
    events_wait(&from.events, "\"ended\"");
    ck_assert_ptr_nonnull(strstr(from.events.line, "\"outcome\":\"moved\""));
    events_wait(&to.events, "\"ended\"");
    ck_assert_ptr_nonnull(strstr(to.events.line, "\"side\":\"target\""));
    mock_close(&from);
    mock_close(&to);
    ck_assert(same("to/memory", want, MEMORY_SIZE));
    ck_assert(same("from/trace", "drafter-trace 1\n", 16));
    ck_assert(same("to/trace", "drafter-trace 1\n", 16));
}
END_TEST

UNIT_TEST(a_move_is_called_off)
{
    needs_fuse();
    struct mock from, to;
    cleanup_free uint8_t *want = pattern();

    mock_open(&from, "off_from");
    mock_open(&to, "off_to");
    put("off_from/memory", want, MEMORY_SIZE, MEMORY_SIZE);
    from.o.laddr = to.o.raddr = "unix:off.sock";
    from.o.bandwidth = 64 << 10; /* a minute for all of it: it is called off long before */
    mock_make(&from);
    mock_make(&to);
    drafter_machine_call_off(from.m); /* nothing is under way: means nothing, now and later */
    mock_serve(&from);
    pthread_t taker;
    ck_assert_int_eq(pthread_create(&taker, NULL, take, &to), 0);
    events_wait(&from.events, "\"stage\":\"copy\"");
    drafter_machine_call_off(from.m);
    events_wait(&from.events, "\"ended\"");
    ck_assert_ptr_nonnull(strstr(from.events.line, "\"outcome\":\"rolled-back\""));
    ck_assert_int_eq(pthread_join(taker, NULL), 0);
    ck_assert_int_eq(to.served, -1);
    drafter_cancel(from.d); /* it listened on until now */
    ck_assert_int_eq(pthread_join(from.server, NULL), 0);
    ck_assert_msg(from.served == 0, "%s", from.err.text);
    mock_close(&from);
    to.err = (struct drafter_error){0};
    mock_close(&to);
}
END_TEST

UNIT_TEST(what_cannot_be_opened_is_said)
{
    struct mock k;

    mock_open(&k, "k");
    k.o.trace = "nowhere/trace";
    mock_make(&k);
    ck_assert_int_eq(drafter_machine_start(k.m, &k.err), -1);
    ck_assert_ptr_nonnull(strstr(k.err.text, "nowhere/trace"));
    mock_close(&k);
}
END_TEST

/* ---- Registry and terminate --------------------------------------------------------------- */

/* A package's files below a folder, for device lists. */
static void make_package(const char *dir, const uint8_t *memory)
{
    struct error err = ERROR_INIT;
    struct vmm_machine m = {
        .hypervisor = VMM_QEMU, .accel = VMM_ACCEL_TCG, .cpus = 1, .memory_mib = 4, .vsock = true};
    cleanup_package struct package *pkg = package_new(&err);
    char path[64];

    ck_assert_ptr_nonnull(pkg);
    ck_assert_int_eq(mkdir(dir, 0700), 0);
    cleanup_close int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)snprintf(path, sizeof(path), "%s/memory.bin", dir);
    put(path, memory, MEMORY_SIZE, MEMORY_SIZE);
    (void)snprintf(path, sizeof(path), "%s/state.bin", dir);
    put(path, "state", 5, package_padded(5));
    cleanup_free char *text = vmm_machine_format(&m, &err);
    ck_assert_msg(text != NULL, "%s", err.text);
    pkg->machine = vmm_machine_parse(text, strlen(text), &err);
    ck_assert_ptr_nonnull(pkg->machine);
    ck_assert_int_eq(package_add(pkg, "state", dirfd, NULL, NULL, &err), 0);
    ck_assert_int_eq(package_add(pkg, "memory", dirfd, NULL, NULL, &err), 0);
    cleanup_close int fd = openat(dirfd, PACKAGE_CONFIG, O_RDWR | O_CREAT, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(package_write_config(pkg, fd, PACKAGE_CONFIG, &err), 0);
}

struct registry_run {
    struct drafter *d;
    struct drafter_registry_options o;
    struct drafter_error err;
    int rc;
};

static void *run_registry(void *opaque)
{
    struct registry_run *r = opaque;
    r->rc = drafter_registry(r->d, &r->o, &r->err);
    return NULL;
}

UNIT_TEST(registry_and_terminate_on_device_lists)
{
    cleanup_free uint8_t *want = pattern();
    struct registry_run r = {.o = DRAFTER_REGISTRY_OPTIONS_INIT};
    struct drafter_terminate_options o = DRAFTER_TERMINATE_OPTIONS_INIT;
    struct events served, taken;
    pthread_t thread;

    make_package("p", want);
    events_open(&served);
    events_open(&taken);
    r.d = drafter_new(NULL, &r.err);
    ck_assert_ptr_nonnull(r.d);
    r.o.devices = "[{\"name\":\"memory\",\"input\":\"p/memory.bin\"},"
                  "{\"name\":\"state\",\"input\":\"p/state.bin\"},"
                  "{\"name\":\"config\",\"input\":\"p/config.json\"}]";
    r.o.laddr = "unix:r.sock";
    r.o.status_fd = served.write_fd;
    ck_assert_int_eq(pthread_create(&thread, NULL, run_registry, &r), 0);
    events_wait(&served, "\"listening\"");

    struct drafter_error err = {0};
    struct drafter *d = drafter_new(NULL, &err);
    ck_assert_ptr_nonnull(d);
    o.raddr = "unix:r.sock";
    o.devices =
        "[{\"name\":\"memory\",\"output\":\"taken/m\"},{\"name\":\"state\",\"output\":\"taken/s\"},"
        "{\"name\":\"config\",\"output\":\"taken/c\"}]";
    o.status_fd = taken.write_fd;
    o.trace = "t.trace";
    ck_assert_msg(drafter_terminate(d, &o, &err) == 0, "%s", err.text);
    events_wait(&served, "\"ended\"");
    events_wait(&taken, "\"ended\"");
    ck_assert(same("taken/m", want, MEMORY_SIZE));
    ck_assert(same("taken/s", "state", 5));
    ck_assert(same("t.trace", "drafter-trace 1\n", 16));
    ck_assert_int_eq(drafter_terminate(d, &o, &err), -1); /* they are there already */
    ck_assert_int_eq(err.code, EEXIST);
    drafter_free(d);
    drafter_cancel(r.d);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_msg(r.rc == 0, "%s", r.err.text);
    drafter_free(r.d);
    events_close(&served);
    events_close(&taken);
}
END_TEST

/* ---- Options ------------------------------------------------------------------------------ */

UNIT_TEST(an_older_and_shorter_struct_counts)
{
    struct drafter_error err = {0};
    struct drafter *d = drafter_new(NULL, &err);
    struct drafter_machine_options o = DRAFTER_MACHINE_OPTIONS_INIT;

    ck_assert_ptr_nonnull(d);
    put("m", "", 0, 1 << 20);
    put("s", "state", 5, 1 << 20);
    o.devices = "[{\"name\":\"memory\",\"base\":\"m\"},{\"name\":\"state\",\"base\":\"s\"}]";
    o.mock = true;
    /* What lies behind it in an older program's memory is nothing to us. */
    o.size = offsetof(struct drafter_machine_options, package_cache);
    memset((char *)&o + o.size, 0xa5, sizeof(o) - o.size);
    struct drafter_machine *m = drafter_machine_new(d, &o, &err);
    ck_assert_msg(m != NULL, "%s", err.text);
    ck_assert_int_eq(drafter_machine_free(m, &err), 0);
    drafter_free(d);
}
END_TEST

UNIT_TEST(wrong_options_are_refused)
{
    struct drafter_error err = {0};
    struct drafter *d = drafter_new(NULL, &err);
    struct drafter_snapshot_options s = DRAFTER_SNAPSHOT_OPTIONS_INIT;
    struct drafter_registry_options r = DRAFTER_REGISTRY_OPTIONS_INIT;
    struct drafter_terminate_options t = DRAFTER_TERMINATE_OPTIONS_INIT;
    struct drafter_machine_options m = DRAFTER_MACHINE_OPTIONS_INIT;

    ck_assert_ptr_nonnull(d);
    s.blueprint = "bp";
    ck_assert_int_eq(drafter_snapshot(d, &s, &err), -1);
    ck_assert_int_eq(err.code, DRAFTER_WRONG_USAGE);
    s.package = "pkg";
    s.devices = "[]";
    ck_assert_int_eq(drafter_snapshot(d, &s, &err), -1);
    ck_assert_int_eq(err.code, DRAFTER_WRONG_USAGE);
    s.blueprint = s.package = NULL;
    ck_assert_int_eq(drafter_snapshot(d, &s, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "devices"));

    r.package = "p";
    r.devices = "[]";
    ck_assert_int_eq(drafter_registry(d, &r, &err), -1);
    ck_assert_int_eq(err.code, DRAFTER_WRONG_USAGE);
    r.package = NULL;
    ck_assert_int_eq(drafter_registry(d, &r, &err), -1);
    ck_assert_int_eq(err.code, DRAFTER_WRONG_USAGE);
    t.raddr = "unix:nobody";
    ck_assert_int_eq(drafter_terminate(d, &t, &err), -1);
    ck_assert_int_eq(err.code, DRAFTER_WRONG_USAGE);

    m.devices = "[]";
    m.vm.reserved[3] = 1;
    ck_assert_ptr_null(drafter_machine_new(d, &m, &err));
    ck_assert_int_eq(err.code, ENOTSUP);
    m.vm.reserved[3] = 0;
    m.vm.cgroup_version = 3;
    ck_assert_ptr_null(drafter_machine_new(d, &m, &err));
    ck_assert_int_eq(err.code, DRAFTER_WRONG_USAGE);
    drafter_free(d);
}
END_TEST
