// SPDX-License-Identifier: Apache-2.0
/* options.c - what the options of a file system come to */
#include "oci/ext4/options.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/parse.h"

int ext4_choose_epoch(const char *option, int64_t *ret_epoch, struct error *err)
{
    const char *text = option, *what = "--source-date-epoch";

    if (strcmp(text, "image") == 0) {
        text = getenv("SOURCE_DATE_EPOCH");
        what = "SOURCE_DATE_EPOCH";
    }
    if (text && *text)
        return parse_i64(text, 0, EXT4_EPOCH_MAX, what, ret_epoch, err);
    *ret_epoch = EXT4_EPOCH_NEWEST;
    return 0;
}
