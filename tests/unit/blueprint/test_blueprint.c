// SPDX-License-Identifier: Apache-2.0
/* test_blueprint.c - the manifest: read, written, refused, compared with the files */
#include "tests/lib/unit.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blueprint/blueprint.h"
#include "runtime/base/bytes.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEAD                                                                                       \
    "{\"format\":\"drafter-blueprint\",\"version\":1,\"architecture\":\"x86_64\","                 \
    "\"bootArgs\":\"console=ttyS0\",\"livenessVSockPort\":25,\"agentVSockPort\":26,"
#define DEV(name, role, file)                                                                      \
    "{\"name\":\"" name "\",\"role\":\"" role "\",\"file\":\"" file                                \
    "\",\"size\":5,\"sha256\":\"" HEX64 "\"}"
#define KERNEL DEV("kernel", "kernel", "vmlinux")
#define DISK DEV("disk", "root", "rootfs.ext4")

static void write_file(const char *path, const void *data, size_t len)
{
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, len, f), len);
    ck_assert_int_eq(fclose(f), 0);
}

/* The smallest ELF that counts as a kernel: one loadable segment. */
static void write_kernel(const char *path, uint16_t machine)
{
    uint8_t elf[sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr)] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    put_le16(elf + 16, ET_EXEC);
    put_le16(elf + 18, machine);
    put_le64(elf + 32, sizeof(Elf64_Ehdr));
    put_le16(elf + 54, sizeof(Elf64_Phdr));
    put_le16(elf + 56, 1);
    put_le32(elf + sizeof(Elf64_Ehdr), PT_LOAD);
    write_file(path, elf, sizeof(elf));
}

static uint16_t host_machine(void)
{
    return strcmp(blueprint_host_architecture(), "x86_64") ? EM_AARCH64 : EM_X86_64;
}

static void make_good(void)
{
    struct error err = ERROR_INIT;
    write_kernel("k", host_machine());
    write_file("r", "root disk", 9);
    write_file("x", "extra", 5);
    const struct blueprint_source devices[] = {{"kernel", "k"}, {"disk", "r"}, {"my_disk", "x"}};
    const struct blueprint_make make = {.dir = "bp",
                                        .devices = devices,
                                        .n_devices = 3,
                                        .boot_args = "console=ttyS0 quiet",
                                        .image_reference = "docker://redis",
                                        .made_root = "by hand",
                                        .liveness_port = 25,
                                        .agent_port = 26};
    ck_assert_msg(blueprint_make(&make, NULL, &err) == 0, "%s", err.text);
}

UNIT_TEST(made_opened_verified)
{
    struct error err = ERROR_INIT;
    make_good();
    cleanup_blueprint struct blueprint *bp = blueprint_open("bp", &err);
    ck_assert_msg(bp != NULL, "%s", err.text);
    ck_assert_uint_eq(bp->n_devices, 3);
    ck_assert_str_eq(bp->boot_args, "console=ttyS0 quiet");
    ck_assert_str_eq(bp->architecture, blueprint_host_architecture());
    ck_assert_str_eq(bp->image_reference, "docker://redis");
    ck_assert_ptr_null(bp->image_digest);
    ck_assert_str_eq(bp->made_root, "by hand");
    ck_assert_uint_eq(bp->liveness_port, 25);
    ck_assert_uint_eq(bp->agent_port, 26);
    const struct blueprint_device *dev = blueprint_find(bp, "my_disk");
    ck_assert_ptr_nonnull(dev);
    ck_assert_str_eq(dev->file, "my_disk.bin");
    ck_assert_int_eq(dev->role, BLUEPRINT_DISK);
    ck_assert_uint_eq(dev->size, 5);
    ck_assert_ptr_null(blueprint_find(bp, "oci"));
    ck_assert_msg(blueprint_verify(bp, NULL, &err) == 0, "%s", err.text);
    int fd = -1;
    char buf[9];
    ck_assert_int_eq(blueprint_open_device(bp, blueprint_find(bp, "disk"), O_RDWR, &fd, &err), 0);
    ck_assert_int_eq(read(fd, buf, sizeof(buf)), 9);
    ck_assert_mem_eq(buf, "root disk", 9);
    close(fd);
}
END_TEST

