// SPDX-License-Identifier: Apache-2.0
/* fuzz_cow_state.c - the state file of an overlay: any bytes are read or refused
 *
 * Checksums would keep a fuzzer out, so each whole page of the input gets a right one first when
 * the input's first byte is odd. A state that opens takes a commit and opens again.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/block/filter/cow_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAGES_MAX 8u

static void mend(uint8_t *bytes, size_t size)
{
    uint8_t *page = bytes;

    for (; size >= COW_STATE_PAGE; size -= COW_STATE_PAGE, page += COW_STATE_PAGE)
        (void)digest_of(page, COW_STATE_PAGE - SHA256_SIZE, page + COW_STATE_PAGE - SHA256_SIZE,
                        NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[PAGES_MAX * COW_STATE_PAGE];
    struct cow_header want = {.size = 4 * 65536, .block_size = 65536, .base.size = 4 * 65536};
    struct error err = ERROR_INIT;

    if (size < 1 || size - 1 > sizeof(bytes))
        return 0;
    memset(bytes, 0, sizeof(bytes));
    memcpy(bytes, data + 1, size - 1);
    if (data[0] & 1)
        mend(bytes, size - 1);
    int fd = memfd_create("state", MFD_CLOEXEC);
    int overlay = memfd_create("overlay", MFD_CLOEXEC);
    if (fd < 0 || overlay < 0 || write(fd, bytes, size - 1) != (ssize_t)(size - 1))
        abort();
    struct cow_state *s = cow_state_open(fd, "state", &want, false, NULL, &err);
    if (s) {
        cow_state_set(s, 3);
        if (cow_state_commit(s, overlay, "overlay", &err) < 0)
            abort();
        uint64_t count = cow_state_count(s);
        cow_state_free(s);
        s = cow_state_open(fd, "state", &want, true, NULL, &err);
        if (!s || cow_state_count(s) != count || !cow_state_has(s, 3))
            abort();
        cow_state_free(s);
    } else if (!err.code) {
        abort();
    }
    close(fd);
    close(overlay);
    return 0;
}
