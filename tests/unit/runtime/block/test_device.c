// SPDX-License-Identifier: Apache-2.0
/* test_device.c - the --devices array */
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/json.h"
#include "runtime/block/device.h"
#include "runtime/block/filter/dirty.h"
#include "tests/lib/stack.h"

static struct error err;

/* As Drafter's FAQ has it, in the array that the flag wants. */
static const char mydisk[] = "[{\n"
                             "  \"name\": \"mydisk\",\n"
                             "  \"base\": \"tmp/mydisk.ext4\",\n"
                             "  \"overlay\": \"out/instance-0/overlay/mydisk.ext4\",\n"
                             "  \"state\": \"out/instance-0/state/mydisk.ext4\",\n"
                             "  \"blockSize\": 65536,\n"
                             "  \"expiry\": 1000000000,\n"
                             "  \"maxDirtyBlocks\": 200,\n"
                             "  \"minCycles\": 5,\n"
                             "  \"maxCycles\": 20,\n"
                             "  \"cycleThrottle\": 500000000,\n"
                             "  \"makeMigratable\": true,\n"
                             "  \"shared\": false,\n"
                             "  \"sharedbase\": false,\n"
                             "  \"s3sync\": false,\n"
                             "  \"s3accesskey\": \"\",\n"
                             "  \"s3secretkey\": \"\",\n"
                             "  \"s3endpoint\": \"\",\n"
                             "  \"s3secure\": false,\n"
                             "  \"s3bucket\": \"\",\n"
                             "  \"s3concurrency\": 0\n"
                             "}]";

static void parse(const char *text, struct devices *d)
{
    OK(devices_parse(text, strlen(text), d, &err));
}

UNIT_TEST(faq_example_is_accepted)
{
    struct devices d;

    parse(mydisk, &d);
    ck_assert_uint_eq(d.count, 1);
    const struct device *x = devices_find(&d, "mydisk");
    ck_assert_ptr_nonnull(x);
    ck_assert_ptr_null(devices_find(&d, "disk"));
    ck_assert_str_eq(x->base, "tmp/mydisk.ext4");
    ck_assert_uint_eq(x->n_overlays, 1);
    ck_assert_str_eq(x->overlays[0], "out/instance-0/overlay/mydisk.ext4");
    ck_assert_str_eq(x->states[0], "out/instance-0/state/mydisk.ext4");
    ck_assert_uint_eq(x->block_size, 65536);
    ck_assert_uint_eq(x->expiry_ns, 1000000000);
    ck_assert_uint_eq(x->max_dirty_blocks, 200);
    ck_assert_uint_eq(x->min_cycles, 5);
    ck_assert_uint_eq(x->max_cycles, 20);
    ck_assert_uint_eq(x->cycle_throttle_ns, 500000000);
    ck_assert(x->make_migratable && !x->shared && !x->sharedbase && !x->skipsilo);
    devices_free(&d);
}
END_TEST

UNIT_TEST(missing_keys_have_defaults)
{
    struct devices d;

    parse("[{\"name\":\"disk\",\"overlay\":null}]", &d);
    const struct device *x = &d.items[0];
    ck_assert_str_eq(x->base, "");
    ck_assert_uint_eq(x->n_overlays, 0);
    ck_assert_uint_eq(x->block_size, 65536);
    ck_assert_uint_eq(x->expiry_ns, 1000000000);
    ck_assert_uint_eq(x->max_dirty_blocks, 200);
    ck_assert_uint_eq(x->min_cycles, 5);
    ck_assert_uint_eq(x->max_cycles, 20);
    ck_assert_uint_eq(x->cycle_throttle_ns, 500000000);
    ck_assert(x->make_migratable && !x->shared && !x->sharedbase && !x->skipsilo);
    ck_assert_ptr_null(device_stack(x, &err));
    ck_assert_ptr_nonnull(strstr(err.text, "device disk: has no base"));
    devices_free(&d);
    parse("[]", &d);
    ck_assert_uint_eq(d.count, 0);
    devices_free(&d);
}
END_TEST

