// SPDX-License-Identifier: Apache-2.0
/* fuzz_kernel.c - any bytes as a kernel image, as an ELF and as a module
 *
 * The last four bytes of a payload state how much it unpacks to; larger ones than 16 MiB are left
 * out, so that time goes into the formats, not into malloc().
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "blueprint/kernel/initrd.h"
#include "blueprint/kernel/kernel.h"
#include "runtime/base/bytes.h"
#include "runtime/base/cleanup.h"

static int states_too_much(const uint8_t *data, size_t size)
{
    if (size < 0x250 || memcmp(data + 0x202, "HdrS", 4))
        return 0;
    uint64_t end = ((uint64_t)(data[0x1f1] ? data[0x1f1] : 4) + 1) * 512 +
                   (uint64_t)get_le32(data + 0x248) + get_le32(data + 0x24c);
    return end <= size && end >= 4 && get_le32(data + end - 4) > 16u << 20;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    struct kernel_image image = {.elf = NULL};
    const char *depends;
    bool pvh;

    if (!states_too_much(data, size) && kernel_unpack(data, size, "image", &image, &err) == 0) {
        cleanup_free uint8_t *elf = image.elf;
        (void)kernel_check(elf ? elf : data, image.elf_len, "elf", "x86_64", &pvh, &err);
    }
    (void)kernel_check(data, size, "elf", "x86_64", &pvh, &err);
    if (module_depends(data, size, "module", &depends, &err) == 0 &&
        (strlen(depends) >= size || (const uint8_t *)depends < data ||
         (const uint8_t *)depends >= data + size))
        abort();
    return 0;
}