UNIT_TEST(same_twice)
{
    struct error err = ERROR_INIT;
    make_good();
    cleanup_blueprint struct blueprint *a = blueprint_open("bp", &err);
    make_good();
    cleanup_blueprint struct blueprint *b = blueprint_open("bp", &err);
    ck_assert(a && b);
    cleanup_free char *at = blueprint_format(a, &err), *bt = blueprint_format(b, &err);
    ck_assert_str_eq(at, bt);
    cleanup_blueprint struct blueprint *c = blueprint_parse(at, strlen(at), "again", &err);
    ck_assert_ptr_nonnull(c);
    cleanup_free char *ct = blueprint_format(c, &err);
    ck_assert_str_eq(at, ct);
}
END_TEST

UNIT_TEST(wrong_digest_is_named)
{
    struct error err = ERROR_INIT;
    make_good();
    write_file("bp/rootfs.ext4", "toot disk", 9);
    cleanup_blueprint struct blueprint *bp = blueprint_open("bp", &err);
    ck_assert_ptr_nonnull(bp);
    ck_assert_int_lt(blueprint_verify(bp, NULL, &err), 0);
    ck_assert_int_eq(err.code, ESTALE);
    ck_assert_ptr_nonnull(strstr(err.text, "device disk"));
}
END_TEST

UNIT_TEST(wrong_file_is_refused)
{
    struct error err = ERROR_INIT;
    make_good();
    write_file("bp/rootfs.ext4", "short", 5);
    ck_assert_ptr_null(blueprint_open("bp", &err));
    ck_assert_int_eq(err.code, ESTALE);
    ck_assert_ptr_nonnull(strstr(err.text, "5 bytes, blueprint.json says 9"));

    make_good();
    ck_assert_int_eq(rename("bp/rootfs.ext4", "elsewhere"), 0);
    ck_assert_int_eq(symlink("../elsewhere", "bp/rootfs.ext4"), 0);
    ck_assert_ptr_null(blueprint_open("bp", &err));
    ck_assert_int_eq(err.code, ELOOP);

    ck_assert_int_eq(unlink("bp/rootfs.ext4"), 0);
    ck_assert_int_eq(mkfifo("bp/rootfs.ext4", 0600), 0);
    ck_assert_ptr_null(blueprint_open("bp", &err)); /* and does not hang */
    ck_assert_int_eq(err.code, ESTALE);

    ck_assert_int_eq(unlink("bp/rootfs.ext4"), 0);
    ck_assert_ptr_null(blueprint_open("bp", &err));
    ck_assert_int_eq(err.code, ENOENT);
    ck_assert_ptr_null(blueprint_open(".", &err));
    ck_assert_int_eq(err.code, ENOENT);
    ck_assert_ptr_nonnull(strstr(err.text, "make blueprint"));
}
END_TEST

UNIT_TEST(failed_make_leaves_no_manifest)
{
    struct error err = ERROR_INIT;
    make_good();
    ck_assert_int_eq(access("bp/blueprint.json", F_OK), 0);
    const struct blueprint_source missing[] = {{"kernel", "k"}, {"disk", "nothing"}};
    struct blueprint_make make = {.dir = "bp", .devices = missing, .n_devices = 2};
    ck_assert_int_lt(blueprint_make(&make, NULL, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "device disk: open nothing"));
    ck_assert_int_lt(access("bp/blueprint.json", F_OK), 0);

    write_kernel("arm", host_machine() == EM_X86_64 ? EM_AARCH64 : EM_X86_64);
    const struct blueprint_source foreign[] = {{"kernel", "arm"}, {"disk", "r"}};
    make.devices = foreign;
    ck_assert_int_lt(blueprint_make(&make, NULL, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "is an ELF file for "));

    const struct blueprint_source no_root[] = {{"kernel", "k"}, {"data", "r"}};
    make.devices = no_root;
    ck_assert_int_lt(blueprint_make(&make, NULL, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "none has the role root"));
    ck_assert_int_lt(access("bp/blueprint.json", F_OK), 0);
}
END_TEST

UNIT_TEST(what_is_no_longer_named_goes)
{
    struct error err = ERROR_INIT;
    make_good();
    write_file("bp/mine.txt", "mine", 4);
    const struct blueprint_source devices[] = {{"kernel", "k"}, {"disk", "r"}};
    const struct blueprint_make make = {
        .dir = "bp", .devices = devices, .n_devices = 2, .liveness_port = 1, .agent_port = 2};
    ck_assert_int_eq(blueprint_make(&make, NULL, &err), 0);
    ck_assert_int_lt(access("bp/my_disk.bin", F_OK), 0);
    ck_assert_int_eq(access("bp/mine.txt", F_OK), 0);
}
END_TEST