UNIT_TEST(zero_means_zero_but_for_block_size)
{
    struct devices d;

    parse("[{\"name\":\"m\",\"blockSize\":0,\"expiry\":0,\"maxDirtyBlocks\":0,\"minCycles\":0,"
          "\"maxCycles\":0,\"cycleThrottle\":0,\"makeMigratable\":false}]",
          &d);
    const struct device *x = &d.items[0];
    ck_assert_uint_eq(x->block_size, 65536);
    ck_assert_uint_eq(x->expiry_ns + x->max_dirty_blocks + x->min_cycles + x->max_cycles +
                          x->cycle_throttle_ns,
                      0);
    ck_assert(!x->make_migratable);
    devices_free(&d);
}
END_TEST

UNIT_TEST(durations_may_have_a_unit)
{
    struct devices d;

    parse("[{\"name\":\"m\",\"expiry\":\"30m\",\"cycleThrottle\":\"1.5s\"}]", &d);
    ck_assert_uint_eq(d.items[0].expiry_ns, UINT64_C(1800000000000));
    ck_assert_uint_eq(d.items[0].cycle_throttle_ns, 1500000000);
    devices_free(&d);
}
END_TEST

UNIT_TEST(wrong_ones_are_refused_by_name)
{
    static const struct {
        const char *text, *part;
    } table[] = {
        {"{}", "not a JSON array"},
        {"[1]", "devices[0]: not a JSON object"},
        {"[{\"base\":\"x\"}]", "devices[0]: name is missing"},
        {"[{\"name\":\"\"}]", "not a file name"},
        {"[{\"name\":\"..\"}]", "not a file name"},
        {"[{\"name\":\"a/b\"}]", "not a file name"},
        {"[{\"name\":\"a\\nb\"}]", "control character"},
        {"[{\"name\":\"a\"},{\"name\":\"a\"}]", "devices[1]: there is a device a already"},
        {"[{\"name\":\"a\",\"sharedBase\":true}]", "device a: unknown key \"sharedBase\""},
        {"[{\"name\":\"a\",\"s3sync\":true}]", "s3sync: true is refused"},
        {"[{\"name\":\"a\",\"s3concurrency\":\"4\"}]", "s3concurrency"},
        {"[{\"name\":\"a\",\"blockSize\":5000}]", "blockSize: 5000 is not a power of two"},
        {"[{\"name\":\"a\",\"blockSize\":2048}]", "blockSize: 2048"},
        {"[{\"name\":\"a\",\"blockSize\":-1}]", "blockSize"},
        {"[{\"name\":\"a\",\"blockSize\":8388608}]", "blockSize"},
        {"[{\"name\":\"a\",\"expiry\":\"5\"}]", "expiry"},
        {"[{\"name\":\"a\",\"expiry\":-5}]", "expiry"},
        {"[{\"name\":\"a\",\"maxDirtyBlocks\":4294967296}]", "maxDirtyBlocks"},
        {"[{\"name\":\"a\",\"shared\":\"yes\"}]", "shared"},
        {"[{\"name\":\"a\",\"overlay\":\"o\"}]", "1 overlays and 0 states"},
        {"[{\"name\":\"a\",\"overlay\":\"o p\",\"state\":\"s\"}]", "2 overlays and 1 states"},
        {"[{\"name\":\"a\",\"overlay\":\"o\",\"state\":\"o\"}]", "named twice"},
        {"[{\"name\":\"a\",\"overlay\":\"o o\",\"state\":\"s t\"}]", "named twice"},
        {"[{\"name\":\"a\",\"shared\":true,\"overlay\":\"o\",\"state\":\"s\"}]", "shared"},
        {"[{\"name\":\"a\"}],", "unexpected character"},
        {"[{\"name\":\"a\"", "ends early"},
    };
    struct devices d;

    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        FAILS(devices_parse(table[i].text, strlen(table[i].text), &d, &err), table[i].part);
}
END_TEST

