/* fuzz_json.c - the JSON reader, and the writer behind it: what was read once, written and read
 * again must be accepted and be written the same. */
#include "base/json.h"
#include "base/json_out.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Copy one value. Keys with a NUL inside cannot be written by rr__out_key, so they go as values. */
static void copy(rr__json *j, rr__json_out *o) {
    rr_str   s;
    double   d;
    int64_t  i;
    int      b;
    rr__json saved;

    switch (rr__json_peek(j)) {
    case RR__JSON_OBJECT:
        rr__out_array(o);
        for (rr__json_object(j); rr__json_key(j, &s);) {
            rr__out_str(o, s);
            copy(j, o);
        }
        rr__out_end_array(o);
        break;
    case RR__JSON_ARRAY:
        rr__out_array(o);
        for (rr__json_array(j); rr__json_next(j);)
            copy(j, o);
        rr__out_end_array(o);
        break;
    case RR__JSON_STRING:
        if (rr__json_string(j, &s))
            rr__out_str(o, s);
        break;
    case RR__JSON_NUMBER:
        saved = *j;
        if (rr__json_i64(&saved, &i)) {
            *j = saved;
            rr__out_i64(o, i);
        } else if (rr__json_f64(j, &d)) {
            rr__out_f64(o, d == 0 ? 0 : d); /* -0 comes back as the integer 0 */
        }
        break;
    case RR__JSON_BOOL:
        if (rr__json_bool(j, &b))
            rr__out_bool(o, b);
        break;
    case RR__JSON_NULL:
        if (rr__json_null(j))
            rr__out_null(o);
        break;
    case RR__JSON_ERROR:
        break;
    }
}

static int read_and_write(const void *ptr, size_t size, rr__arena *a, rr__json_out *o) {
    rr__json j;

    rr__json_init(&j, ptr, size, a);
    copy(&j, o);
    return rr__json_done(&j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rr__arena    a = {0};
    rr__json_out once = {0}, twice = {0};
    rr__json     j;
    int          skipped, read;

    rr__json_init(&j, data, size, NULL);
    skipped = rr__json_skip(&j) && rr__json_done(&j);
    read = read_and_write(data, size, &a, &once);
    if (read && !skipped) /* skip takes numbers that do not fit a double, so not the other way */
        abort();
    if (read) {
        if (!read_and_write(once.ptr, once.len, &a, &twice))
            abort();
        if (once.len != twice.len || memcmp(once.ptr, twice.ptr, once.len) != 0)
            abort();
    }
    rr__out_free(&once);
    rr__out_free(&twice);
    rr__arena_free(&a);
    return 0;
}