UNIT_TEST(unknown_keys_are_ignored)
{
    struct error err = ERROR_INIT;
    const char *text = HEAD "\"later\":[1,{}],\"devices\":[" KERNEL "," DISK "]}";
    cleanup_blueprint struct blueprint *bp = blueprint_parse(text, strlen(text), "m", &err);
    ck_assert_msg(bp != NULL, "%s", err.text);
}
END_TEST

UNIT_TEST(bad_manifests)
{
    static const struct {
        const char *text, *wanted;
    } cases[] = {
        {"", ""},
        {"[]", "is no JSON object"},
        {"{\"format\":\"drafter-blueprint\",\"version\":2}", "version: is 2"},
        {"{\"format\":\"drafter-blueprint\"}", "version is missing"},
        {"{\"format\":\"other\",\"version\":1}", "format: \"other\""},
        {HEAD "\"devices\":[" KERNEL "]}", "none has the role root"},
        {HEAD "\"devices\":[" DISK "]}", "none has the role kernel"},
        {HEAD "\"devices\":[" KERNEL "," DISK "," DISK "]}", "is named twice"},
        {HEAD "\"devices\":[" KERNEL "," DISK "," DEV("b", "disk", "vmlinux") "]}", "is also that"},
        {HEAD "\"devices\":[" KERNEL "," DEV("b", "kernel", "b") "]}", "has the role of device"},
        {HEAD "\"devices\":[" KERNEL "," DEV("disk", "root", "../rootfs.ext4") "]}", "file name"},
        {HEAD "\"devices\":[" KERNEL "," DEV("disk", "root", "a/b") "]}", "file name"},
        {HEAD "\"devices\":[" KERNEL "," DEV("disk", "root", ".x") "]}", "file name"},
        {HEAD "\"devices\":[" KERNEL "," DEV("disk", "root", "blueprint.json") "]}", "manifest's"},
        {HEAD "\"devices\":[" KERNEL "," DEV("a-b", "root", "x") "]}", "device name"},
        {HEAD "\"devices\":[" KERNEL "," DEV("", "root", "x") "]}", "device name"},
        {HEAD "\"devices\":[" KERNEL "," DEV("disk", "boot", "x") "]}", "role: \"boot\""},
        {HEAD "\"devices\":[" KERNEL ",7]}", "devices[1]: is no JSON object"},
        {HEAD "\"devices\":{}}", "devices"},
        {HEAD "\"devices\":[{\"name\":\"a\"}]}", "devices[0]: file is missing"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error err = ERROR_INIT;
        ck_assert_ptr_null(blueprint_parse(cases[i].text, strlen(cases[i].text), "m", &err));
        ck_assert_msg(err.code == EBADMSG && strstr(err.text, cases[i].wanted), "case %zu: %d %s",
                      i, err.code, err.text);
    }
}
END_TEST

UNIT_TEST(names)
{
    char buf[BLUEPRINT_FILE_MAX + 1];
    char longest[BLUEPRINT_NAME_MAX + 2];
    memset(longest, 'a', sizeof(longest));
    longest[BLUEPRINT_NAME_MAX + 1] = '\0';
    ck_assert_int_lt(blueprint_check_name(longest, NULL), 0);
    longest[BLUEPRINT_NAME_MAX] = '\0';
    ck_assert_int_eq(blueprint_check_name(longest, NULL), 0);
    ck_assert_str_eq(blueprint_file_name("kernel", buf), "vmlinux");
    ck_assert_str_eq(blueprint_file_name("state", buf), "state.bin");
    ck_assert_str_eq(blueprint_file_name("memory", buf), "memory.bin");
    ck_assert_str_eq(blueprint_file_name("disk", buf), "rootfs.ext4");
    ck_assert_str_eq(blueprint_file_name("config", buf), "config.json");
    ck_assert_str_eq(blueprint_file_name("oci", buf), "oci.ext4");
    ck_assert_str_eq(blueprint_file_name("data", buf), "data.bin");
    ck_assert_int_eq(blueprint_role_of("disk"), BLUEPRINT_ROOT);
    ck_assert_int_eq(blueprint_role_of("oci"), BLUEPRINT_DISK);
}
END_TEST
