// SPDX-License-Identifier: Apache-2.0
/* test_driver.c - the driver for QEMU against a monitor that does what QEMU seldom does
 *
 * QEMU here is this very program, started in the VM directory with the arguments that the driver
 * gives QEMU. It speaks the monitor's protocol, writes the commands it was given into the file
 * "commands", and does as files of the VM directory say:
 *     COMMAND.lost   the command is done, its answer is not given
 *     COMMAND.deaf   neither
 *     migrate.slow   the state is written for a while, SLOW_MS
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/vmm/driver.h"
#include "tests/lib/unit.h"

#define MUST(call) ck_assert_msg((call) >= 0, "%s: %s", #call, err.text)
#define MS UINT64_C(1000000)
#define SLOW_MS 1000
#define STATE "a state of devices"

/* ---- The program that is started ---------------------------------------------------------- */

static int monitor; /* of this program's copy */

static void say(const char *text)
{
    if (send(monitor, text, strlen(text), MSG_NOSIGNAL) < 0)
        _exit(0);
}

static void say_migration(const char *status)
{
    char text[256];

    (void)snprintf(
        text, sizeof(text),
        "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"%s\"}, \"timestamp\": {}}\n", status);
    say(text);
}

static bool told(const char *command, const char *how)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s.%s", command, how);
    return access(path, F_OK) == 0;
}

static void write_state(int fd)
{
    if (told("migrate", "slow"))
        (void)nanosleep(&(struct timespec){.tv_sec = SLOW_MS / 1000}, NULL);
    if (fd < 0 || write(fd, STATE, sizeof(STATE)) != sizeof(STATE))
        _exit(1);
    (void)close(fd);
    say_migration("completed");
}

static void read_state(int fd)
{
    char byte;

    while (fd >= 0 && read(fd, &byte, 1) > 0)
        ;
    (void)close(fd);
    say_migration("completed");
}

static const char *status = "prelaunch";

/* Does the command; what it returns is the answer's value. */
static const char *perform(const char *command, char *room, size_t size)
{
    if (told(command, "deaf"))
        return "{}";
    if (strcmp(command, "stop") == 0 && strcmp(status, "prelaunch") != 0)
        status = "paused";
    if (strcmp(command, "cont") == 0) {
        status = "running";
        say("{\"event\": \"RESUME\", \"timestamp\": {}}\n");
    }
    if (strcmp(command, "query-status") != 0)
        return "{}";
    (void)snprintf(room, size, "{\"status\": \"%s\"}", status);
    return room;
}

static void obey(const char *line, FILE *log, int *given)
{
    char command[64] = "", room[128];
    long id = 0;
    const char *word = strstr(line, "\"execute\":\""), *number = strstr(line, "\"id\":");

    if (!word || !number || sscanf(word + 11, "%63[^\"]", command) != 1 ||
        sscanf(number + 5, "%ld", &id) != 1)
        _exit(1);
    (void)fprintf(log, "%s\n", line);
    (void)fflush(log);
    const char *value = perform(command, room, sizeof(room));
    if (!told(command, "lost") && !told(command, "deaf")) {
        char text[256];
        (void)snprintf(text, sizeof(text), "{\"return\": %s, \"id\": %ld}\n", value, id);
        say(text);
    }
    (void)fprintf(log, "obeyed\n");
    (void)fflush(log);
    if (strcmp(command, "migrate") == 0)
        write_state(*given);
    if (strcmp(command, "migrate-incoming") == 0) {
        read_state(*given);
        status = "paused";
    }
    if (strncmp(command, "migrate", 7) == 0 && !strstr(command, "-set-"))
        *given = -1;
}

static _Noreturn void play(void)
{
    char in[65536];
    size_t len = 0;
    int given = -1;
    FILE *log = fopen("commands", "a");

    if (!log)
        _exit(1);
    say("{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}}}\n");
    for (;;) {
        char control[CMSG_SPACE(sizeof(int))];
        struct iovec iov = {.iov_base = in + len, .iov_len = sizeof(in) - 1 - len};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
        ssize_t n = recvmsg(monitor, &msg, 0);
        if (n <= 0)
            _exit(0);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        if (c && c->cmsg_type == SCM_RIGHTS)
            memcpy(&given, CMSG_DATA(c), sizeof(int));
        len += (size_t)n;
        in[len] = '\0';
        for (char *nl; (nl = strchr(in, '\n'));) {
            *nl = '\0';
            obey(in, log, &given);
            len -= (size_t)(nl + 1 - in);
            memmove(in, nl + 1, len + 1);
        }
    }
}

__attribute__((constructor)) static void maybe_play(int argc, char **argv)
{
    bool qemu = argc > 1 && strcmp(argv[1], "-nodefaults") == 0;

    for (int i = 2; qemu && i < argc; i++) {
        if (strcmp(argv[i], "-incoming") == 0)
            status = "inmigrate";
        (void)sscanf(argv[i], "socket,id=qmp,fd=%d", &monitor);
    }
    if (qemu)
        play();
}

/* ---- The test ----------------------------------------------------------------------------- */

