// SPDX-License-Identifier: Apache-2.0
/* test_kinds.c - upstream Firecracker and the live-migration fork, told apart and used as each is
 *
 * Firecracker here is this very program, started under a name that says which kind it plays: it
 * answers the API as that kind does (the texts are theirs) and refuses what that kind refuses.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/base/bytes.h"
#include "runtime/base/output.h"
#include "runtime/vmm/driver.h"
#include "tests/lib/unit.h"

#define MAGIC UINT64_C(0x0710198486640000)
#define MUST(call) ck_assert_msg((call) >= 0, "%s: %s", #call, err.text)

/* ---- The program that is started ---------------------------------------------------------- */

static void write_state(const char *path, bool fork)
{
    uint8_t raw[24];
    FILE *f = fopen(path, "w");

    put_le64(raw, 16);
    put_le64(raw + 8, MAGIC);
    put_le64(raw + 16, 1);
    if (f) {
        (void)fwrite(raw + (fork ? 0 : 8), 1, fork ? 24 : 16, f);
        (void)fclose(f);
    }
}

static bool paused;

static const char *answer(const char *kind, const char *request)
{
    static const char done[] = "HTTP/1.1 204 \r\n\r\n";
    bool fork = strcmp(kind, "fork") == 0, later = strcmp(kind, "later") == 0;

    if (strncmp(request, "GET /version", 12) == 0 && later)
        return "HTTP/1.1 200 \r\nContent-Length: 33\r\n\r\n{\"firecracker_version\":\"1.15.0\"}\n";
    if (strncmp(request, "PATCH /vm ", 10) == 0)
        paused = strstr(request, "Paused") != NULL;
    if (strncmp(request, "GET / ", 6) == 0)
        return paused ? "HTTP/1.1 200 \r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}"
                      : "HTTP/1.1 200 \r\nContent-Length: 19\r\n\r\n{\"state\":\"Running\"}";
    if (strncmp(request, "GET /version", 12) == 0)
        return "HTTP/1.1 200 \r\nContent-Length: 33\r\n\r\n{\"firecracker_version\":\"1.13.1\"}\n";
    if (strstr(request, "\"Msync\"")) {
        if (strcmp(kind, "upstream") == 0 || later)
            return "HTTP/1.1 400 \r\nContent-Length: 156\r\n\r\n"
                   "{\"fault_message\":\"An error occurred when deserializing the json body of a "
                   "request: unknown variant `Msync`, expected `Diff` or `Full` at line 1 column "
                   "24.\"}";
        if (fork)
            return "HTTP/1.1 400 \r\nContent-Length: 89\r\n\r\n{\"fault_message\":\"The requested "
                   "operation is not supported before starting the microVM.\"}";
        return "HTTP/1.1 400 \r\nContent-Length: 25\r\n\r\n{\"fault_message\":\"What?\"}";
    }
    /* Not the engine that this version loses interrupts of, nor the slow one without need. */
    if (strstr(request, "/drives/") && !strstr(request, later ? "\"Async\"" : "\"Sync\""))
        return "HTTP/1.1 400 \r\nContent-Length: 26\r\n\r\n{\"fault_message\":\"Engine\"}";
    if (strstr(request, "/snapshot/create")) {
        if (!strstr(request, fork ? "\"" : "\"Full\""))
            return "HTTP/1.1 400 \r\nContent-Length: 25\r\n\r\n{\"fault_message\":\"Never\"}";
        write_state("state", fork);
    }
    if (strstr(request, "/snapshot/load") && !fork && strstr(request, "\"shared\""))
        return "HTTP/1.1 400 \r\nContent-Length: 42\r\n\r\n"
               "{\"fault_message\":\"unknown field `shared`\"}";
    return done;
}

static _Noreturn void play(const char *kind, const char *socket_path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", socket_path);
    if (bind(listener, (struct sockaddr *)&un, sizeof(un)) < 0 || listen(listener, 4) < 0)
        _exit(1);
    for (;;) {
        static char in[65536];
        int fd = accept(listener, NULL, NULL);
        size_t len = 0;

        for (;;) {
            const char *body = strstr(in, "\r\n\r\n"), *length = strstr(in, "Content-Length: ");
            size_t want = body ? (size_t)(body + 4 - in) : SIZE_MAX;
            ssize_t n;

            if (body && length && length < body)
                want += strtoul(length + 16, NULL, 10);
            if (len >= want) {
                const char *out = answer(kind, in);
                if (strncmp(in, "PATCH", 5) == 0 && access("lost", F_OK) == 0)
                    out = ""; /* done, and not answered */
                if (send(fd, out, strlen(out), MSG_NOSIGNAL) < 0)
                    break;
                len = 0;
            }
            in[len] = '\0';
            n = recv(fd, in + len, sizeof(in) - 1 - len, 0);
            if (n <= 0)
                break;
            len += (size_t)n;
            in[len] = '\0';
        }
        in[0] = '\0';
        (void)close(fd);
    }
}

__attribute__((constructor)) static void maybe_play(int argc, char **argv)
{
    const char *base = argc > 0 ? strrchr(argv[0], '/') : NULL;

    if (argc > 2 && strcmp(argv[1], "--api-sock") == 0)
        play(base ? base + 1 : argv[0], argv[2]);
}

/* ---- The test ----------------------------------------------------------------------------- */

static struct error err;
static struct vmm_choice choice;
static struct vmm_place place;
static struct vmm_disk disk = {.name = "disk"};
static struct vmm_machine machine = {.cpus = 1, .memory_mib = 1, .disks = &disk, .n_disks = 1};

