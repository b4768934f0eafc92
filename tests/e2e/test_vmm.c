// SPDX-License-Identifier: Apache-2.0
/* test_vmm.c - machines that really run: start, pause, save, load paused, run, and end
 *
 * The freestanding test guest runs on QEMU, and on Firecracker when $FIRECRACKER_BIN is set. Its
 * memory file is looked at from outside after every save, so a page that went stale or ran ahead is
 * seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "runtime/base/io.h"
#include "runtime/base/output.h"
#include "runtime/vmm/driver.h"
#include "tests/guest/testguest.h"
#include "tests/lib/unit.h"

#define CYCLES 50
#define MEMORY_MIB 32
#define PAGES 256
#define LINE_TIMEOUT_MS 60000
#define SECOND UINT64_C(1000000000)

UNIT_TIMEOUT(300);

struct host {
    char base[64]; /* on tmpfs: guest memory lives there too */
    struct vmm_choice choice;
    struct vmm_place place;
    struct vmm_machine machine;
    struct vmm *vmm;
    int in[2], out[2]; /* console */
    char line[512];
    size_t len;
    struct error err;
};

#define must(call) ck_assert_msg((call) >= 0, "%s: %s", #call, h->err.text)

static void begin(struct host *h, enum vmm_hypervisor hypervisor)
{
    const char *top = getenv("TEST_TOP"), *firecracker = getenv("FIRECRACKER_BIN");
    struct vmm_wish wish = {
        .hypervisor = hypervisor, .firecracker_bin = firecracker, .jailer_bin = ""};
    char kernel[512], name[256];

    if (hypervisor == VMM_FIRECRACKER && (!firecracker || !firecracker[0]))
        unit_skip("needs FIRECRACKER_BIN");
    if (hypervisor == VMM_FIRECRACKER && access("/dev/kvm", R_OK | W_OK) < 0)
        unit_skip("needs /dev/kvm");
    memset(h, 0, sizeof(*h));
    must(vmm_choose(&wish, NULL, &h->choice, &h->err));
    (void)snprintf(h->base, sizeof(h->base), "/dev/shm/vmm-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(h->base));
    must(vmm_place_make(h->base, &h->choice, geteuid(), getegid(), &h->place, &h->err));
    (void)snprintf(kernel, sizeof(kernel), "%s/tests/guest/testguest", top ? top : "../../..");
    (void)snprintf(name, sizeof(name), "%s/kernel", h->place.path);
    ck_assert_int_eq(symlink(kernel, name), 0);
    ck_assert_int_eq(pipe2(h->in, O_CLOEXEC), 0);
    ck_assert_int_eq(pipe2(h->out, O_CLOEXEC), 0);
    h->machine = (struct vmm_machine){
        .cpus = 1, .memory_mib = MEMORY_MIB, .boot_args = "pages=256 seed=7 rate=8 beat=3"};
}

static void finish(struct host *h)
{
    vmm_free(h->vmm);
    must(vmm_place_remove(&h->place, &h->err));
    must(output_remove_tree(AT_FDCWD, h->base, &h->err));
    vmm_choice_clear(&h->choice);
    for (int i = 0; i < 2; i++) {
        (void)close(h->in[i]);
        (void)close(h->out[i]);
    }
}

static void start(struct host *h, enum vmm_purpose purpose)
{
    struct vmm_options o = VMM_OPTIONS_INIT;

    o.purpose = purpose;
    o.choice = &h->choice;
    o.place = &h->place;
    o.uid = geteuid();
    o.gid = getegid();
    o.console_in = h->in[0];
    o.console_out = h->out[1];
    o.guest_announces = true; /* QEMU takes the number of rounds that says so */
    h->vmm = vmm_start(&h->machine, &o, NULL, &h->err);
    ck_assert_msg(h->vmm != NULL, "%s", h->err.text);
    h->len = 0;
}

/* Waits for a line that begins so; it is then in h->line. */
static void wait_line(struct host *h, const char *prefix)
{
    for (;;) {
        char c;
        struct pollfd fds = {.fd = h->out[0], .events = POLLIN};
        ck_assert_msg(poll(&fds, 1, LINE_TIMEOUT_MS) == 1, "no line \"%s...\" in time", prefix);
        ck_assert_int_eq(read(h->out[0], &c, 1), 1);
        if (c != '\n') {
            if (h->len < sizeof(h->line) - 1)
                h->line[h->len++] = c;
            continue;
        }
        h->line[h->len] = '\0';
        h->len = 0;
        if (strncmp(h->line, prefix, strlen(prefix)) == 0)
            return;
        ck_assert_msg(strncmp(h->line, "fault", 5) != 0 && !strstr(h->line, "BAD"), "%s", h->line);
    }
}

/* Drops what the console said before: the next line is one of now. */
static void drop_lines(struct host *h)
{
    char buf[4096];
    struct pollfd fds = {.fd = h->out[0], .events = POLLIN};

    while (poll(&fds, 1, 0) == 1)
        ck_assert_int_gt(read(h->out[0], buf, sizeof(buf)), 0);
    h->len = 0;
}

static void boot(struct host *h)
{
    start(h, VMM_BOOT);
    must(vmm_boot(h->vmm, &h->err));
    wait_line(h, "testguest ready");
}

/* Looks at the memory file of a machine that stands still. Returns its control block. */
static struct testguest check_memory(struct host *h)
{
    char name[256];
    struct testguest_fault fault;

    (void)snprintf(name, sizeof(name), "%s/memory", h->place.path);
    cleanup_close int fd = open(name, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    uint8_t *map = mmap(NULL, MEMORY_MIB << 20, PROT_READ, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(map, MAP_FAILED);
    struct testguest control;
    memcpy(&control, map + TESTGUEST_CONTROL, sizeof(control));
    ck_assert_uint_eq(control.magic, TESTGUEST_MAGIC);
    ck_assert_uint_eq(control.pages, PAGES);
    int rc = testguest_check(&control, map + TESTGUEST_PATTERN, &fault);
    ck_assert_msg(rc == 0, "page %ju word %ju: %jx instead of %jx after %ju writes",
                  (uintmax_t)fault.page, (uintmax_t)fault.word, (uintmax_t)fault.got,
                  (uintmax_t)fault.want, (uintmax_t)control.writes);
    ck_assert_int_eq(munmap(map, MEMORY_MIB << 20), 0);
    return control;
}

static void cycles(enum vmm_hypervisor hypervisor)
{
    struct host host, *h = &host;

    begin(h, hypervisor);
    boot(h);
    wait_line(h, "tick");
    must(vmm_pause(h->vmm, &h->err));
    must(vmm_pause(h->vmm, &h->err)); /* idempotent */
    /* As after answers that did not come: the hypervisor is asked, and says what it does. */
    h->vmm->unsure = true;
    must(vmm_pause(h->vmm, &h->err));
    ck_assert(!h->vmm->unsure);
    h->vmm->unsure = true;
    must(vmm_resume(h->vmm, &h->err));
    h->vmm->unsure = true;
    ck_assert_int_eq(vmm_save(h->vmm, "state", &h->err), -1);
    ck_assert_int_eq(vmm_state(h->vmm), VMM_STATE_RUNNING);
    drop_lines(h);
    wait_line(h, "tick");
    must(vmm_pause(h->vmm, &h->err));
    h->vmm->unsure = true;
    must(vmm_save(h->vmm, "state", &h->err));
    struct testguest was = check_memory(h);
    /* A machine that was saved runs on: what a migration that failed needs. */
    must(vmm_resume(h->vmm, &h->err));
    drop_lines(h);
    wait_line(h, "tick");
    wait_line(h, "tick");
    must(vmm_pause(h->vmm, &h->err));
    must(vmm_save(h->vmm, "state", &h->err));
    struct testguest now = check_memory(h);
    ck_assert_uint_gt(now.writes, was.writes);
    must(vmm_stop(h->vmm, &h->err));
    ck_assert_int_eq(vmm_state(h->vmm), VMM_STATE_EXITED);

    /* From here on the machine is what its description says, as on another host. */
    cleanup_free char *text = vmm_machine_format(vmm_machine(h->vmm), &h->err);
    ck_assert_ptr_nonnull(text);
    cleanup_vmm_machine struct vmm_machine *parsed = vmm_machine_parse(text, strlen(text), &h->err);
    ck_assert_msg(parsed != NULL, "%s", h->err.text);
    h->machine = *parsed;
    vmm_free(h->vmm);
    h->vmm = NULL;

    for (int i = 0; i < CYCLES; i++) {
        was = now;
        drop_lines(h);
        start(h, VMM_LOAD);
        must(vmm_ready(h->vmm, &h->err));
        must(vmm_load(h->vmm, "state", &h->err));
        ck_assert_int_eq(vmm_state(h->vmm), VMM_STATE_PAUSED);
        now = check_memory(h);
        ck_assert_uint_eq(now.ticks, was.ticks); /* loaded, not run */
        must(vmm_resume(h->vmm, &h->err));
        ck_assert_int_eq(vmm_state(h->vmm), VMM_STATE_RUNNING);
        wait_line(h, "tick");
        wait_line(h, "tick"); /* between the two it has written */
        ck_assert(vmm_features(h->vmm).memory_live);
        must(vmm_flush(h->vmm, &h->err));
        must(vmm_pause(h->vmm, &h->err));
        must(vmm_save(h->vmm, "state", &h->err));
        now = check_memory(h);
        ck_assert_uint_gt(now.writes, was.writes);
        if (i + 1 < CYCLES) {
            must(vmm_stop(h->vmm, &h->err));
            vmm_free(h->vmm);
            h->vmm = NULL;
        }
    }
    /* The guest itself agrees, and its reboot ends the process. */
    must(vmm_resume(h->vmm, &h->err));
    ck_assert_int_eq(write(h->in[1], "verify\n", 7), 7);
    wait_line(h, "verify ok");
    ck_assert_int_eq(write(h->in[1], "off\n", 4), 4);
    struct vmm_exit end;
    must(vmm_wait_exit(h->vmm, 60 * SECOND, &end, &h->err));
    ck_assert_msg(end.clean && !end.asked, "%s; %s", end.text, end.console);
    finish(h);
}

UNIT_TEST(cycles_qemu)
{
    cycles(VMM_QEMU);
}
END_TEST

UNIT_TEST(cycles_firecracker)
{
    cycles(VMM_FIRECRACKER);
}
END_TEST

static void crash(enum vmm_hypervisor hypervisor)
{
    struct host host, *h = &host;
    struct vmm_exit end;

    begin(h, hypervisor);
    boot(h);
    ck_assert_int_eq(kill(vmm_pid(h->vmm), SIGKILL), 0);
    struct pollfd fds = {.fd = vmm_exit_fd(h->vmm), .events = POLLIN};
    ck_assert_int_eq(poll(&fds, 1, 60000), 1);
    ck_assert_int_eq(vmm_state(h->vmm), VMM_STATE_EXITED);
    ck_assert_int_eq(vmm_pause(h->vmm, &h->err), -1);
    ck_assert_msg(strstr(h->err.text, "killed by signal 9") != NULL, "%s", h->err.text);
    ck_assert_msg(strstr(h->err.text, "testguest ready") != NULL, "%s", h->err.text);
    must(vmm_wait_exit(h->vmm, 0, &end, &h->err));
    ck_assert(!end.clean && !end.asked);
    finish(h);
}

UNIT_TEST(crash_qemu)
{
    crash(VMM_QEMU);
}
END_TEST

UNIT_TEST(crash_firecracker)
{
    crash(VMM_FIRECRACKER);
}
END_TEST

static void refusals(enum vmm_hypervisor hypervisor)
{
    struct host host, *h = &host;
    char name[256];

    begin(h, hypervisor);
    start(h, VMM_BOOT);
    ck_assert_int_eq(vmm_pause(h->vmm, &h->err), -1);
    ck_assert_int_eq(vmm_save(h->vmm, "state", &h->err), -1);
    ck_assert_int_eq(vmm_load(h->vmm, "state", &h->err), -1);
    must(vmm_boot(h->vmm, &h->err));
    ck_assert_int_eq(vmm_boot(h->vmm, &h->err), -1);
    ck_assert_int_eq(vmm_save(h->vmm, "state", &h->err), -1); /* it runs */
    wait_line(h, "testguest ready");
    must(vmm_pause(h->vmm, &h->err));
    ck_assert_int_eq(vmm_save(h->vmm, "../state", &h->err), -1);
    must(vmm_save(h->vmm, "state", &h->err));
    must(vmm_stop(h->vmm, &h->err));
    vmm_free(h->vmm);
    h->vmm = NULL;
    /* A state that is cut short is refused, and says so. */
    (void)snprintf(name, sizeof(name), "%s/state", h->place.path);
    struct stat st;
    ck_assert_int_eq(stat(name, &st), 0);
    ck_assert_int_eq(truncate(name, st.st_size / 2), 0);
    start(h, VMM_LOAD);
    ck_assert_int_eq(vmm_load(h->vmm, "state", &h->err), -1);
    ck_assert_int_eq(h->err.code, EBADMSG);
    vmm_free(h->vmm);
    h->vmm = NULL;
    /* As is a memory file that is. */
    (void)snprintf(name, sizeof(name), "%s/memory", h->place.path);
    ck_assert_int_eq(truncate(name, MEMORY_MIB << 19), 0);
    start(h, VMM_LOAD);
    ck_assert_int_eq(vmm_load(h->vmm, "state", &h->err), -1);
    ck_assert_msg(strstr(h->err.text, "cut short") != NULL, "%s", h->err.text);
    finish(h);
}

UNIT_TEST(refusals_qemu)
{
    refusals(VMM_QEMU);
}
END_TEST

UNIT_TEST(refusals_firecracker)
{
    refusals(VMM_FIRECRACKER);
}
END_TEST
