// SPDX-License-Identifier: Apache-2.0
/* test_testguest.c - the freestanding test guest: its pattern's arithmetic, and the guest itself on
 * QEMU (TCG) and, with $FIRECRACKER_BIN, on Firecracker, its memory looked at from outside */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/spawn.h"
#include "tests/guest/testguest.h"
#include "tests/lib/unit.h"

#define MEMORY (64 << 20)
#define PAGES 200

static uint64_t words[4][TESTGUEST_WORDS];

/* What the guest's write_page() does, up to `steps` words. */
static void write_page(struct testguest *c, unsigned steps)
{
    uint64_t page = c->writes % c->pages;

    for (unsigned i = 0; i < steps; i++)
        words[page][i] = testguest_base(c->seed, page, c->writes) + i * TESTGUEST_STEP;
    c->writing = steps < TESTGUEST_WORDS ? page + 1 : 0;
    c->writes += steps == TESTGUEST_WORDS;
}

UNIT_TEST(pattern_holds_at_every_write)
{
    struct testguest c = {.pages = 4, .seed = 3};
    struct testguest_fault f;

    for (int n = 0; n < 23; n++) {
        for (unsigned steps = 0; steps <= TESTGUEST_WORDS; steps += 64) {
            write_page(&c, steps);
            ck_assert_int_eq(testguest_check(&c, words, &f), 0);
        }
        c.writing = (c.writes - 1) % c.pages + 1; /* stopped right before it is cleared */
        ck_assert_int_eq(testguest_check(&c, words, &f), 0);
        c.writing = 0;
    }
}
END_TEST

UNIT_TEST(pattern_faults_are_found)
{
    struct testguest c = {.pages = 4, .seed = 3};
    struct testguest_fault f = {.page = 99};
    uint64_t stale[TESTGUEST_WORDS];

    for (int n = 0; n < 6; n++)
        write_page(&c, TESTGUEST_WORDS);
    memcpy(stale, words[2], sizeof(stale));
    for (int n = 0; n < 4; n++)
        write_page(&c, TESTGUEST_WORDS);
    ck_assert_int_eq(testguest_check(&c, words, &f), 0);
    words[1][511] ^= 1; /* one bit */
    ck_assert_int_eq(testguest_check(&c, words, &f), -1);
    ck_assert(f.page == 1 && f.word == 511 && f.got == (f.want ^ 1));
    words[1][511] ^= 1;
    c.writes--; /* a page ahead of the control page */
    ck_assert_int_eq(testguest_check(&c, words, &f), -1);
    c.writes++;
    memcpy(words[2], stale, sizeof(stale)); /* a page that stayed behind */
    ck_assert_int_eq(testguest_check(&c, words, &f), -1);
    ck_assert_uint_eq(f.page, 2);
    c = (struct testguest){.pages = 4, .seed = 3, .writes = 2};
    memset(words, 0, sizeof(words));
    c.writes = 0;
    write_page(&c, TESTGUEST_WORDS);
    ck_assert_int_eq(testguest_check(&c, words, &f), 0);
    words[3][5] = 1; /* never written, so it must be zero */
    ck_assert_int_eq(testguest_check(&c, words, &f), -1);
    ck_assert_uint_eq(f.page, 3);
}
END_TEST

/* A running guest. */
struct machine {
    pid_t pid;
    int in, out;
    char line[256];
};

static void say(struct machine *m, const char *text)
{
    ck_assert_int_eq(write(m->in, text, strlen(text)), (ssize_t)strlen(text));
}

/* Reads lines until one starts with `start`. */
static void expect(struct machine *m, const char *start)
{
    size_t len = 0;

    for (;;) {
        struct pollfd p = {.fd = m->out, .events = POLLIN};
        ck_assert_msg(poll(&p, 1, 100000) == 1, "no \"%s\" came", start);
        char c;
        ck_assert_msg(read(m->out, &c, 1) == 1, "ended before \"%s\" came", start);
        if (c != '\n') {
            m->line[len] = c;
            len += len < sizeof(m->line) - 1;
            continue;
        }
        m->line[len] = '\0';
        len = 0;
        ck_assert_msg(!strstr(m->line, "fault") && !strstr(m->line, "BAD"), "%s", m->line);
        if (strncmp(m->line, start, strlen(start)) == 0)
            return;
    }
}

static void start(struct machine *m, const char *const *argv)
{
    struct error err = ERROR_INIT;
    int in[2], out[2];

    ck_assert_int_eq(pipe2(in, O_CLOEXEC), 0);
    ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
    struct spawn_options so = {
        .argv = argv, .stdin_fd = in[0], .stdout_fd = out[1], .stderr_fd = -1, .new_group = true};
    if (spawn_start(&so, &m->pid, NULL, &err) < 0)
        ck_abort_msg("%s", err.text);
    close(in[0]);
    close(out[1]);
    m->in = in[1];
    m->out = out[0];
}