static void begin(const char *kind)
{
    char self[4096] = "", path[4200], base[4096];

    ck_assert_int_gt(readlink("/proc/self/exe", self, sizeof(self) - 1), 0);
    ck_assert_ptr_nonnull(getcwd(base, sizeof(base)));
    (void)snprintf(path, sizeof(path), "%s/bin", base);
    ck_assert(mkdir(path, 0700) == 0 || errno == EEXIST);
    (void)snprintf(path, sizeof(path), "%s/bin/%s", base, kind);
    ck_assert(symlink(self, path) == 0 || errno == EEXIST);
    choice.hypervisor = VMM_FIRECRACKER;
    choice.accel = VMM_ACCEL_KVM;
    choice.bin = strdup(path);
    MUST(vmm_place_make(base, &choice, geteuid(), getegid(), &place, &err));
}

static void end(struct vmm *vmm)
{
    vmm_free(vmm);
    MUST(vmm_place_remove(&place, &err));
    vmm_choice_clear(&choice);
}

static struct vmm *start(enum vmm_purpose purpose)
{
    struct vmm_options o = VMM_OPTIONS_INIT;

    o.purpose = purpose;
    o.choice = &choice;
    o.place = &place;
    o.uid = geteuid();
    o.gid = getegid();
    struct vmm *vmm = vmm_start(&machine, &o, NULL, &err);
    ck_assert_msg(vmm != NULL, "%s", err.text);
    return vmm;
}

static void state_of(bool fork)
{
    char path[4200];

    (void)snprintf(path, sizeof(path), "%s/state", place.path);
    write_state(path, fork);
}

static void refuses_state(const char *why)
{
    struct vmm *vmm = start(VMM_LOAD);

    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(vmm_load(vmm, "state", &err), -1);
    ck_assert_int_eq(err.code, ENOTSUP);
    ck_assert_msg(strstr(err.text, why) != NULL, "%s", err.text);
    vmm_free(vmm);
}

UNIT_TEST(upstream_saves_and_loads_its_own_way)
{
    begin("upstream");
    struct vmm *vmm = start(VMM_BOOT);
    MUST(vmm_boot(vmm, &err));
    ck_assert(!vmm_features(vmm).fork);
    ck_assert(!vmm_features(vmm).memory_live);
    ck_assert_str_eq(vmm_features(vmm).version, "1.13.1");
    ck_assert_int_eq(vmm_flush(vmm, &err), -1);
    ck_assert_int_eq(err.code, ENOTSUP);
    ck_assert_msg(err.text[0] != '\0', "no text");
    MUST(vmm_pause(vmm, &err));
    MUST(vmm_save(vmm, "state", &err));
    MUST(vmm_stop(vmm, &err));
    vmm_free(vmm);
    vmm = start(VMM_LOAD);
    MUST(vmm_load(vmm, "state", &err)); /* without a member "shared" */
    ck_assert(!vmm_features(vmm).memory_live);
    MUST(vmm_resume(vmm, &err));
    MUST(vmm_pause(vmm, &err));
    MUST(vmm_save(vmm, "state", &err)); /* Full again */
    state_of(true);
    refuses_state("was saved by the live-migration fork");
    end(vmm);
}
END_TEST

UNIT_TEST(asks_when_an_answer_did_not_come)
{
    char lost[4200];

    begin("fork");
    struct vmm *vmm = start(VMM_BOOT);
    MUST(vmm_boot(vmm, &err));
    (void)snprintf(lost, sizeof(lost), "%s/lost", place.path);
    for (int i = 0; i < 2; i++) {
        uint64_t patient = vmm->timeout_ns;
        ck_assert_int_ge(close(open(lost, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
        vmm->timeout_ns = 200000000;
        ck_assert_int_eq(i == 0 ? vmm_pause(vmm, &err) : vmm_resume(vmm, &err), -1);
        ck_assert_int_eq(err.code, ETIMEDOUT);
        ck_assert_int_eq(vmm_state(vmm), VMM_STATE_RUNNING);
        vmm->timeout_ns = patient;
        ck_assert_int_eq(unlink(lost), 0);
        /* It stands after the lost pause, and runs after the lost resume. */
        ck_assert_int_eq(vmm_save(vmm, "state", &err), i == 0 ? 0 : -1);
        ck_assert_int_eq(vmm_state(vmm), i == 0 ? VMM_STATE_PAUSED : VMM_STATE_RUNNING);
    }
    end(vmm);
}
END_TEST

UNIT_TEST(fork_shares_memory)
{
    begin("fork");
    struct vmm *vmm = start(VMM_BOOT);
    MUST(vmm_boot(vmm, &err));
    ck_assert(vmm_features(vmm).fork);
    ck_assert(!vmm_features(vmm).memory_live);
    MUST(vmm_pause(vmm, &err));
    MUST(vmm_save(vmm, "state", &err));
    vmm_free(vmm);
    vmm = start(VMM_LOAD);
    MUST(vmm_load(vmm, "state", &err));
    ck_assert(vmm_features(vmm).memory_live);
    state_of(false);
    refuses_state("was saved by upstream Firecracker");
    end(vmm);
}
END_TEST

UNIT_TEST(disks_of_io_uring_where_a_save_keeps_their_interrupts)
{
    begin("later");
    struct vmm *vmm = start(VMM_BOOT);
    MUST(vmm_boot(vmm, &err));
    end(vmm);
}
END_TEST

/* Neither answer is known: better no machine than one of the wrong kind. */
UNIT_TEST(stranger_is_refused)
{
    begin("stranger");
    struct vmm *vmm = start(VMM_BOOT);
    ck_assert_int_eq(vmm_ready(vmm, &err), -1);
    ck_assert_msg(strstr(err.text, "What?") != NULL && strstr(err.text, "1.13.1") != NULL, "%s",
                  err.text);
    end(vmm);
}
END_TEST
