// SPDX-License-Identifier: Apache-2.0
/* mark.c - the file that says whether a machine runs or stands */
#include "runtime/peer/mark.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/io.h"
#include "runtime/base/json.h"
#include "runtime/base/output.h"

#define MARK_MAX 4096
#define BOOT_ID 64

static const char *const words[] = {[MARK_STANDING] = "standing",
                                    [MARK_STARTING] = "starting",
                                    [MARK_RUNNING] = "running",
                                    [MARK_ENDED] = "ended"};

/* Which start of this host it is (random(4)); "" where that is not to be had. */
static void read_boot_id(char id[BOOT_ID])
{
    cleanup_close int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, id, BOOT_ID - 1);

    id[n < 0 ? 0 : n] = '\0';
    id[strcspn(id, "\n")] = '\0';
}

/* "starting" is synced and the "running" that follows it is not: after a power cut it says no more
 * than that the machine may have run. */
static enum mark judge_start(const char *boot)
{
    char now[BOOT_ID];

    read_boot_id(now);
    return now[0] && strcmp(boot, now) == 0 ? MARK_STANDING : MARK_RUNNING;
}

int mark_read(const char *path, enum mark *ret_mark, struct error *err)
{
    size_t len;
    const char *format = "", *status = "", *boot = "";
    uint64_t version = 0;

    if (access(path, F_OK) < 0 && errno == ENOENT) {
        *ret_mark = MARK_NONE;
        return 0;
    }
    cleanup_free char *text = io_read_file(AT_FDCWD, path, MARK_MAX, &len, err);
    cleanup_json struct json_object *doc = text ? json_parse(text, len, path, err) : NULL;
    if (!doc)
        return -1;
    if (!json_object_is_type(doc, json_type_object) ||
        json_get_string(doc, "format", path, &format, err) < 0 ||
        json_get_u64(doc, "version", 0, UINT32_MAX, path, &version, err) < 0 ||
        json_get_string(doc, "status", path, &status, err) < 0 ||
        json_get_string(doc, "boot", path, &boot, err) < 0 ||
        strcmp(format, "drafter-machine") != 0 || version != 1)
        return error_set(err, EBADMSG, "%s: does not say what became of the machine", path);
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (words[i] && strcmp(words[i], status) == 0) {
            *ret_mark = i == MARK_STARTING ? judge_start(boot) : (enum mark)i;
            return 0;
        }
    return error_set(err, EBADMSG, "%s: status: \"%.40s\" is not known", path, status);
}

int mark_write(const char *path, enum mark mark, bool durable, struct error *err)
{
    char text[256], boot[BOOT_ID];
    cleanup_output struct output *out = output_begin(path, OUTPUT_FILE, 0600, err);

    read_boot_id(boot);
    (void)snprintf(text, sizeof(text),
                   "{\"format\": \"drafter-machine\", \"version\": 1, \"status\": \"%s\", "
                   "\"boot\": \"%s\"}\n",
                   words[mark], boot);
    if (!out || io_write(output_fd(out), text, strlen(text), path, err) < 0)
        return -1;
    return output_commit(&out, durable, err);
}
