// SPDX-License-Identifier: Apache-2.0
/* test_package.c - config.json there and back, strangers' configs, folders that are no package */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/io.h"
#include "runtime/snapshot/package.h"
#include "tests/lib/unit.h"

/* A folder of the test's own. */
static int scratch(const char *name)
{
    ck_assert_int_eq(mkdir(name, 0700), 0);
    int dir = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(dir, 0);
    return dir;
}

static void put(int dir, const char *name, const void *data, size_t len, uint64_t size)
{
    struct error err = ERROR_INIT;
    cleanup_close int fd = openat(dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(io_pwrite(fd, data, len, 0, name, &err), 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
}

static struct package *make(int dir)
{
    struct error err = ERROR_INIT;
    struct vmm_disk disk = {.name = "disk"};
    struct vmm_machine m = {.hypervisor = VMM_QEMU,
                            .accel = VMM_ACCEL_TCG,
                            .cpus = 1,
                            .memory_mib = 1,
                            .disks = &disk,
                            .n_disks = 1,
                            .vsock = true};
    struct package *pkg = package_new(&err);
    ck_assert_ptr_nonnull(pkg);
    put(dir, "vmlinux", "kernel", 6, 6);
    put(dir, "rootfs.ext4", "root", 4, 4096);
    put(dir, "state.bin", "state", 5, package_padded(5));
    put(dir, "memory.bin", "memory", 6, 1 << 20);
    cleanup_free char *text = vmm_machine_format(&m, &err);
    ck_assert_msg(text != NULL, "%s", err.text);
    pkg->machine = vmm_machine_parse(text, strlen(text), &err);
    ck_assert_ptr_nonnull(pkg->machine);
    pkg->agent_port = 26;
    pkg->liveness_port = 25;
    static const char *const names[] = {"kernel", "disk", "state", "memory"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        ck_assert_msg(package_add(pkg, names[i], dir, NULL, NULL, &err) == 0, "%s", err.text);
    cleanup_close int fd = openat(dir, PACKAGE_CONFIG, O_RDWR | O_CREAT | O_TRUNC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_msg(package_write_config(pkg, fd, PACKAGE_CONFIG, &err) == 0, "%s", err.text);
    return pkg;
}

UNIT_TEST(there_and_back)
{
    struct error err = ERROR_INIT;
    struct stat st;
    cleanup_close int dir = scratch("a");
    cleanup_package struct package *pkg = make(dir);
    cleanup_package struct package *got = package_open("a", &err);
    ck_assert_msg(got != NULL, "%s", err.text);
    ck_assert(!got->foreign);
    ck_assert_uint_eq(got->n_devices, 4);
    ck_assert_str_eq(got->devices[1].file, "rootfs.ext4");
    ck_assert_uint_eq(got->agent_port, 26);
    ck_assert_str_eq(got->made, pkg->made);
    ck_assert_int_eq(got->machine->hypervisor, VMM_QEMU);
    ck_assert_msg(package_verify(got, NULL, &err) == 0, "%s", err.text);
    ck_assert_int_eq(package_check_host(got, VMM_AUTO, &err), 0);
    ck_assert_int_eq(package_check_host(got, VMM_FIRECRACKER, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "saved by qemu"));
    /* What upstream needs: a NUL behind the object, and a size it can put on a device. */
    ck_assert_int_eq(fstatat(dir, PACKAGE_CONFIG, &st, 0), 0);
    ck_assert_uint_eq((uint64_t)st.st_size % PACKAGE_ROOM, 0);
    cleanup_free char *text = io_read_file(dir, PACKAGE_CONFIG, 4 << 20, NULL, &err);
    ck_assert_uint_lt(strlen(text), (size_t)st.st_size);
    /* One flipped byte, and a file cut short. */
    put(dir, "rootfs.ext4", "rooT", 4, 4096);
    ck_assert_int_eq(package_verify(got, NULL, &err), -1);
    ck_assert_int_eq(err.code, ESTALE);
    ck_assert_ptr_nonnull(strstr(err.text, "device disk"));
    put(dir, "rootfs.ext4", "root", 4, 4095);
    cleanup_package struct package *cut = package_open("a", &err);
    ck_assert_ptr_null(cut);
    ck_assert_int_eq(err.code, ESTALE);
}
END_TEST

UNIT_TEST(every_truncation_and_unknown_key)
{
    struct error err = ERROR_INIT;
    cleanup_close int dir = scratch("b");
    cleanup_package struct package *pkg = make(dir);
    cleanup_free char *text = package_format(pkg, &err);
    ck_assert_ptr_nonnull(text);
    size_t len = strlen(text);
    while (len > 0 && text[len - 1] != '}')
        len--;
    for (size_t n = 0; n < len; n++) {
        struct package *got = package_parse(text, n, "config", &err);
        ck_assert_msg(got == NULL, "cut after %zu bytes", n);
        ck_assert_int_eq(err.code, EBADMSG);
    }
    static const char *const wrong[] = {
        "{\"agentVSockPort\":26,\"format\":\"drafter-package\",\"version\":2}",
        "{\"agentVSockPort\":26,\"format\":\"other\"}",
        "{\"agentVSockPort\":-1}",
        "{\"agentVSockPort\":\"26\"}",
        "{}",
        "[]",
    };
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        ck_assert_msg(!package_parse(wrong[i], strlen(wrong[i]), "config", &err), "%s", wrong[i]);
    /* A key of a later time is refused by name. */
    cleanup_free char *more = NULL;
    ck_assert_int_gt(asprintf(&more, "{\"surprise\":1,%s", text + 1), 0);
    ck_assert_ptr_null(package_parse(more, strlen(more), "config", &err));
    ck_assert_ptr_nonnull(strstr(err.text, "surprise"));
}
END_TEST

UNIT_TEST(foreign)
{
    struct error err = ERROR_INIT;
    static const char config[64] = "{\"agentVSockPort\":27}";
    cleanup_close int dir = scratch("c");
    ck_assert_ptr_null(package_open("c", &err));
    ck_assert_int_eq(err.code, ENOENT);
    put(dir, PACKAGE_CONFIG, config, sizeof(config), PACKAGE_ROOM);
    put(dir, "state.bin", "s", 1, PACKAGE_ROOM);
    put(dir, "memory.bin", "m", 1, PACKAGE_ROOM);
    put(dir, "rootfs.ext4", "d", 1, PACKAGE_ROOM);
    cleanup_package struct package *pkg = package_open("c", &err);
    ck_assert_msg(pkg != NULL, "%s", err.text);
    ck_assert(pkg->foreign);
    ck_assert_uint_eq(pkg->agent_port, 27);
    ck_assert_uint_eq(pkg->n_devices, 3);
    ck_assert_int_eq(package_verify(pkg, NULL, &err), -1);
    ck_assert_int_eq(err.code, ENOTSUP);
    /* A symlink is no device. */
    ck_assert_int_eq(unlinkat(dir, "state.bin", 0), 0);
    ck_assert_int_eq(symlinkat("memory.bin", dir, "state.bin"), 0);
    ck_assert_ptr_null(package_open("c", &err));
}
END_TEST
