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

static const char *const words[] = {
    [MARK_STANDING] = "standing", [MARK_RUNNING] = "running", [MARK_ENDED] = "ended"};

int mark_read(const char *path, enum mark *ret_mark, struct error *err)
{
    size_t len;
    const char *format = "", *status = "";
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
        strcmp(format, "drafter-machine") != 0 || version != 1)
        return error_set(err, EBADMSG, "%s: does not say what became of the machine", path);
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (words[i] && strcmp(words[i], status) == 0) {
            *ret_mark = (enum mark)i;
            return 0;
        }
    return error_set(err, EBADMSG, "%s: status: \"%.40s\" is not known", path, status);
}

int mark_write(const char *path, enum mark mark, bool durable, struct error *err)
{
    char text[128];
    cleanup_output struct output *out = output_begin(path, OUTPUT_FILE, 0600, err);

    (void)snprintf(text, sizeof(text),
                   "{\"format\": \"drafter-machine\", \"version\": 1, \"status\": \"%s\"}\n",
                   words[mark]);
    if (!out || io_write(output_fd(out), text, strlen(text), path, err) < 0)
        return -1;
    return output_commit(&out, durable, err);
}
