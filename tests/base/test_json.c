/* test_json.c - the JSON reader: values, strictness, error places, limits. */
#include "base/json.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rr__json reader(const char *text, rr__arena *a) {
    rr__json j;

    rr__json_init(&j, text, strlen(text), a);
    return j;
}

Test(json, walks_a_document_in_order) {
    rr__arena a = {0};
    rr__json j = reader(" {\"a\": [1, -2.5e2, true], \"b\" : {}, \"c\":null,\"d\":\"x\\ny\"} ", &a);
    rr_str   key, s;
    int64_t  i = 0;
    double   d = 0;
    int      yes = 0;

    cr_assert(rr__json_object(&j));
    cr_assert(rr__json_key(&j, &key) && rr__json_eq(key, "a"));
    cr_assert(rr__json_array(&j));
    cr_assert(rr__json_next(&j) && rr__json_i64(&j, &i) && i == 1);
    cr_assert(rr__json_next(&j) && rr__json_f64(&j, &d) && d == -250.0);
    cr_assert(rr__json_next(&j) && rr__json_bool(&j, &yes) && yes == 1);
    cr_assert(!rr__json_next(&j));
    cr_assert(rr__json_key(&j, &key) && rr__json_eq(key, "b"));
    cr_assert(rr__json_object(&j) && !rr__json_key(&j, &key));
    cr_assert(rr__json_key(&j, &key) && rr__json_eq(key, "c") && rr__json_null(&j));
    cr_assert(rr__json_key(&j, &key) && rr__json_string(&j, &s));
    cr_assert_eq(s.len, 3);
    cr_assert_eq(memcmp(s.ptr, "x\ny", 3), 0);
    cr_assert(!rr__json_key(&j, &key));
    cr_assert(rr__json_done(&j));
    rr__arena_free(&a);
}

Test(json, a_plain_string_is_not_copied) {
    const char *text = "\"plain text, longer than eight bytes \xe2\x96\x81\"";
    rr__json    j = reader(text, NULL);
    rr_str      s = {0};

    cr_assert(rr__json_string(&j, &s) && rr__json_done(&j));
    cr_assert_eq(s.ptr, text + 1);
    cr_assert_eq(s.len, strlen(text) - 2);
}

Test(json, escapes) {
    static const struct {
        const char *in, *out;
        size_t      len;
    } cases[] = {
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8},
        {"\"\\u0041\\u00e9\\u2581\"", "A\xc3\xa9\xe2\x96\x81", 6},
        {"\"\\ud83d\\uDE00!\"", "\xf0\x9f\x98\x80!", 5},
        {"\"a\\u0000b\"", "a\0b", 3},
        {"\"\\ud83d\"", "\xef\xbf\xbd", 3},
        {"\"\\ude00\\ud83dx\"", "\xef\xbf\xbd\xef\xbf\xbdx", 7},
        {"\"\\ud83d\\u0041\"",
         "\xef\xbf\xbd"
         "A",
         4},
        {"\"0123456789\\n0123456789\"", "0123456789\n0123456789", 21},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rr__arena a = {0};
        rr__json  j = reader(cases[i].in, &a);
        rr_str    s = {0};

        cr_assert(rr__json_string(&j, &s) && rr__json_done(&j), "%s: %s", cases[i].in, j.what);
        cr_assert_eq(s.len, cases[i].len, "%s: %zu bytes", cases[i].in, s.len);
        cr_assert_eq(memcmp(s.ptr, cases[i].out, s.len), 0, "%s", cases[i].in);
        rr__arena_free(&a);
    }
}

