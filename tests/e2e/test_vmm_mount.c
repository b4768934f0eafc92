// SPDX-License-Identifier: Apache-2.0
/* test_vmm_mount.c - machines whose memory and disk lie on our own mount, inside the VM directory
 *
 * Start, pause, save, load and run, CYCLES times; between two lives of the machine the mount and
 * the stacks below it are closed and opened anew, so what the guest wrote must have reached the
 * files. The memory is looked at through the stack, as a migration does, not through the mount.
 * On QEMU, and on Firecracker when $FIRECRACKER_BIN is set, with the jailer when $JAILER_BIN is,
 * which locks the process into the VM directory with a user of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/output.h"
#include "runtime/block/filter/dirty.h"
#include "runtime/memory/memory.h"
#include "runtime/vmm/vmm.h"
#include "tests/guest/testguest.h"
#include "tests/lib/unit.h"

#define CYCLES 20
#define MEMORY_MIB 32
#define MEMORY ((uint64_t)MEMORY_MIB << 20)
#define LINE_TIMEOUT_MS 60000
#define NOBODY 65534

UNIT_TIMEOUT(300);

struct host {
    char base[64];
    struct vmm_choice choice;
    struct vmm_place place;
    struct vmm_machine machine;
    struct vmm_disk disk;
    struct mount *mount;
    struct memory *memory;
    struct block *stack; /* of the disk */
    struct bitmap pages;
    struct vmm *vmm;
    uid_t uid;
    gid_t gid;
    int in[2], out[2]; /* console */
    char line[512];
    size_t len;
    struct error err;
};

#define must(call) ck_assert_msg((call) >= 0, "%s: %s", #call, h->err.text)
#define there(pointer) ck_assert_msg((pointer) != NULL, "%s: %s", #pointer, h->err.text)

static void path_of(const struct host *h, char path[256], const char *name)
{
    (void)snprintf(path, 256, "%s/%s", h->base, name);
}

static struct block *open_text(struct host *h, const char *name, const char *format)
{
    char text[1024];

    (void)snprintf(text, sizeof(text), format, h->base, h->base, h->base);
    struct block *b = block_open(text, strlen(text), name, NULL, &h->err);
    there(b);
    return b;
}

/* Stacks, mount and files, as before every life of the machine. */
static void serve(struct host *h)
{
    char folder[512];

    (void)snprintf(folder, sizeof(folder), "%s/m", h->place.path);
    h->mount = mount_new(folder, NULL, &h->err);
    there(h->mount);
    h->memory = memory_open(
        h->mount, "memory", 0600, h->uid, h->gid,
        open_text(h, "memory",
                  "[{\"type\":\"sparse\",\"size\":33554432,\"path\":\"%s/memory.base\"},"
                  "{\"type\":\"cow\",\"overlay\":\"%s/memory.o\",\"state\":\"%s/memory.s\"}]"),
        &h->err);
    there(h->memory);
    h->stack = open_text(h, "disk",
                         "[{\"type\":\"file\",\"path\":\"%s/disk.base\",\"readonly\":true},"
                         "{\"type\":\"cow\",\"overlay\":\"%s/disk.o\",\"state\":\"%s/disk.s\"}]");
    must(mount_add_block(h->mount, "disk", 0600, h->uid, h->gid, h->stack, &h->err));
    must(mount_start(h->mount, &h->err));
}

static void unserve(struct host *h)
{
    must(mount_stop(h->mount, &h->err));
    mount_free(h->mount);
    must(memory_close(h->memory, &h->err));
    must(block_close(h->stack, &h->err));
    h->mount = NULL;
}

