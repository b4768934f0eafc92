// SPDX-License-Identifier: Apache-2.0
/* elf.c - whether an ELF file is a kernel that our drivers can start */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "blueprint/kernel/kernel.h"
#include "runtime/base/bytes.h"
#include "runtime/base/cleanup.h"

#define XEN_PHYS32_ENTRY 18 /* XEN_ELFNOTE_PHYS32_ENTRY, xen/include/public/elfnote.h */
#define PROGRAM_HEADERS_MAX 64

static const struct {
    uint16_t machine;
    const char *name;
} machines[] = {
    {EM_X86_64, "x86_64"}, {EM_AARCH64, "aarch64"}, {EM_386, "i386"},        {EM_ARM, "arm"},
    {EM_RISCV, "riscv"},   {EM_PPC64, "ppc64"},     {EM_S390, "s390x"},      {EM_MIPS, "mips"},
    {EM_PPC, "ppc"},       {258, "loongarch"},      {EM_SPARCV9, "sparc64"},
};

static const char *machine_name(uint16_t machine)
{
    for (size_t i = 0; i < ARRAY_SIZE(machines); i++)
        if (machines[i].machine == machine)
            return machines[i].name;
    return "an unknown machine";
}

/* Looks through one PT_NOTE segment, already cut to what the file holds. Notes are padded to four
 * bytes (the ELF note format of Linux, also where p_align says 8). */
static bool notes_have_pvh(const uint8_t *p, size_t left)
{
    while (left >= 12) {
        uint64_t name_len = get_le32(p), desc_len = get_le32(p + 4), type = get_le32(p + 8);
        uint64_t name_room = (name_len + 3) & ~UINT64_C(3), room = (desc_len + 3) & ~UINT64_C(3);
        if (12 + name_room + room > left)
            return false;
        if (type == XEN_PHYS32_ENTRY && name_len == 4 && !memcmp(p + 12, "Xen", 4) && desc_len >= 4)
            return true;
        p += 12 + name_room + room;
        left -= 12 + name_room + room;
    }
    return false;
}

int kernel_check(const uint8_t *elf, size_t len, const char *what, const char *architecture,
                 bool *ret_pvh, struct error *err)
{
    /* Elf64_Ehdr, read by offset: the file's byte order is checked before any field is used. */
    if (len < sizeof(Elf64_Ehdr) || memcmp(elf, ELFMAG, SELFMAG))
        return error_set(err, EBADMSG, "%s: is no ELF file", what);
    if (elf[EI_DATA] != ELFDATA2LSB)
        return error_set(err, EBADMSG, "%s: is an ELF file of a big-endian machine, not of %s",
                         what, architecture);
    uint16_t type = get_le16(elf + 16), machine = get_le16(elf + 18);
    if (strcmp(machine_name(machine), architecture))
        return error_set(err, EBADMSG, "%s: is an ELF file for %s, not for %s", what,
                         machine_name(machine), architecture);
    if (elf[EI_CLASS] != ELFCLASS64)
        return error_set(err, EBADMSG, "%s: is a 32-bit ELF file", what);
    if (type != ET_EXEC && type != ET_DYN)
        return error_set(err, EBADMSG, "%s: is an ELF file, but not an executable (type %u)", what,
                         type);

    uint64_t off = get_le64(elf + 32);
    uint16_t size = get_le16(elf + 54), n = get_le16(elf + 56);
    if (size != sizeof(Elf64_Phdr) || n == 0 || n > PROGRAM_HEADERS_MAX || off > len ||
        (uint64_t)size * n > len - off)
        return error_set(err, EBADMSG, "%s: its program headers are out of place", what);

    bool pvh = machine == EM_AARCH64, load = false;
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *ph = elf + off + (size_t)i * size;
        uint32_t kind = get_le32(ph);
        uint64_t start = get_le64(ph + 8), filesz = get_le64(ph + 32);
        if (kind == PT_INTERP)
            return error_set(err, EBADMSG, "%s: is a program for Linux, not a kernel", what);
        if (kind == PT_LOAD) {
            load = true;
            if (start > len || filesz > len - start)
                return error_set(err, EBADMSG, "%s: is cut off: segment %u reaches beyond its end",
                                 what, i);
        }
        if (kind == PT_NOTE && start <= len && filesz <= len - start)
            pvh = pvh || notes_have_pvh(elf + start, filesz);
    }
    if (!load)
        return error_set(err, EBADMSG, "%s: has nothing to load", what);
    *ret_pvh = pvh;
    return 0;
}