UNIT_TEST(becomes_a_stack)
{
    struct devices d;

    parse("[{\"name\":\"disk\",\"base\":\"b\",\"overlay\":\"o1 o2\",\"state\":\"s1 s2\","
          "\"blockSize\":16384,\"expiry\":7},{\"name\":\"x\",\"base\":\"b\",\"shared\":true}]",
          &d);
    struct json_object *stack = device_stack(&d.items[0], &err);
    ck_assert_str_eq(json_object_to_json_string_ext(stack, JSON_C_TO_STRING_PLAIN),
                     "[{\"type\":\"file\",\"path\":\"b\",\"readonly\":true,\"shared\":false,"
                     "\"round\":4096},"
                     "{\"type\":\"cow\",\"overlay\":\"o1\",\"state\":\"s1\",\"blockSize\":16384,"
                     "\"readonly\":true},"
                     "{\"type\":\"cow\",\"overlay\":\"o2\",\"state\":\"s2\",\"blockSize\":16384,"
                     "\"readonly\":false},"
                     "{\"type\":\"dirty\",\"blockSize\":16384,\"expiry\":7},{\"type\":\"stats\"}]");
    json_object_put(stack);
    stack = device_stack(&d.items[1], &err);
    ck_assert_str_eq(json_object_to_json_string_ext(stack, JSON_C_TO_STRING_PLAIN),
                     "[{\"type\":\"file\",\"path\":\"b\",\"readonly\":false,\"shared\":true,"
                     "\"round\":4096},{\"type\":\"stats\"}]");
    json_object_put(stack);
    devices_free(&d);
}
END_TEST

/* Opens the device as its JSON says, writes to the first block often and to the second once, waits,
 * and looks in which order a migration would send them: ret gets the first and the last. */