static void end(struct machine *m)
{
    int status;

    say(m, "off\n");
    expect(m, "off");
    ck_assert_int_eq(waitpid(m->pid, &status, 0), m->pid);
    ck_assert_int_eq(status, 0);
}

static const char *guest_path(void)
{
    static char path[4096];

    (void)snprintf(path, sizeof(path), "%s/tests/guest/testguest", getenv("TEST_TOP") ?: ".");
    return path;
}

/* Everything in the PATH or nothing: execvp would tell, but a skip must come first. */
static int has_program(const char *name)
{
    char command[256];

    (void)snprintf(command, sizeof(command), "command -v '%s' >/dev/null 2>&1", name);
    return system(command) == 0;
}

static void converse(struct machine *m)
{
    expect(m, "testguest ready pages=200 seed=7 rate=2 boot=");
    expect(m, "tick ");
    say(m, "verify\n");
    expect(m, "verify ok writes=");
    say(m, "nonsense\n");
    expect(m, "what?");
    say(m, "rate 5\n");
    expect(m, "rate=5");
    say(m, "write 300\n");
    expect(m, "wrote writes=");
    say(m, "verify\n");
    expect(m, "verify ok writes=");
}

UNIT_TEST(runs_on_qemu)
{
    static const char *argv[] = {"qemu-system-x86_64",
                                 "-machine",
                                 "q35,memory-backend=ram",
                                 "-accel",
                                 "tcg",
                                 "-m",
                                 "64",
                                 "-object",
                                 "memory-backend-file,id=ram,size=64M,share=on,mem-path=memory",
                                 "-nodefaults",
                                 "-display",
                                 "none",
                                 "-serial",
                                 "stdio",
                                 "-no-reboot",
                                 "-append",
                                 "pages=200 seed=7 rate=2 beat=5",
                                 "-kernel",
                                 NULL,
                                 NULL};
    struct testguest control;
    struct testguest_fault f;
    struct machine m;
    int status;

    if (!has_program(argv[0]))
        unit_skip("needs qemu-system-x86_64");
    argv[sizeof(argv) / sizeof(argv[0]) - 2] = guest_path();
    start(&m, argv);
    converse(&m);
    /* From outside, at any moment: the process is stopped, which may be in the middle of a page. */
    say(&m, "rate 1000000\n");
    expect(&m, "rate=");
    int fd = open("memory", O_RDONLY | O_CLOEXEC);
    const char *ram = mmap(NULL, MEMORY, PROT_READ, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(ram, MAP_FAILED);
    uint64_t before = 0;
    for (int i = 0; i < 20; i++) {
        expect(&m, "tick ");
        ck_assert_int_eq(kill(m.pid, SIGSTOP), 0);
        ck_assert_int_eq(waitpid(m.pid, &status, WUNTRACED), m.pid);
        ck_assert(WIFSTOPPED(status));
        memcpy(&control, ram + TESTGUEST_CONTROL, sizeof(control));
        ck_assert_uint_eq(control.magic, TESTGUEST_MAGIC);
        ck_assert_uint_eq(control.pages, PAGES);
        ck_assert_uint_gt(control.writes, before);
        before = control.writes;
        if (testguest_check(&control, ram + TESTGUEST_PATTERN, &f) < 0)
            ck_abort_msg("page %lu word %lu got %#lx want %#lx", f.page, f.word, f.got, f.want);
        ck_assert_int_eq(kill(m.pid, SIGCONT), 0);
    }
    end(&m);
    close(fd);
}
END_TEST

UNIT_TEST(runs_on_firecracker)
{
    const char *firecracker = getenv("FIRECRACKER_BIN");
    struct machine m;

    if (!firecracker || !*firecracker)
        unit_skip("no FIRECRACKER_BIN");
    if (access("/dev/kvm", R_OK | W_OK) < 0)
        unit_skip("needs /dev/kvm");
    FILE *file = fopen("config.json", "w");
    fprintf(
        file,
        "{\"boot-source\":{\"kernel_image_path\":\"%s\",\"boot_args\":\"pages=200 seed=7 rate=2 "
        "beat=5\"},\"drives\":[],\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":64}}",
        guest_path());
    fclose(file);
    const char *const argv[] = {firecracker, "--no-api", "--config-file", "config.json", NULL};
    start(&m, argv);
    converse(&m);
    end(&m);
}
END_TEST
