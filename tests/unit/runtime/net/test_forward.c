// SPDX-License-Identifier: Apache-2.0
/* test_forward.c - port forwards as people write them, and those that are refused */
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "runtime/net/net.h"
#include "tests/lib/unit.h"

static int parse(const char *text, struct net_forwards *list, struct error *err)
{
    if (text[0] == '[' && text[1] != ':' && (text[1] < '0' || text[1] > '9'))
        return net_forwards_parse(text, strlen(text), "--port-forwards", list, err);
    return net_forwards_parse_short(text, "-p", list, err);
}

UNIT_TEST(short_form)
{
    static const struct {
        const char *text, *again;
    } cases[] = {{"3333:6379/tcp@ark0", "3333:6379/tcp@ark0"},
                 {"3333:6379@ark0", "3333:6379/tcp@ark0"},
                 {"127.0.0.1:53:53/udp@a", "127.0.0.1:53:53/udp@a"},
                 {"localhost:53:53/UDP@a", "127.0.0.1:53:53/udp@a"},
                 {"[::1]:8000-8010:80-90@ark1", "[::1]:8000-8010:80-90/tcp@ark1"},
                 {"[::]:1:1@x", "[::]:1:1/tcp@x"},
                 {"0.0.0.0:1-65535:1-65535@x", "0.0.0.0:1-65535:1-65535/tcp@x"}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        cleanup_forwards struct net_forwards list = {0};
        struct error err = ERROR_INIT;
        char buf[256];

        ck_assert_msg(parse(cases[i].text, &list, &err) == 0, "%s", err.text);
        ck_assert_uint_eq(list.count, 1);
        ck_assert_str_eq(net_forward_format(list.items, buf, sizeof(buf)), cases[i].again);
    }
}
END_TEST

UNIT_TEST(upstreams_json)
{
    cleanup_forwards struct net_forwards list = {0};
    struct error err = ERROR_INIT;

    ck_assert_int_eq(parse("[{\"netns\":\"ark0\",\"internalPort\":\"6379\",\"protocol\":\"tcp\","
                           "\"externalAddr\":\"127.0.0.1:3333\"},{\"netns\":\"b\","
                           "\"internalPort\":53,\"externalAddr\":\"[2001:db8::1]:54\"}]",
                           &list, &err),
                     0);
    ck_assert_uint_eq(list.count, 2);
    ck_assert_str_eq(list.items[0].netns, "ark0");
    ck_assert_int_eq(list.items[0].protocol, IPPROTO_TCP);
    ck_assert_uint_eq(list.items[0].first, 3333);
    ck_assert_uint_eq(list.items[0].count, 1);
    ck_assert_uint_eq(list.items[0].internal, 6379);
    ck_assert(!list.items[0].both);
    ck_assert(net_addr_is_loopback(&list.items[0].addr));
    ck_assert_int_eq(list.items[1].addr.family, AF_INET6);
    ck_assert_int_eq(net_forwards_check(&list, &err), 0);
}
END_TEST

UNIT_TEST(malformed_ones_are_refused_by_name)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"3333:6379/tcp", "write [ADDRESS:]PORT:PORT"},
        {"3333@ark0", "write [ADDRESS:]PORT:PORT"},
        {"0:1@a", "no port"},
        {"65536:1@a", "no port"},
        {"1:99999999999999999999@a", "no port"},
        {"9-8:9-8@a", "no port"},
        {"1-2:1@a", "equally long"},
        {"1:1/icmp@a", "neither tcp nor udp"},
        {"1:1@", "not the name"},
        {"1:1@../x", "not the name"},
        {"1:1@a b", "blanks"},
        {"example.org:1:1@a", "is not an address"},
        {"::1:1:1@a", "in brackets"},
        {"[127.0.0.1]:1:1@a", "in brackets"},
        {"[]", NULL},
        {"[true]", "[0]: not an object"},
        {"[{}]", "[0]: netns is missing"},
        {"[{\"netns\":\"a\",\"externalAddr\":\":1\"}]", "internalPort is missing"},
        {"[{\"netns\":\"a\",\"internalPort\":\"1\"}]", "externalAddr is missing"},
        {"[{\"netns\":\"a\",\"internalPort\":\"1\",\"externalAddr\":\":1\",\"x\":1}]", "x"},
        {"[{\"netns\":1,\"internalPort\":\"1\",\"externalAddr\":\":1\"}]", "netns"},
        {"[{\"netns\":\"a\",\"internalPort\":\"1\",\"externalAddr\":\"127.0.0.1\"}]", "no port"},
        {"[", "ends early"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        cleanup_forwards struct net_forwards list = {0};
        struct error err = ERROR_INIT;
        const int rc = parse(cases[i].text, &list, &err);

        ck_assert_msg(rc == (cases[i].why ? -1 : 0), "%s", cases[i].text);
        ck_assert_uint_eq(list.count, 0);
        if (cases[i].why)
            ck_assert_msg(strstr(err.text, cases[i].why), "%s: %s", cases[i].text, err.text);
    }
}
END_TEST

UNIT_TEST(two_that_want_one_port)
{
    static const struct {
        const char *a, *b;
        bool collide;
    } cases[] = {{"80:1@a", "80:2@b", true},
                 {"80:1/udp@a", "80:2@b", false},
                 {"127.0.0.1:80:1@a", "127.0.0.2:80:2@b", false},
                 {"127.0.0.1:80:1@a", "0.0.0.0:80:2@b", true},
                 {"127.0.0.1:80:1@a", "[::]:80:2@b", false},
                 {"127.0.0.1:80:1@a", "80:2@b", true},
                 {"[::1]:80:1@a", "80:2@b", true},
                 {"10.0.0.1:70-90:70-90@a", "10.0.0.1:90-91:1-2@b", true},
                 {"10.0.0.1:70-90:70-90@a", "10.0.0.1:91-92:1-2@b", false},
                 {"10.0.0.1:85:85@a", "10.0.0.1:80-90:80-90@b", true}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        cleanup_forwards struct net_forwards list = {0};
        struct error err = ERROR_INIT;

        ck_assert_int_eq(parse(cases[i].a, &list, NULL), 0);
        ck_assert_int_eq(parse(cases[i].b, &list, NULL), 0);
        ck_assert_msg(net_forwards_check(&list, &err) == (cases[i].collide ? -1 : 0), "%s %s",
                      cases[i].a, cases[i].b);
        if (cases[i].collide)
            ck_assert_ptr_nonnull(strstr(err.text, "want the same port"));
    }
}
END_TEST

UNIT_TEST(more_ports_than_there_may_be)
{
    cleanup_forwards struct net_forwards list = {0};
    struct error err = ERROR_INIT;

    ck_assert_int_eq(parse("127.0.0.1:1-65535:1-65535@a", &list, &err), 0);
    ck_assert_int_eq(parse("127.0.0.2:1-2:1-2@a", &list, &err), 0);
    ck_assert_int_eq(net_forwards_check(&list, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "65537 ports"));
}
END_TEST
