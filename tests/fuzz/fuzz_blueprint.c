// SPDX-License-Identifier: Apache-2.0
/* fuzz_blueprint.c - any manifest: refused, or formatted and read back to the same text */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "blueprint/blueprint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    cleanup_blueprint struct blueprint *bp =
        blueprint_parse((const char *)data, size, "manifest", &err);
    if (!bp) {
        if (err.code == 0)
            abort();
        return 0;
    }
    cleanup_free char *text = blueprint_format(bp, &err);
    if (!text)
        abort();
    cleanup_blueprint struct blueprint *again =
        blueprint_parse(text, strlen(text), "manifest", &err);
    cleanup_free char *same = again ? blueprint_format(again, &err) : NULL;
    if (!same || strcmp(text, same))
        abort();
    return 0;
}
