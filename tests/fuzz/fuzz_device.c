// SPDX-License-Identifier: Apache-2.0
/* fuzz_device.c - --devices: any text is parsed or refused; what is parsed becomes a stack */
#include <json-c/json_object.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "runtime/block/device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct devices d;
    struct error err = ERROR_INIT;

    if (devices_parse((const char *)data, size, &d, &err) < 0)
        return err.code ? 0 : (abort(), 0);
    for (size_t i = 0; i < d.count; i++) {
        struct json_object *stack = device_stack(&d.items[i], &err);
        if (stack)
            json_object_put(stack);
    }
    devices_free(&d);
    return 0;
}