static struct error err;
static struct vmm_choice choice;
static struct vmm_place place;
static struct vmm_machine machine = {.cpus = 1, .memory_mib = 1};

static void begin(void)
{
    char self[4096] = "", base[4096];

    ck_assert_int_gt(readlink("/proc/self/exe", self, sizeof(self) - 1), 0);
    ck_assert_ptr_nonnull(getcwd(base, sizeof(base)));
    choice.hypervisor = VMM_QEMU;
    choice.accel = VMM_ACCEL_TCG;
    choice.bin = strdup(self);
    MUST(vmm_place_make(base, &choice, geteuid(), getegid(), &place, &err));
}

static void end(struct vmm *vmm)
{
    vmm_free(vmm);
    MUST(vmm_place_remove(&place, &err));
    vmm_choice_clear(&choice);
}

static struct vmm *start_with(struct vmm_options o)
{
    o.choice = &choice;
    o.place = &place;
    o.uid = geteuid();
    o.gid = getegid();
    struct vmm *vmm = vmm_start(&machine, &o, NULL, &err);
    ck_assert_msg(vmm != NULL, "%s", err.text);
    return vmm;
}

static struct vmm *start(enum vmm_purpose purpose)
{
    struct vmm_options o = VMM_OPTIONS_INIT;

    o.purpose = purpose;
    return start_with(o);
}

static void path_of(char path[4200], const char *name)
{
    (void)snprintf(path, 4200, "%s/%s", place.path, name);
}

/* How often the monitor was given a line with such a text, in all processes so far. */
static unsigned given(const char *text)
{
    char path[4200];
    unsigned n = 0;

    path_of(path, "commands");
    size_t len;
    cleanup_free char *all = io_read_file(AT_FDCWD, path, 1 << 20, &len, &err);
    ck_assert_msg(all != NULL, "%s", err.text);
    for (const char *p = all; (p = strstr(p, text)); p++)
        n++;
    return n;
}

/* A machine that was booted and saved, and whose process has ended. */
static void save_one(void)
{
    struct vmm *vmm = start(VMM_BOOT);

    MUST(vmm_boot(vmm, &err));
    MUST(vmm_pause(vmm, &err));
    MUST(vmm_save(vmm, "state", &err));
    vmm_free(vmm);
}

UNIT_TEST(announces_for_a_guest_that_does_not)
{
    struct vmm_options o = VMM_OPTIONS_INIT;

    begin();
    save_one();
    o.purpose = VMM_LOAD;
    struct vmm *vmm = start_with(o);
    MUST(vmm_load(vmm, "state", &err));
    ck_assert_uint_eq(given("announce-rounds"), 0); /* QEMU's own number of rounds */
    vmm_free(vmm);
    o.guest_announces = true;
    vmm = start_with(o);
    MUST(vmm_load(vmm, "state", &err));
    ck_assert_uint_eq(given("\"migrate-set-parameters\",\"arguments\":{\"announce-rounds\":0}"), 1);
    end(vmm);
}
END_TEST

