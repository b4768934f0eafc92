// SPDX-License-Identifier: Apache-2.0
/* test_rpc.c - the agent's messages, against the bytes upstream writes */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/wire/rpc.h"
#include "tests/lib/unit.h"

#define ID "11111111-2222-3333-4444-555555555555"

/* Recorded from upstream's encoder. */
#define REQUEST                                                                                    \
    "{\"request\":{\"call\":\"" ID "\",\"function\":\"BeforeSuspend\",\"args\":[]},"               \
    "\"response\":null}\n"
#define RESPONSE                                                                                   \
    "{\"request\":null,\"response\":{\"call\":\"" ID "\",\"value\":null,\"err\":\"\"}}\n"
#define FAILURE                                                                                    \
    "{\"request\":null,\"response\":{\"call\":\"" ID                                               \
    "\",\"value\":null,\"err\":\"exit status 1\"}}\n"

static void good(const char *text, struct rpc_message *m)
{
    struct error err = ERROR_INIT;
    int rc = rpc_decode(text, strlen(text), m, &err);

    ck_assert_msg(rc == 0, "%s: %s", text, err.text);
}

static void bad(const char *text)
{
    struct rpc_message m = {.n_args = 77};
    struct error err = ERROR_INIT;

    ck_assert_msg(rpc_decode(text, strlen(text), &m, &err) == -1, "accepted: %s", text);
    ck_assert_int_eq(err.code, EBADMSG);
    ck_assert_uint_eq(m.n_args, 77);
}

UNIT_TEST(writes_upstreams_bytes)
{
    char buf[512];

    ck_assert_int_eq(rpc_encode_request(buf, sizeof(buf), ID, RPC_BEFORE_SUSPEND, NULL),
                     (ssize_t)strlen(REQUEST));
    ck_assert_mem_eq(buf, REQUEST, strlen(REQUEST));
    ck_assert_int_eq(rpc_encode_response(buf, sizeof(buf), ID, ""), (ssize_t)strlen(RESPONSE));
    ck_assert_mem_eq(buf, RESPONSE, strlen(RESPONSE));
    ck_assert_int_eq(rpc_encode_response(buf, sizeof(buf), ID, "exit status 1"),
                     (ssize_t)strlen(FAILURE));
    ck_assert_mem_eq(buf, FAILURE, strlen(FAILURE));
    for (size_t n = 0; n < strlen(FAILURE); n++)
        ck_assert_int_eq(rpc_encode_response(buf, n, ID, "exit status 1"), -1);
}
END_TEST

UNIT_TEST(reads_upstreams_bytes)
{
    struct rpc_message m;

    good(REQUEST, &m);
    ck_assert_int_eq(m.kind, RPC_REQUEST);
    ck_assert_str_eq(m.call, ID);
    ck_assert_str_eq(m.function, "BeforeSuspend");
    ck_assert_uint_eq(m.n_args, 0);
    ck_assert(!m.has_resume && !m.problem);
    good(RESPONSE, &m);
    ck_assert_int_eq(m.kind, RPC_RESPONSE);
    ck_assert_str_eq(m.error, "");
    good(FAILURE, &m);
    ck_assert_str_eq(m.call, ID);
    ck_assert_str_eq(m.error, "exit status 1");
}
END_TEST

UNIT_TEST(reads_as_go_does)
{
    struct rpc_message m;

    good("{\"REQUEST\":{\"Function\":\"F\",\"x\":[{\"a\":[1,-2.5e+3,true]}],\"aRgs\":[1,{},\"\"],"
         "\"CALL\":\"c\"}}",
         &m);
    ck_assert_str_eq(m.function, "F");
    ck_assert_str_eq(m.call, "c");
    ck_assert_uint_eq(m.n_args, 3);
    good("{\"request\":{\"call\":\"c\",\"function\":\"F\",\"args\":null},\"more\":7}", &m);
    ck_assert_uint_eq(m.n_args, 0);
    good(" {\"response\" : {\"call\":\"c\",\"err\":\" \\t\\n\"} , \"request\" :null}\r\n", &m);
    ck_assert_str_eq(m.error, "");
    good("{\"response\":{\"call\":\"c\",\"value\":{\"deep\":[[[]]]},\"err\":null}}", &m);
    ck_assert_str_eq(m.error, "");
    good("{\"response\":{\"err\":\"\\u003c\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\ude00|\\ud800|"
         "\\u0000|\xff|\xc3\xa9\"}}",
         &m);
    ck_assert_str_eq(m.error, "<\"\\/\b\f\n\r\t\u00e9\U0001f600|\ufffd|\ufffd|\ufffd|\u00e9");
}
END_TEST

