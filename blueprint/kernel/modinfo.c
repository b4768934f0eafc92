// SPDX-License-Identifier: Apache-2.0
/* modinfo.c - what a kernel module says about itself */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "blueprint/kernel/initrd.h"
#include "runtime/base/bytes.h"

/* Section i's header, NULL when it or what it describes lies outside the file. */
static const uint8_t *section(const uint8_t *ko, size_t len, unsigned i, const uint8_t **ret_data,
                              uint64_t *ret_size)
{
    uint64_t table = get_le64(ko + 40);
    uint16_t n = get_le16(ko + 60);
    if (i >= n || table > len || (uint64_t)n * sizeof(Elf64_Shdr) > len - table)
        return NULL;
    const uint8_t *sh = ko + table + (size_t)i * sizeof(Elf64_Shdr);
    uint64_t at = get_le64(sh + 24), size = get_le64(sh + 32);
    if (get_le32(sh + 4) == SHT_NOBITS || at > len || size > len - at)
        return NULL;
    *ret_data = ko + at;
    *ret_size = size;
    return sh;
}

int module_depends(const uint8_t *ko, size_t len, const char *what, const char **ret_depends,
                   struct error *err)
{
    static const char key[] = "depends=";
    const uint8_t *names, *data;
    uint64_t names_size, size;

    if (len < sizeof(Elf64_Ehdr) || memcmp(ko, ELFMAG, SELFMAG) || ko[EI_CLASS] != ELFCLASS64 ||
        ko[EI_DATA] != ELFDATA2LSB || get_le16(ko + 58) != sizeof(Elf64_Shdr))
        return error_set(err, EBADMSG, "%s: is no kernel module", what);
    if (!section(ko, len, get_le16(ko + 62), &names, &names_size))
        return error_set(err, EBADMSG, "%s: its section names are out of place", what);
    for (unsigned i = 0; i < get_le16(ko + 60); i++) {
        const uint8_t *sh = section(ko, len, i, &data, &size);
        uint64_t name = sh ? get_le32(sh) : 0;
        static const char wanted[] = ".modinfo";
        if (!sh || name >= names_size || names_size - name < sizeof(wanted) ||
            memcmp(names + name, wanted, sizeof(wanted)))
            continue;
        if (size == 0 || data[size - 1])
            return error_set(err, EBADMSG, "%s: its .modinfo does not end in NUL", what);
        for (const char *p = (const char *)data, *end = p + size; p < end; p += strlen(p) + 1)
            if (!strncmp(p, key, sizeof(key) - 1)) {
                *ret_depends = p + sizeof(key) - 1;
                return 0;
            }
        return error_set(err, EBADMSG, "%s: its .modinfo does not say what it depends on", what);
    }
    return error_set(err, EBADMSG, "%s: is no kernel module: it has no .modinfo", what);
}
