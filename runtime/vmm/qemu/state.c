// SPDX-License-Identifier: Apache-2.0
/* state.c - the file that holds a QEMU machine's state */
#include "runtime/vmm/qemu/state.h"

#include <errno.h>
#include <json-c/linkhash.h>
#include <stdio.h>

#include "runtime/base/bytes.h"
#include "runtime/base/digest.h"
#include "runtime/base/io.h"
#include "runtime/base/json.h"

#define HEAD_SIZE 56
#define SUMMED 24 /* bytes of the head under the checksum */

static int checksum(const uint8_t *head, const void *description, size_t description_len,
                    const void *stream, size_t stream_len, uint8_t sum[SHA256_SIZE],
                    struct error *err)
{
    cleanup_digest struct digest *d = digest_new(err);

    if (!d || digest_update(d, head, SUMMED, err) < 0 ||
        digest_update(d, description, description_len, err) < 0 ||
        digest_update(d, stream, stream_len, err) < 0)
        return -1;
    return digest_final(d, sum, err);
}

int qemu_state_write(int fd, const char *what, const char *qemu_version,
                     const struct vmm_machine *machine, const void *stream, size_t stream_len,
                     struct error *err)
{
    uint8_t head[HEAD_SIZE];
    cleanup_json struct json_object *doc = json_object_new_object();
    struct json_object *m = vmm_machine_to_json(machine);

    if (!doc || !m) {
        json_object_put(m);
        return error_oom(err);
    }
    json_object_object_add(doc, "qemu", json_object_new_string(qemu_version));
    json_object_object_add(doc, "machine", m);
    const char *text = json_object_to_json_string_ext(doc, JSON_C_TO_STRING_PLAIN);
    if (!text)
        return error_oom(err);
    size_t text_len = strlen(text);
    if (text_len > QEMU_STATE_DESCRIPTION_MAX || stream_len > QEMU_STATE_STREAM_MAX)
        return error_set(err, EFBIG, "%s: a device state of %zu bytes is too large", what,
                         stream_len);
    memcpy(head, QEMU_STATE_MAGIC, 8);
    put_le32(head + 8, QEMU_STATE_VERSION);
    put_le32(head + 12, (uint32_t)text_len);
    put_le64(head + 16, stream_len);
    if (checksum(head, text, text_len, stream, stream_len, head + SUMMED, err) < 0)
        return -1;
    if (io_pwrite(fd, head, sizeof(head), 0, what, err) < 0 ||
        io_pwrite(fd, text, text_len, sizeof(head), what, err) < 0 ||
        io_pwrite(fd, stream, stream_len, sizeof(head) + text_len, what, err) < 0)
        return -1;
    return 0;
}

/* Names the first member in which two descriptions differ. Returns 0 when there is none. */
static int compare(struct json_object *saved, struct json_object *now, const char *what,
                   struct error *err)
{
    json_object_object_foreach(now, key, value)
    {
        struct json_object *old = NULL;
        (void)json_object_object_get_ex(saved, key, &old);
        if (json_object_equal(old, value))
            continue;
        return error_set(err, ENOTSUP, "%s: was saved of another machine: %s was %s, here it is %s",
                         what, key, old ? json_object_to_json_string(old) : "absent",
                         json_object_to_json_string(value));
    }
    json_object_object_foreach(saved, saved_key, saved_value)
    {
        if (!json_object_object_get_ex(now, saved_key, NULL))
            return error_set(err, ENOTSUP,
                             "%s: was saved of another machine: %s was %s, here it is absent", what,
                             saved_key, json_object_to_json_string(saved_value));
    }
    return 0;
}

/* Types like pc-q35-7.2 are kept stable by QEMU; others ("microvm") are what the version makes
 * them. */
bool qemu_state_versioned(const struct vmm_machine *machine)
{
    const char *type = machine->qemu_machine;
    size_t n = type ? strlen(type) : 0;

    return n > 0 && type[n - 1] >= '0' && type[n - 1] <= '9';
}

static int check_description(const char *text, size_t len, const char *what,
                             const char *qemu_version, const struct vmm_machine *machine,
                             struct error *err)
{
    const char *writer = NULL;
    struct json_object *saved = NULL;
    int a = 0, b = 0, c = 0, d = 0;

    cleanup_json struct json_object *doc = json_parse(text, len, what, err);
    if (!doc)
        return -1;
    if (!json_object_is_type(doc, json_type_object))
        return error_set(err, EBADMSG, "%s: the description is no JSON object", what);
    if (json_required(json_get_string(doc, "qemu", what, &writer, err), "qemu", what, err) < 0 ||
        json_required(json_get_object(doc, "machine", what, &saved, err), "machine", what, err) < 0)
        return -1;
    cleanup_json struct json_object *now = vmm_machine_to_json(machine);
    if (!now)
        return error_oom(err);
    if (compare(saved, now, what, err) < 0)
        return -1;
    if (!qemu_state_versioned(machine) &&
        (sscanf(writer, "%d.%d", &a, &b) != 2 || sscanf(qemu_version, "%d.%d", &c, &d) != 2 ||
         a != c || b != d))
        return error_set(err, ENOTSUP,
                         "%s: was saved by QEMU %s; machine type %s can be loaded by the same "
                         "version only, this is %s",
                         what, writer, machine->qemu_machine, qemu_version);
    return 0;
}

int qemu_state_read(int fd, const char *what, const char *qemu_version,
                    const struct vmm_machine *machine, void **ret_stream, size_t *ret_len,
                    struct error *err)
{
    uint8_t head[HEAD_SIZE], sum[SHA256_SIZE];
    ssize_t n = io_pread(fd, head, sizeof(head), 0, what, err);

    if (n < 0)
        return -1;
    if (n < HEAD_SIZE || !qemu_state_magic(head)) {
        enum vmm_hypervisor other;
        if (vmm_state_driver(fd, what, &other, err) < 0)
            return -1;
        return error_set(err, ENOTSUP, "%s: is a state of %s, not of QEMU", what,
                         vmm_hypervisor_name(other));
    }
    if (get_le32(head + 8) != QEMU_STATE_VERSION)
        return error_set(err, ENOTSUP, "%s: format version %u: only %d is known", what,
                         get_le32(head + 8), QEMU_STATE_VERSION);
    size_t text_len = get_le32(head + 12);
    uint64_t stream_len = get_le64(head + 16);
    if (text_len > QEMU_STATE_DESCRIPTION_MAX || stream_len > QEMU_STATE_STREAM_MAX)
        return error_set(err, EBADMSG, "%s: damaged: claims %zu + %ju bytes", what, text_len,
                         (uintmax_t)stream_len);
    cleanup_free char *text = malloc(text_len + 1);
    cleanup_free void *stream = malloc(stream_len + 1);
    if (!text || !stream)
        return error_oom(err);
    if (io_pread_exact(fd, text, text_len, sizeof(head), what, err) < 0 ||
        io_pread_exact(fd, stream, stream_len, sizeof(head) + text_len, what, err) < 0 ||
        checksum(head, text, text_len, stream, stream_len, sum, err) < 0)
        return -1;
    if (memcmp(sum, head + SUMMED, sizeof(sum)) != 0)
        return error_set(err, EBADMSG, "%s: damaged: its checksum does not match", what);
    if (check_description(text, text_len, what, qemu_version, machine, err) < 0)
        return -1;
    *ret_stream = steal_ptr(&stream);
    *ret_len = stream_len;
    return 0;
}