Test(json, malformed_text_is_refused_with_its_place) {
    static const struct {
        const char *text;
        size_t      at;
        const char *what;
    } cases[] = {
        {"", 0, "unexpected end"},
        {"[1,]", 3, "expected a value"},
        {"[1 2]", 3, "expected ',' or ']'"},
        {"[1", 2, "unexpected end"},
        {"{\"a\" 1}", 5, "expected ':'"},
        {"{a:1}", 1, "expected a value"},
        {"{1:1}", 1, "expected a key"},
        {"{\"a\":1,}", 7, "expected a value"},
        {"[1}", 2, "expected ',' or ']'"},
        {"\"ab", 3, "string does not end"},
        {"\"a\nb\"", 2, "control character in a string"},
        {"\"a\\x\"", 2, "bad escape"},
        {"\"\\u12g4\"", 1, "bad escape"},
        {"\"\\", 1, "bad escape"},
        {"\"\\n", 3, "string does not end"},
        {"01", 0, "bad number"},
        {"-", 1, "bad number"},
        {"1.", 2, "bad number"},
        {"1e+", 3, "bad number"},
        {".5", 0, "expected a value"},
        {"+1", 0, "expected a value"},
        {"tru", 0, "expected a value"},
        {"nul", 0, "expected a value"},
        {"NaN", 0, "NaN and Infinity are not JSON"},
        {"Infinity", 0, "NaN and Infinity are not JSON"},
        {"1 1", 2, "unexpected text behind the value"},
        {"truex", 4, "unexpected text behind the value"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rr__json j = reader(cases[i].text, NULL);

        cr_assert(!(rr__json_skip(&j) && rr__json_done(&j)), "%s", cases[i].text);
        cr_assert_str_eq(j.what, cases[i].what, "%s: %s", cases[i].text, j.what);
        cr_assert_eq(j.at, cases[i].at, "%s: byte %zu", cases[i].text, j.at);
    }
}

Test(json, the_first_error_sticks_and_ends_loops) {
    rr__json j = reader("[[1, x], 2]", NULL);
    rr_error err;
    int64_t  v = 7;
    int      rounds = 0;

    for (rr__json_array(&j); rr__json_next(&j); rounds++)
        rr__json_skip(&j);
    cr_assert_eq(rounds, 1);
    cr_assert(!rr__json_i64(&j, &v) && v == 7);
    rr__json_error(&j, "something else");
    cr_assert_eq(rr__json_fail(&j, "file.json", &err), RR_E_FORMAT);
    cr_assert_str_eq(err.text, "file.json: byte 5: expected a value");
}

Test(json, depth_is_limited) {
    char     text[2 * RR__JSON_DEPTH + 3];
    rr__json j;

    for (int extra = 0; extra < 2; extra++) {
        int n = RR__JSON_DEPTH + extra;

        memset(text, '[', (size_t)n);
        memset(text + n, ']', (size_t)n);
        rr__json_init(&j, text, (size_t)(2 * n), NULL);
        cr_assert_eq(rr__json_skip(&j) && rr__json_done(&j), !extra);
    }
    cr_assert_str_eq(j.what, "nested too deep");
}

Test(json, numbers_equal_strtod) {
    static const char *const fixed[] = {"0",
                                        "-0",
                                        "0.1",
                                        "1e22",
                                        "1e23",
                                        "-11.514299392700195",
                                        "9007199254740993",
                                        "9007199254740993.0",
                                        "179769313486231570000000000000000000000e270",
                                        "4.9e-324",
                                        "2.5e-324",
                                        "1e-400",
                                        "123456789012345678901234567890",
                                        "0.000000000000000000000000000000000000001",
                                        "1.00000000000000011102230246251565404236316680908203125",
                                        "1.00000000000000011102230246251565404236316680908203124",
                                        "9223372036854775808e-3"};
    char                     text[64];
    unsigned                 seed = 1;

    for (int i = 0; i < 200000; i++) {
        const char *t = text;
        rr__json    j;
        double      d = 0, want;

        if (i < (int)(sizeof fixed / sizeof fixed[0])) {
            t = fixed[i];
        } else {
            uint64_t r = 0;

            for (int k = 0; k < 4; k++) {
                seed = seed * 1103515245 + 12345;
                r = r << 16 | (seed >> 16 & 0xffff);
            }
            if (i % 3 == 0)
                snprintf(text, sizeof text, "%llu.%llue%d", (unsigned long long)(r & 0xffff),
                         (unsigned long long)(r >> 16), (int)(r % 60) - 30);
            else
                snprintf(text, sizeof text, "%.17g", -20.0 * (double)r / 18446744073709551616.0);
        }
        j = reader(t, NULL);
        want = strtod(t, NULL);
        cr_assert(rr__json_f64(&j, &d) && rr__json_done(&j), "%s", t);
        cr_assert_eq(memcmp(&d, &want, 8), 0, "%s: %.17g, want %.17g", t, d, want);
    }
}

Test(json, integers_are_checked) {
    static const char *const bad[] = {"1.0", "1e2", "9223372036854775808", "99999999999999999999",
                                      "\"1\""};
    int64_t                  v = 0;
    rr__json                 j = reader("-9223372036854775807", NULL);

    cr_assert(rr__json_i64(&j, &v) && v == -INT64_MAX);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        j = reader(bad[i], NULL);
        cr_assert(!rr__json_i64(&j, &v), "%s", bad[i]);
    }
    j = reader("1e999", NULL);
    cr_assert(!rr__json_f64(&j, &(double){0}));
    cr_assert_str_eq(j.what, "number is out of range");
}

Test(json, raw_and_copy_come_back_to_a_place) {
    rr__json j = reader("{\"a\": [1, {\"b\\u0020\": 2}] , \"c\": 3}", NULL), saved;
    rr_str   key, raw = {0};

    rr__json_object(&j);
    rr__json_key(&j, &key);
    saved = j;
    cr_assert(rr__json_raw(&j, &raw));
    cr_assert_eq(raw.len, strlen("[1, {\"b\\u0020\": 2}]"));
    cr_assert(rr__json_array(&saved));
    cr_assert(rr__json_key(&j, &key) && rr__json_eq(key, "c"));
}

Test(json, every_prefix_of_a_document_is_refused) {
    const char *text =
        "{\"k\\u00e9y\": [1.5e3, \"\\ud83d\\ude00\", {\"x\": [true, null]}], \"z\": -1}";
    size_t n = strlen(text);

    for (size_t len = 0; len <= n; len++) {
        char    *copy = malloc(len + 1); /* exact size, so that a sanitizer sees any overrun */
        rr__json j;

        memcpy(copy, text, len);
        copy = realloc(copy, len ? len : 1);
        rr__json_init(&j, copy, len, NULL);
        cr_assert_eq(rr__json_skip(&j) && rr__json_done(&j), len == n, "%zu bytes", len);
        free(copy);
    }
}
