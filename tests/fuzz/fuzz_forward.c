// SPDX-License-Identifier: Apache-2.0
/* fuzz_forward.c - port forwards as JSON or in the short form; what was read survives being written
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/net/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_forwards struct net_forwards list = {0};
    cleanup_forwards struct net_forwards again = {0};
    struct error err;
    char text[256], same[256];

    if (size > 0 && data[0] == '[') {
        (void)net_forwards_parse((const char *)data, size, "fuzz", &list, &err);
    }
    if (list.count == 0) {
        cleanup_free char *line = strndup((const char *)data, size);
        if (line)
            (void)net_forwards_parse_short(line, "fuzz", &list, &err);
    }
    (void)net_forwards_check(&list, &err);
    for (size_t i = 0; i < list.count; i++) {
        net_forward_format(&list.items[i], text, sizeof(text));
        /* A name may hold what separates the parts of the short form. */
        if (strpbrk(list.items[i].netns, "@:"))
            continue;
        if (net_forwards_parse_short(text, "again", &again, &err) < 0)
            abort();
        net_forward_format(&again.items[again.count - 1], same, sizeof(same));
        if (strcmp(text, same) != 0)
            abort();
    }
    return 0;
}
