// SPDX-License-Identifier: Apache-2.0
/* test_bitmap.c - a bitmap against an array of bools */
#include "runtime/base/bitmap.h"

#include <string.h>

#include "tests/lib/unit.h"

#define SIZE_MAX_BITS 400

static uint64_t next(const bool *model, uint64_t size, uint64_t from, bool wanted)
{
    while (from < size && model[from] != wanted)
        from++;
    return from < size ? from : size;
}

UNIT_TEST(agrees_with_an_array)
{
    uint64_t seed = unit_seed();

    for (int round = 0; round < 300; round++) {
        uint64_t size = unit_random(&seed) % SIZE_MAX_BITS;
        struct bitmap b = {0}, other = {0};
        bool model[SIZE_MAX_BITS + 1] = {false}, model2[SIZE_MAX_BITS + 1] = {false};
        ck_assert_int_eq(bitmap_init(&b, size, NULL), 0);
        ck_assert_int_eq(bitmap_init(&other, size, NULL), 0);
        for (int op = 0; op < 200; op++) {
            uint64_t bit = size ? unit_random(&seed) % size : 0;
            uint64_t count = size ? unit_random(&seed) % (size - bit + 1) : 0;
            uint64_t sum = 0;
            switch (unit_random(&seed) % 7) {
            case 0:
                if (size)
                    ck_assert_int_eq(bitmap_set(&b, bit), model[bit]);
                model[bit] = size != 0;
                break;
            case 1:
                if (size)
                    ck_assert_int_eq(bitmap_clear(&b, bit), model[bit]);
                model[bit] = false;
                break;
            case 2:
                bitmap_set_range(&b, bit, count);
                memset(model + bit, 1, count);
                break;
            case 3:
                bitmap_clear_range(&b, bit, count);
                memset(model + bit, 0, count);
                break;
            case 4:
                if (size)
                    (void)bitmap_set(&other, bit);
                model2[bit] = size != 0;
                break;
            case 5:
                if (op % 16 == 0) {
                    bitmap_or(&b, &other);
                    for (uint64_t i = 0; i < size; i++)
                        model[i] |= model2[i];
                }
                break;
            default:
                if (op % 32 == 0) {
                    bitmap_clear_all(&b);
                    memset(model, 0, sizeof(model));
                }
            }
            for (uint64_t i = 0; i < size; i++) {
                ck_assert_int_eq(bitmap_get(&b, i), model[i]);
                sum += model[i];
            }
            ck_assert_uint_eq(bitmap_count(&b), sum);
            ck_assert_uint_eq(bitmap_next_set(&b, bit), next(model, size, bit, true));
            ck_assert_uint_eq(bitmap_next_clear(&b, bit), next(model, size, bit, false));
            ck_assert_uint_eq(bitmap_next_set(&b, size), size);
        }
        bitmap_destroy(&b);
        bitmap_destroy(&other);
    }
}
END_TEST