UNIT_TEST(problems_can_be_answered)
{
    struct rpc_message m;

    good("{\"request\":{\"call\":\"c\",\"function\":7,\"args\":[]}}", &m);
    ck_assert_ptr_nonnull(m.problem);
    ck_assert_str_eq(m.call, "c");
    good("{\"request\":{\"call\":\"c\",\"function\":\"F\",\"args\":{}}}", &m);
    ck_assert_ptr_nonnull(m.problem);
    good("{\"request\":{\"call\":\"c\",\"function\":\"F\",\"drafter\":{\"time\":5}}}", &m);
    ck_assert_ptr_nonnull(m.problem);
    good("{\"request\":{\"call\":\"c\",\"function\":\"F\",\"drafter\":{\"entropy\":\"00\"}}}", &m);
    ck_assert_ptr_nonnull(m.problem);
    ck_assert(!m.has_resume);
}
END_TEST

UNIT_TEST(refuses)
{
    static const char *const texts[] = {
        "",
        " ",
        "{",
        "}",
        "[]",
        "null",
        "{}",
        "{}{}",
        "{\"request\":null,\"response\":null}",
        "{\"request\":{},\"response\":{}}",
        "{\"request\":{},\"request\":{}}",
        "{\"request\":7}",
        "{\"request\":\"\"}",
        "{\"request\":{\"call\":7}}",
        "{\"request\":{\"call\":\"\\u0000\"}}",
        "{\"request\":{\"call\":\"\xff\"}}",
        "{\"request\":{\"call\":\"a\nb\"}}",
        "{\"request\":{\"call\":\"c\",}}",
        "{\"request\":{\"call\":\"c\"},}",
        "{\"request\":{\"call\":\"c\"}}x",
        "{\"request\":{\"call\":\"c\" \"args\":[]}}",
        "{\"request\":{\"call\":\"c\",\"args\":[1,]}}",
        "{\"request\":{\"call\":\"c\",\"args\":[,]}}",
        "{\"request\":{\"call\":\"c\",\"args\":[01]}}",
        "{\"request\":{\"call\":\"c\",\"args\":[1.]}}",
        "{\"request\":{\"call\":\"c\",\"args\":[+1]}}",
        "{\"request\":{\"call\":\"c\",\"args\":[nul]}}",
        "{\"request\":{\"call\":\"c\",\"args\":[\"\\x\"]}}",
        "{\"request\":{\"call\":\"c\",\"args\":[\"\\u12g4\"]}}",
        "{'request':{}}",
        "{\"request\":{\"call\":\"c\"}]",
        "{request:{\"call\":\"c\"}}",
        "{\"response\":{\"call\":\"c\",\"err\":7}}",
        "{\"response\":{\"call\":[]}}",
        "{\"request\":{\"call\":\"c\",\"x\":[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}}",
    };
    struct rpc_message m;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        bad(texts[i]);
    /* Each cut of a good message is bad, too. */
    for (size_t n = 0; n < strlen(REQUEST) - 1; n++)
        ck_assert_int_eq(rpc_decode(REQUEST, n, &m, NULL), -1);
}
END_TEST

UNIT_TEST(limits)
{
    static char text[RPC_MESSAGE_MAX + 100];
    struct rpc_message m;
    struct error err;

    /* An id that is too long cannot be answered; a function's name can. */
    int at = sprintf(text, "{\"request\":{\"call\":\"");
    memset(text + at, 'c', RPC_CALL_MAX);
    strcpy(text + at + RPC_CALL_MAX, "\"}}");
    good(text, &m);
    ck_assert_uint_eq(strlen(m.call), RPC_CALL_MAX);
    strcpy(text + at + RPC_CALL_MAX, "c\"}}");
    bad(text);
    /* A long error text is cut at a character's boundary. */
    at = sprintf(text, "{\"response\":{\"call\":\"c\",\"err\":\"x");
    for (int i = 0; i < RPC_ERROR_TEXT_MAX; i++)
        at += sprintf(text + at, "\u00e9");
    strcpy(text + at, "\"}}");
    good(text, &m);
    ck_assert_uint_eq(strlen(m.error), RPC_ERROR_TEXT_MAX - 1);
    memset(text, ' ', sizeof(text));
    ck_assert_int_eq(rpc_decode(text, RPC_MESSAGE_MAX + 1, &m, &err), -1);
    ck_assert_int_eq(err.code, EMSGSIZE);
}
END_TEST

