/* test_json_out.c - the JSON writer: commas, escapes, numbers that read back. */
#include "base/json.h"
#include "base/json_out.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void expect(rr__json_out *o, const char *want) {
    rr__out_raw(o, "", 1);
    cr_assert_str_eq(o->ptr, want);
    rr__out_reset(o);
}

Test(json_out, nesting_and_commas) {
    rr__json_out o = {0};

    rr__out_object(&o);
    rr__out_key(&o, "a");
    rr__out_array(&o);
    rr__out_i64(&o, -1);
    rr__out_array(&o);
    rr__out_end_array(&o);
    rr__out_bool(&o, 1);
    rr__out_end_array(&o);
    rr__out_key(&o, "b");
    rr__out_null(&o);
    rr__out_key(&o, "c");
    rr__out_u64(&o, UINT64_MAX);
    rr__out_end_object(&o);
    expect(&o, "{\"a\":[-1,[],true],\"b\":null,\"c\":18446744073709551615}");
    rr__out_free(&o);
}

Test(json_out, strings_are_always_valid_utf8) {
    rr__json_out o = {0};

    rr__out_str(&o, (rr_str){"a\"b\\\n\t\x01\0\x7f", 9});
    expect(&o, "\"a\\\"b\\\\\\n\\t\\u0001\\u0000\\u007f\"");
    rr__out_cstr(&o, "\xe2\x96\x81 \xf0\x9f\x98\x80");
    expect(&o, "\"\xe2\x96\x81 \xf0\x9f\x98\x80\"");
    rr__out_cstr(&o, "x\xff\xc0\xaf\xed\xa0\x80y\xe2\x96");
    expect(&o, "\"x"
               "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
               "y\xef\xbf\xbd\xef\xbf\xbd\"");
    rr__out_free(&o);
}

Test(json_out, numbers_are_short_and_read_back) {
    rr__json_out o = {0};
    unsigned     seed = 7;

    rr__out_f32(&o, 0.1f);
    expect(&o, "0.1");
    rr__out_f32(&o, -0.00123f);
    expect(&o, "-0.00123");
    rr__out_f32(&o, 1200);
    expect(&o, "1200");
    rr__out_f32(&o, 1e-10f);
    expect(&o, "1e-10");
    rr__out_f64(&o, 1.0 / 3);
    expect(&o, "0.3333333333333333");
    rr__out_f64(&o, 1.5e300);
    expect(&o, "1.5e300");
    rr__out_f32(&o, 0);
    expect(&o, "0");
    rr__out_f32(&o, NAN);
    expect(&o, "null");
    for (int i = 0; i < 50000; i++) {
        uint32_t bits = (seed = seed * 1664525 + 1013904223);
        float    f;
        double   d = 0;
        rr__json j;

        memcpy(&f, &bits, 4);
        if (!isfinite(f))
            continue;
        rr__out_f32(&o, f);
        rr__json_init(&j, o.ptr, o.len, NULL);
        cr_assert(rr__json_f64(&j, &d) && rr__json_done(&j), "%.*s", (int)o.len, o.ptr);
        cr_assert_eq((float)d, f, "%.*s is not %.9g", (int)o.len, o.ptr, (double)f);
        rr__out_reset(&o);
    }
    rr__out_free(&o);
}
