// SPDX-License-Identifier: Apache-2.0
/* test_initrd.c - modules in the order of their dependencies, as an archive that is always the same
 */
#include "tests/lib/unit.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <lzma.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blueprint/kernel/initrd.h"
#include "runtime/base/bytes.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"

/* A file that is a module as far as its .modinfo goes. Returns its length. */
static size_t make_module(uint8_t *ko, const char *depends)
{
    static const char names[] = "\0.modinfo\0.shstrtab";
    char info[256];
    size_t info_len =
        (size_t)snprintf(info, sizeof(info), "license=GPL%cdepends=%s", 0, depends) + 1;
    size_t at = sizeof(Elf64_Ehdr), names_at = at + info_len, table = names_at + sizeof(names);

    memset(ko, 0, 1024);
    memcpy(ko, "\177ELF\2\1\1", 7);
    put_le16(ko + 16, ET_REL);
    put_le64(ko + 40, table);
    put_le16(ko + 58, sizeof(Elf64_Shdr));
    put_le16(ko + 60, 3);
    put_le16(ko + 62, 2);
    memcpy(ko + at, info, info_len);
    memcpy(ko + names_at, names, sizeof(names));
    uint8_t *sh = ko + table + sizeof(Elf64_Shdr);
    put_le32(sh, 1);
    put_le32(sh + 4, SHT_PROGBITS);
    put_le64(sh + 24, at);
    put_le64(sh + 32, info_len);
    sh += sizeof(Elf64_Shdr);
    put_le32(sh, 10);
    put_le32(sh + 4, SHT_STRTAB);
    put_le64(sh + 24, names_at);
    put_le64(sh + 32, sizeof(names));
    return table + 3 * sizeof(Elf64_Shdr);
}

static void write_file(const char *path, const void *data, size_t len)
{
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, len, f), len);
    ck_assert_int_eq(fclose(f), 0);
}

static void write_module(const char *path, const char *depends)
{
    uint8_t ko[1024];
    write_file(path, ko, make_module(ko, depends));
}

static void make_modules(void)
{
    uint8_t ko[1024], packed[2048];
    size_t n = 0, len = make_module(ko, "bottom");
    /* Tests of one file share a folder. */
    ck_assert(mkdir("m", 0755) == 0 || errno == EEXIST);
    ck_assert(mkdir("m/kernel", 0755) == 0 || errno == EEXIST);
    write_file("m/modules.builtin", "kernel/fs/in-kernel.ko\n", 23);
    write_module("m/kernel/bottom.ko", "");
    ck_assert_int_eq(
        lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, NULL, ko, len, packed, &n, sizeof(packed)),
        LZMA_OK);
    write_file("m/kernel/mid-dle.ko.xz", packed, n);
    write_module("m/kernel/top.ko", "mid_dle,bottom");
    write_module("m/kernel/circle.ko", "circle2");
    write_module("m/kernel/circle2.ko", "circle");
    write_module("m/kernel/lost.ko", "nowhere");
    write_file("m/kernel/text.ko", "no module", 9);
    write_file("init", "#!", 2);
}

static int build(const char *file, const char *const *modules, size_t n, size_t *ret_loaded,
                 struct error *err)
{
    const struct initrd_options opt = {
        .modules_dir = "m", .modules = modules, .n_modules = n, .init = "init"};
    cleanup_close int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600);
    ck_assert_int_ge(fd, 0);
    return initrd_build(&opt, fd, ret_loaded, err);
}

UNIT_TEST(order_and_bytes)
{
    struct error err = ERROR_INIT;
    size_t loaded = 0, len, again_len;
    const char *const wanted[] = {"top", "in_kernel", "absent?", "bottom"};
    make_modules();
    ck_assert_msg(build("a", wanted, 4, &loaded, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(loaded, 3);
    cleanup_free char *a = io_read_file(AT_FDCWD, "a", 1u << 20, &len, &err);
    ck_assert_ptr_nonnull(a);
    static const char order[] = "bottom.ko\nmid_dle.ko\ntop.ko\n";
    ck_assert_ptr_nonnull(memmem(a, len, order, sizeof(order) - 1));
    ck_assert_mem_eq(a, "070701", 6);
    ck_assert_ptr_nonnull(memmem(a, len, "TRAILER!!!", 10));
    /* The packed one went in unpacked. */
    ck_assert_ptr_null(memmem(a, len, "\xfd\x37zXZ", 5));

    ck_assert_int_eq(build("b", wanted, 4, &loaded, &err), 0);
    cleanup_free char *b = io_read_file(AT_FDCWD, "b", 1u << 20, &again_len, &err);
    ck_assert_uint_eq(len, again_len);
    ck_assert_mem_eq(a, b, len);
}
END_TEST

/* What the kernel's own reader of such archives demands, told by cpio(1). */
UNIT_TEST(cpio_reads_it)
{
    struct error err = ERROR_INIT;
    size_t loaded = 0;
    const char *const wanted[] = {"top"};
    if (system("command -v cpio >/dev/null") != 0)
        unit_skip("needs cpio");
    make_modules();
    ck_assert_int_eq(build("a", wanted, 1, &loaded, &err), 0);
    ck_assert_int_eq(system("cpio -it --quiet <a >list 2>/dev/null"), 0);
    cleanup_free char *list = io_read_file(AT_FDCWD, "list", 4096, NULL, &err);
    ck_assert_str_eq(list, "dev\nmodules\nproc\nroot\nsys\ndev/console\ninit\nmodules/order\n"
                           "modules/bottom.ko\nmodules/mid_dle.ko\nmodules/top.ko\n");
}
END_TEST

UNIT_TEST(all_built_in)
{
    struct error err = ERROR_INIT;
    struct stat st;
    size_t loaded = 7;
    const char *const wanted[] = {"in-kernel"};
    make_modules();
    ck_assert_int_eq(build("a", wanted, 1, &loaded, &err), 0);
    ck_assert_uint_eq(loaded, 0);
    ck_assert_int_eq(stat("a", &st), 0);
    ck_assert_int_eq(st.st_size, 0);
}
END_TEST

UNIT_TEST(what_is_wrong_is_named)
{
    static const struct {
        const char *module, *text;
        int code;
    } cases[] = {
        {"absent", "module absent: the kernel has it neither", ENOENT},
        {"lost", "module nowhere", ENOENT},
        {"circle", "depends on itself", ELOOP},
        {"text", "is no kernel module", EBADMSG},
        {"", "is no name", EINVAL},
        {"?", "is no name", EINVAL},
    };
    size_t loaded;
    make_modules();
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error err = ERROR_INIT;
        ck_assert_int_lt(build("a", &cases[i].module, 1, &loaded, &err), 0);
        ck_assert_msg(err.code == cases[i].code && strstr(err.text, cases[i].text), "%d: %s",
                      err.code, err.text);
    }
}
END_TEST
