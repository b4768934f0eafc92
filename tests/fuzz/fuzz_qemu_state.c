// SPDX-License-Identifier: Apache-2.0
/* fuzz_qemu_state.c - a QEMU machine's state file: any bytes are read or refused
 *
 * A first byte above 0x7f has the head made good: its lengths and its checksum, so that what stands
 * behind the checksum is reached too.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/base/bytes.h"
#include "runtime/base/digest.h"
#include "runtime/base/error.h"
#include "runtime/vmm/qemu/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEAD 56
#define SUMMED 24

static void make_good(uint8_t *head, const uint8_t *body, size_t len)
{
    struct error err = ERROR_INIT;
    struct digest *d = digest_new(&err);
    size_t text = len < 4 ? len : 4 + body[0] % (len - 3);

    memcpy(head, QEMU_STATE_MAGIC, 8);
    put_le32(head + 8, QEMU_STATE_VERSION);
    put_le32(head + 12, (uint32_t)text);
    put_le64(head + 16, len - text);
    if (!d || digest_update(d, head, SUMMED, &err) < 0 || digest_update(d, body, len, &err) < 0 ||
        digest_final(d, head + SUMMED, &err) < 0)
        abort();
    digest_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct vmm_machine machine = {
        .hypervisor = VMM_QEMU, .cpus = 1, .memory_mib = 64, .qemu_machine = "pc-q35-7.2"};
    struct error err = ERROR_INIT;
    uint8_t head[HEAD] = {0};
    void *stream = NULL;
    size_t stream_len = 0;
    enum vmm_hypervisor driver;

    if (size == 0)
        return 0;
    int fd = memfd_create("state", 0);
    if (fd < 0)
        abort();
    const uint8_t good = data[0] & 0x80;
    data++;
    size--;
    if (good) {
        make_good(head, data, size);
        if (write(fd, head, sizeof(head)) != (ssize_t)sizeof(head))
            abort();
    }
    if (write(fd, data, size) != (ssize_t)size)
        abort();
    if (vmm_state_driver(fd, "state", &driver, &err) < 0 && !err.code)
        abort();
    if (qemu_state_read(fd, "state", "7.2.0", &machine, &stream, &stream_len, &err) == 0)
        free(stream);
    else if (!err.code)
        abort();
    close(fd);
    return 0;
}