static void order_of_writes(const char *expiry, uint64_t wait_ns, uint64_t ret[2])
{
    static const uint8_t page[4096];
    const struct timespec nap = {.tv_nsec = 1000000};
    struct timespec now;
    struct devices d;
    uint64_t *blocks;
    size_t n;
    char text[256];

    (void)snprintf(text, sizeof(text),
                   "[{\"name\":\"disk\",\"base\":\"three\",\"blockSize\":4096,\"expiry\":%s}]",
                   expiry);
    int fd = open("three", O_CREAT | O_WRONLY, 0600);
    ck_assert_int_eq(ftruncate(fd, 3 * 4096), 0);
    (void)close(fd);
    parse(text, &d);
    struct json_object *stack = device_stack(&d.items[0], &err);
    struct block *b = block_open_json(stack, "disk", NULL, &err);
    ck_assert_msg(b != NULL, "%s", err.text);
    for (int i = 0; i < 100; i++)
        OK(block_write(b, page, sizeof(page), 0, 0, &err));
    OK(block_write(b, page, sizeof(page), 4096, 0, &err));
    /* The time that passes is what is looked at. */
    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    uint64_t end = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec + wait_ns;
    while (wait_ns && (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec <= end) {
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    }
    OK(dirty_order(dirty_find(b), &blocks, &n, &err));
    ck_assert_uint_eq(n, 3);
    ret[0] = blocks[0];
    ret[1] = blocks[2];
    free(blocks);
    OK(block_close(b, &err));
    json_object_put(stack);
    devices_free(&d);
}

/* For so long a write counts: what changes often is sent last, as long as that is known. */
UNIT_TEST(expiry_is_how_long_a_write_counts)
{
    uint64_t first_and_last[2];

    order_of_writes("\"1h\"", 0, first_and_last);
    ck_assert_uint_eq(first_and_last[0], 2); /* never written */
    ck_assert_uint_eq(first_and_last[1], 0); /* a hundred times */
    order_of_writes("3600000000000", 0, first_and_last);
    ck_assert_uint_eq(first_and_last[1], 0);
    /* They are older than that now: as if nothing had been written. */
    order_of_writes("\"20ms\"", 2 * 20000000, first_and_last);
    ck_assert_uint_eq(first_and_last[0], 0);
    ck_assert_uint_eq(first_and_last[1], 2);
    order_of_writes("0", 0, first_and_last); /* none counts, ever */
    ck_assert_uint_eq(first_and_last[0], 0);
    ck_assert_uint_eq(first_and_last[1], 2);
}
END_TEST

/* What a stack prints opens the same stack, which prints the same. */
UNIT_TEST(a_stack_prints_itself_back)
{
    static const char text[] =
        "[{\"type\":\"sparse\",\"size\":65536,\"path\":\"sp\"},"
        "{\"type\":\"cow\",\"overlay\":\"po\",\"state\":\"ps\"},{\"type\":\"dirty\"},"
        "{\"type\":\"log\",\"tag\":\"t\"},{\"type\":\"delay\",\"read\":\"1us\"},"
        "{\"type\":\"fault\",\"op\":\"trim\",\"error\":\"ENOSPC\",\"after\":3},"
        "{\"type\":\"stats\"}]";
    struct block *b = open_stack(text);
    struct json_object *stack = block_describe(b, &err);
    char *first = json_format(stack);

    OK(block_close(b, &err));
    json_object_put(stack);
    b = open_stack(first);
    stack = block_describe(b, &err);
    char *second = json_format(stack);
    OK(block_close(b, &err));
    json_object_put(stack);
    ck_assert_str_eq(first, second);
    ck_assert_ptr_nonnull(strstr(first, "\"read\": 1000"));
    free(first);
    free(second);
}
END_TEST

UNIT_TEST(wrong_stacks_are_refused)
{
    static const char *const table[][2] = {
        {"[]", "at least one layer"},
        {"{}", "at least one layer"},
        {"[{\"type\":\"cow\",\"overlay\":\"o\",\"state\":\"s\"}]", "needs a source"},
        {"[{\"type\":\"sparse\",\"size\":4096},{\"type\":\"sparse\",\"size\":4096}]",
         "only stand at the bottom"},
        {"[{\"type\":\"nbd\"}]", "type \"nbd\" is none of"},
        {"[{\"type\":\"sparse\",\"size\":4096,\"pth\":\"x\"}]", "unknown key \"pth\""},
        {"[{\"type\":\"sparse\"}]", "size is missing"},
        {"[{\"type\":\"sparse\",\"size\":-1}]", "size"},
        {"[{\"type\":\"file\",\"path\":\"nowhere\"}]", "nowhere: open: No such file"},
        {"[{\"type\":\"file\",\"path\":\".\"}]", "Is a directory"},
        {"[{\"type\":\"sparse\",\"size\":4096},{\"type\":\"fault\",\"error\":\"EHUH\"}]",
         "error \"EHUH\" is none of"},
        {"[{\"type\":\"sparse\",\"size\":4096},{\"type\":\"dirty\",\"blockSize\":6000}]",
         "not a power of two"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        refuse_stack(table[i][0], table[i][1]);
}
END_TEST

UNIT_TEST(a_digest_of_the_base_goes_into_the_stack)
{
    struct devices d;

    parse("[{\"name\":\"disk\",\"base\":\"image\",\"overlay\":\"do\",\"state\":\"ds\"}]", &d);
    struct json_object *stack = device_stack(&d.items[0], &err);
    ck_assert_ptr_nonnull(stack);
    ck_assert_ptr_null(strstr(json_object_to_json_string(stack), "digest"));
    json_object_put(stack);

    d.items[0].has_base_digest = true;
    memset(d.items[0].base_digest, 0xa5, SHA256_SIZE);
    stack = device_stack(&d.items[0], &err);
    ck_assert_ptr_nonnull(stack);
    int fd = open("image", O_CREAT | O_WRONLY, 0600);
    ck_assert_int_eq(ftruncate(fd, 8192), 0);
    (void)close(fd);
    struct block *b = block_open_json(stack, "disk", NULL, &err);
    if (!b)
        ck_abort_msg("%s", err.text);
    struct block *source = block_find(b, "file", NULL);
    ck_assert_ptr_nonnull(source);
    struct block_identity id;
    OK(block_identity(source, &id, &err));
    ck_assert(id.has_digest);
    ck_assert_mem_eq(id.digest, d.items[0].base_digest, SHA256_SIZE);
    OK(block_close(b, &err));
    json_object_put(stack);
    devices_free(&d);
}
END_TEST