static void begin(struct host *h, enum vmm_hypervisor hypervisor, bool jailed, uid_t uid)
{
    const char *top = getenv("TEST_TOP"), *firecracker = getenv("FIRECRACKER_BIN"),
               *jailer = getenv("JAILER_BIN");
    char kernel[512], name[512];

    if (access("/dev/fuse", R_OK | W_OK) != 0)
        unit_skip("no /dev/fuse, or not for this user");
    if (uid != geteuid() && geteuid() != 0)
        unit_skip("needs root");
    if (hypervisor == VMM_FIRECRACKER && (!firecracker || !firecracker[0]))
        unit_skip("needs FIRECRACKER_BIN");
    if (hypervisor == VMM_FIRECRACKER && access("/dev/kvm", R_OK | W_OK) < 0)
        unit_skip("needs /dev/kvm");
    if (jailed && (!jailer || !jailer[0]))
        unit_skip("needs JAILER_BIN");
    memset(h, 0, sizeof(*h));
    h->uid = uid;
    h->gid = uid == geteuid() ? getegid() : (gid_t)uid;
    struct vmm_wish wish = {.hypervisor = hypervisor,
                            .firecracker_bin = firecracker,
                            .jailer_bin = jailed ? jailer : ""};
    must(vmm_choose(&wish, NULL, &h->choice, &h->err));
    (void)snprintf(h->base, sizeof(h->base), "/tmp/vmm-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(h->base));
    ck_assert_int_eq(chmod(h->base, 0755), 0);
    must(vmm_place_make(h->base, &h->choice, uid, h->gid, &h->place, &h->err));
    /* Copied: behind a jail's root no path leads out. */
    (void)snprintf(kernel, sizeof(kernel), "cp %s/tests/guest/testguest %s/kernel",
                   top ? top : "../../..", h->place.path);
    ck_assert_int_eq(system(kernel), 0);
    path_of(h, name, "disk.base");
    int fd = open(name, O_CREAT | O_WRONLY, 0600);
    ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
    (void)close(fd);
    (void)snprintf(name, sizeof(name), "%s/m", h->place.path);
    ck_assert_int_eq(mkdir(name, 0755), 0);
    static const char *const files[] = {"memory", "disk"};
    for (int i = 0; i < 2; i++) {
        char target[32];
        (void)snprintf(target, sizeof(target), "m/%s", files[i]);
        (void)snprintf(name, sizeof(name), "%s/%s", h->place.path, files[i]);
        ck_assert_int_eq(symlink(target, name), 0);
    }
    ck_assert_int_eq(pipe2(h->in, O_CLOEXEC), 0);
    ck_assert_int_eq(pipe2(h->out, O_CLOEXEC), 0);
    h->disk = (struct vmm_disk){.name = "disk", .sync = true};
    h->machine = (struct vmm_machine){.cpus = 1,
                                      .memory_mib = MEMORY_MIB,
                                      .boot_args = "pages=256 seed=7 rate=8 beat=3",
                                      .disks = &h->disk,
                                      .n_disks = 1};
    must(bitmap_init(&h->pages, MEMORY / BLOCK_PAGE, &h->err));
    serve(h);
}

static void finish(struct host *h)
{
    vmm_free(h->vmm);
    unserve(h);
    must(vmm_place_remove(&h->place, &h->err));
    must(output_remove_tree(AT_FDCWD, h->base, &h->err));
    vmm_choice_clear(&h->choice);
    bitmap_destroy(&h->pages);
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
    o.uid = h->uid;
    o.gid = h->gid;
    o.console_in = h->in[0];
    o.console_out = h->out[1];
    h->vmm = vmm_start(&h->machine, &o, NULL, &h->err);
    there(h->vmm);
    h->len = 0;
}

/* Waits for a line that begins so. */
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

static void drop_lines(struct host *h)
{
    char buf[4096];
    struct pollfd fds = {.fd = h->out[0], .events = POLLIN};

    while (poll(&fds, 1, 0) == 1)
        ck_assert_int_gt(read(h->out[0], buf, sizeof(buf)), 0);
    h->len = 0;
}

/* What the stack holds of a machine that stands still; every page that differs from the last look
 * must be among those that memory_look() names. */
static struct testguest check_memory(struct host *h)
{
    static uint8_t last[MEMORY], now[MEMORY];
    struct testguest_fault fault;
    struct testguest control;
    uint64_t n;

    bitmap_clear_all(&h->pages);
    must(memory_look(h->memory, &h->pages, &n, &h->err));
    must(block_read(memory_stack(h->memory), now, MEMORY, 0, &h->err));
    memcpy(&control, now + TESTGUEST_CONTROL, sizeof(control));
    ck_assert_uint_eq(control.magic, TESTGUEST_MAGIC);
    int rc = testguest_check(&control, now + TESTGUEST_PATTERN, &fault);
    ck_assert_msg(rc == 0, "page %ju word %ju: %jx instead of %jx after %ju writes",
                  (uintmax_t)fault.page, (uintmax_t)fault.word, (uintmax_t)fault.got,
                  (uintmax_t)fault.want, (uintmax_t)control.writes);
    for (uint64_t page = 0; page < MEMORY / BLOCK_PAGE; page++)
        if (memcmp(now + page * BLOCK_PAGE, last + page * BLOCK_PAGE, BLOCK_PAGE) != 0)
            ck_assert_msg(bitmap_get(&h->pages, page), "page %ju changed, and no look told of it",
                          (uintmax_t)page);
    memcpy(last, now, MEMORY);
    return control;
}

static void cycles(enum vmm_hypervisor hypervisor, bool jailed, uid_t uid)
{
    static struct host host;
    struct host *h = &host;

    begin(h, hypervisor, jailed, uid);
    start(h, VMM_BOOT);
    must(vmm_boot(h->vmm, &h->err));
    wait_line(h, "testguest ready");
    wait_line(h, "tick");
    must(vmm_pause(h->vmm, &h->err));
    must(vmm_save(h->vmm, "state", &h->err));
    struct testguest now = check_memory(h), was;
    must(vmm_stop(h->vmm, &h->err));
    cleanup_free char *text = vmm_machine_format(vmm_machine(h->vmm), &h->err);
    there(text);
    cleanup_vmm_machine struct vmm_machine *parsed = vmm_machine_parse(text, strlen(text), &h->err);
    there(parsed);
    h->machine = *parsed;
    for (int i = 0; i < CYCLES; i++) {
        vmm_free(h->vmm);
        h->vmm = NULL;
        unserve(h);
        serve(h);
        was = now;
        drop_lines(h);
        start(h, VMM_LOAD);
        must(vmm_load(h->vmm, "state", &h->err));
        now = check_memory(h);
        ck_assert_uint_eq(now.ticks, was.ticks); /* loaded, not run */
        ck_assert_uint_eq(now.writes, was.writes);
        must(vmm_resume(h->vmm, &h->err));
        wait_line(h, "tick");
        wait_line(h, "tick"); /* between the two it has written */
        must(vmm_flush(h->vmm, &h->err));
        must(vmm_pause(h->vmm, &h->err));
        must(vmm_save(h->vmm, "state", &h->err));
        now = check_memory(h);
        ck_assert_uint_gt(now.writes, was.writes);
        if (i + 1 < CYCLES)
            must(vmm_stop(h->vmm, &h->err));
    }
    must(vmm_resume(h->vmm, &h->err));
    ck_assert_int_eq(write(h->in[1], "verify\n", 7), 7);
    wait_line(h, "verify ok");
    must(vmm_stop(h->vmm, &h->err));
    finish(h);
}

UNIT_TEST(qemu)
{
    cycles(VMM_QEMU, false, geteuid());
}
END_TEST

UNIT_TEST(qemu_as_another_user)
{
    cycles(VMM_QEMU, false, NOBODY);
}
END_TEST

UNIT_TEST(firecracker)
{
    cycles(VMM_FIRECRACKER, false, geteuid());
}
END_TEST

UNIT_TEST(firecracker_in_the_jail)
{
    cycles(VMM_FIRECRACKER, true, NOBODY);
}
END_TEST