static void tell(const char *command, const char *how, bool on)
{
    char path[4200], name[128];

    (void)snprintf(name, sizeof(name), "%s.%s", command, how);
    path_of(path, name);
    if (on)
        ck_assert_int_ge(close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
    else
        ck_assert_int_eq(unlink(path), 0);
}

/* A save takes as long as its bytes do, not as long as a question. */
UNIT_TEST(slow_save_is_waited_for)
{
    begin();
    machine.memory_mib = 64 << 10; /* a minute of the patience below */
    tell("migrate", "slow", true);
    struct vmm *vmm = start(VMM_BOOT);
    MUST(vmm_boot(vmm, &err));
    MUST(vmm_pause(vmm, &err));
    vmm->timeout_ns = SLOW_MS * MS / 4;
    MUST(vmm_save(vmm, "state", &err));
    end(vmm);
}
END_TEST

/* A process that was taken over puts links in its files' places, for us to write through. */
UNIT_TEST(planted_files_are_neither_written_nor_read)
{
    static const char *const names[] = {"state", "memory"};
    char path[4200], outside[4200];

    begin();
    save_one();
    (void)snprintf(outside, sizeof(outside), "%s/outside", place.base);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        for (int kind = 0; kind < 4; kind++) {
            struct vmm *vmm = start(VMM_BOOT);
            MUST(vmm_boot(vmm, &err));
            MUST(vmm_pause(vmm, &err));
            path_of(path, names[i]);
            ck_assert_int_eq(unlink(path), 0);
            int fd = open(outside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
            ck_assert_int_eq(write(fd, "outside", 7), 7);
            ck_assert_int_eq(close(fd), 0);
            ck_assert_int_eq(kind == 0   ? symlink(outside, path)
                             : kind == 1 ? link(outside, path)
                             : kind == 2 ? mkfifo(path, 0600)
                                         : mkdir(path, 0700),
                             0);
            ck_assert_msg(vmm_save(vmm, "state", &err) == -1, "%s, kind %d", names[i], kind);
            vmm_free(vmm);
            vmm = start(VMM_LOAD);
            ck_assert_msg(vmm_load(vmm, "state", &err) == -1, "%s, kind %d", names[i], kind);
            vmm_free(vmm);
            size_t len;
            cleanup_free char *text = io_read_file(AT_FDCWD, outside, 4096, &len, &err);
            ck_assert_msg(text != NULL && strcmp(text, "outside") == 0, "%s, kind %d", names[i],
                          kind);
            ck_assert_int_eq(kind == 3 ? rmdir(path) : unlink(path), 0);
            save_one();
        }
    }
    end(NULL);
}
END_TEST

#define SHORT_MS 200

/* Has a command's answer not come; the next ones' do. */
/* However late it comes to its turn, it must find what it was told. */
static void wait_obeyed(unsigned before)
{
    while (given("obeyed") == before)
        (void)usleep(1000);
}

static void fails_in_time(struct vmm *vmm, int (*act)(struct vmm *, struct error *),
                          const char *command, const char *how)
{
    uint64_t patient = vmm->timeout_ns;
    unsigned before = given("obeyed");

    tell(command, how, true);
    vmm->timeout_ns = SHORT_MS * MS;
    ck_assert_int_eq(act(vmm, &err), -1);
    ck_assert_int_eq(err.code, ETIMEDOUT);
    ck_assert_int_eq(vmm_state(vmm), VMM_STATE_RUNNING); /* never taken for one that stands */
    wait_obeyed(before);
    tell(command, how, false);
    vmm->timeout_ns = patient;
}

static struct vmm *boot(void)
{
    begin();
    struct vmm *vmm = start(VMM_BOOT);
    MUST(vmm_boot(vmm, &err));
    return vmm;
}

UNIT_TEST(paused_without_an_answer)
{
    struct vmm *vmm = boot();

    fails_in_time(vmm, vmm_pause, "stop", "lost");
    MUST(vmm_resume(vmm, &err)); /* as a migration does that gives up */
    ck_assert_uint_eq(given("\"cont\""), 2);
    ck_assert_int_eq(vmm_state(vmm), VMM_STATE_RUNNING);
    fails_in_time(vmm, vmm_pause, "stop", "lost");
    MUST(vmm_pause(vmm, &err)); /* once more, as nobody said that the disks are flushed */
    ck_assert_uint_eq(given("\"stop\""), 3);
    MUST(vmm_pause(vmm, &err));
    ck_assert_uint_eq(given("\"stop\""), 3);
    MUST(vmm_save(vmm, "state", &err));
    end(vmm);
}
END_TEST

UNIT_TEST(not_paused_without_an_answer)
{
    struct vmm *vmm = boot();

    fails_in_time(vmm, vmm_pause, "stop", "deaf");
    ck_assert_int_eq(vmm_save(vmm, "state", &err), -1);
    ck_assert_int_eq(err.code, EINVAL);
    MUST(vmm_resume(vmm, &err));
    ck_assert_uint_eq(given("\"cont\""), 1); /* it ran all the time */
    end(vmm);
}
END_TEST

UNIT_TEST(resumed_without_an_answer)
{
    struct vmm *vmm = boot();

    MUST(vmm_pause(vmm, &err));
    fails_in_time(vmm, vmm_resume, "cont", "lost");
    ck_assert_int_eq(vmm_save(vmm, "state", &err), -1); /* of a guest that runs */
    ck_assert_int_eq(err.code, EINVAL);
    ck_assert_uint_eq(given("\"migrate\""), 0);
    MUST(vmm_pause(vmm, &err));
    ck_assert_uint_eq(given("\"stop\""), 2);
    MUST(vmm_save(vmm, "state", &err));
    end(vmm);
}
END_TEST

UNIT_TEST(not_resumed_without_an_answer)
{
    struct vmm *vmm = boot();

    MUST(vmm_pause(vmm, &err));
    fails_in_time(vmm, vmm_resume, "cont", "deaf");
    MUST(vmm_save(vmm, "state", &err)); /* it stands: QEMU says so */
    ck_assert_int_eq(vmm_state(vmm), VMM_STATE_PAUSED);
    end(vmm);
}
END_TEST

UNIT_TEST(silence_is_no_answer)
{
    struct vmm *vmm = boot();
    uint64_t patient = vmm->timeout_ns;

    MUST(vmm_pause(vmm, &err));
    fails_in_time(vmm, vmm_resume, "cont", "deaf");
    tell("query-status", "deaf", true);
    unsigned before = given("obeyed");
    vmm->timeout_ns = SHORT_MS * MS;
    ck_assert_int_eq(vmm_save(vmm, "state", &err), -1);
    ck_assert_msg(strstr(err.text, "not known") != NULL, "%s", err.text);
    ck_assert_int_eq(vmm_state(vmm), VMM_STATE_RUNNING);
    vmm->timeout_ns = patient;
    wait_obeyed(before);
    tell("query-status", "deaf", false);
    MUST(vmm_save(vmm, "state", &err));
    end(vmm);
}
END_TEST
