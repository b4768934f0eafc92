// SPDX-License-Identifier: Apache-2.0
/* fuzz_machine.c - a machine's description: what is taken prints itself and is taken again, equal
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/vmm/vmm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    struct vmm_machine *m = vmm_machine_parse((const char *)data, size, &err);

    if (!m)
        return err.code ? 0 : (abort(), 0);
    if (vmm_machine_check(m, &err) < 0)
        abort();
    char *first = vmm_machine_format(m, &err);
    struct vmm_machine *again = first ? vmm_machine_parse(first, strlen(first), &err) : NULL;
    char *second = again ? vmm_machine_format(again, &err) : NULL;
    if (!second || strcmp(first, second) != 0)
        abort();
    free(first);
    free(second);
    vmm_machine_free(again);
    vmm_machine_free(m);
    return 0;
}
