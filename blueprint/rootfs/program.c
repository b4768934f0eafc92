// SPDX-License-Identifier: Apache-2.0
/* program.c - what the first bytes of a root's init tell */
#include "blueprint/rootfs/program.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "blueprint/blueprint.h"
#include "runtime/base/bytes.h"

static const char *machine_name(uint16_t machine)
{
    switch (machine) {
    case EM_X86_64:
        return "x86_64";
    case EM_AARCH64:
        return "aarch64";
    case EM_386:
        return "i386";
    case EM_ARM:
        return "arm";
    case EM_RISCV:
        return "riscv";
    default:
        return "another machine";
    }
}

int program_check(const uint8_t *head, size_t len, const char *path, struct error *err)
{
    if (len < PROGRAM_HEAD || memcmp(head, ELFMAG, SELFMAG))
        return 0;
    uint16_t machine = get_le16(head + 18);
    const char *name = machine_name(machine), *host = blueprint_host_architecture();
    if (strcmp(name, host) && !(machine == EM_386 && !strcmp(host, "x86_64")))
        return error_set(err, EINVAL, "the root's %s is a program for %s; machines here are %s",
                         path, name, host);
    return 0;
}