UNIT_TEST(resume_round_trip)
{
    struct rpc_resume r = {.time_ns = UINT64_C(1700000000123456789), .has_entropy = true};
    struct rpc_message m;
    char buf[512];

    for (int i = 0; i < RPC_ENTROPY_SIZE; i++)
        r.entropy[i] = (uint8_t)(i * 37);
    ssize_t n = rpc_encode_request(buf, sizeof(buf), "c", RPC_AFTER_RESUME, &r);
    ck_assert_int_gt(n, 0);
    ck_assert_int_eq(rpc_decode(buf, (size_t)n, &m, NULL), 0);
    ck_assert(m.has_resume && m.resume.has_entropy);
    ck_assert_uint_eq(m.resume.time_ns, r.time_ns);
    ck_assert_mem_eq(m.resume.entropy, r.entropy, RPC_ENTROPY_SIZE);
    ck_assert_uint_eq(m.n_args, 0);
}
END_TEST

UNIT_TEST(text_round_trip)
{
    static const char text[] = "a\"\\/\b\f\n\r\t\x01 <&> \u2028\u2029 \u00e9\U0001f600";
    struct rpc_message m;
    char buf[512];

    ssize_t n = rpc_encode_response(buf, sizeof(buf), "c", text);
    ck_assert_int_gt(n, 0);
    buf[n] = '\0';
    ck_assert_ptr_nonnull(strstr(buf, " \\u003c\\u0026\\u003e \\u2028\\u2029 "));
    ck_assert_int_eq(rpc_decode(buf, (size_t)n, &m, NULL), 0);
    ck_assert_str_eq(m.error, text);
    /* What is no UTF-8 becomes U+FFFD, byte by byte. */
    n = rpc_encode_response(buf, sizeof(buf), "c", "\xff|\xed\xa0\x80|\xc3");
    ck_assert_int_eq(rpc_decode(buf, (size_t)n, &m, NULL), 0);
    ck_assert_str_eq(m.error, "\ufffd|\ufffd\ufffd\ufffd|\ufffd");
}
END_TEST

/* The reader finds the same messages however the bytes are cut. */
UNIT_TEST(reader_any_cut)
{
    static const char stream[] = "\n \t" REQUEST RESPONSE "{\"request\":{\"call\":\"}{]\\\"\"}}"
                                 "{\"response\":{\"call\":\"z\"}}\n\n";
    static struct rpc_reader reader;
    struct rpc_message m;
    struct error err;

    for (size_t cut = 1; cut < sizeof(stream); cut++) {
        int count = 0;
        rpc_reader_init(&reader);
        for (size_t at = 0; at < sizeof(stream) - 1;) {
            size_t used, len = sizeof(stream) - 1 - at;
            int rc = rpc_reader_feed(&reader, stream + at, len < cut ? len : cut, &used, &m, &err);
            ck_assert_int_ge(rc, 0);
            at += used;
            if (rc == 1 && ++count == 3)
                ck_assert_str_eq(m.call, "}{]\"");
        }
        ck_assert_int_eq(count, 4);
        ck_assert_uint_eq(reader.len, 0);
    }
}
END_TEST

UNIT_TEST(reader_refuses)
{
    static struct rpc_reader reader;
    static char big[RPC_MESSAGE_MAX + 1];
    struct rpc_message m;
    struct error err;
    size_t used;

    rpc_reader_init(&reader);
    ck_assert_int_eq(rpc_reader_feed(&reader, " x", 2, &used, &m, &err), -1);
    ck_assert_int_eq(err.code, EBADMSG);
    rpc_reader_init(&reader);
    ck_assert_int_eq(rpc_reader_feed(&reader, "{]", 2, &used, &m, &err), -1);
    memset(big, 'a', sizeof(big));
    big[0] = '{';
    rpc_reader_init(&reader);
    ck_assert_int_eq(rpc_reader_feed(&reader, big, sizeof(big) - 1, &used, &m, &err), 0);
    ck_assert_int_eq(rpc_reader_feed(&reader, "a", 1, &used, &m, &err), -1);
    ck_assert_int_eq(err.code, EMSGSIZE);
}
END_TEST

UNIT_TEST(call_ids_are_uuids)
{
    uint8_t random[16];
    char call[37];

    memset(random, 0xff, sizeof(random));
    rpc_call_id(random, call);
    ck_assert_str_eq(call, "ffffffff-ffff-4fff-bfff-ffffffffffff");
}
END_TEST
