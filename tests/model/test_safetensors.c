/* test_safetensors.c - hostile headers and indexes: each is refused and named. */
#include "model/safetensors.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Parse a header with n_data bytes behind it, from memory of the exact size. */
static rr_status parse(const char *header, size_t n_data, rr__arena *a, rr__st *st, rr_error *err,
                       unsigned char **bytes) {
    uint64_t n = strlen(header);

    *bytes = calloc(1, 8 + n + n_data);
    memcpy(*bytes, &n, 8);
    memcpy(*bytes + 8, header, n);
    return rr__st_parse("m.safetensors", *bytes, 8 + n + n_data, a, st, err);
}

Test(safetensors, reads_tensors_in_any_order) {
    rr__arena            a = {0};
    rr__st               st;
    rr_error             err;
    unsigned char       *bytes;
    const rr__st_tensor *t;

    cr_assert_eq(parse("{\"__metadata__\":{\"x\":\"y\"},"
                       "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
                       "\"a\":{\"shape\":[],\"data_offsets\":[0,4],\"dtype\":\"F32\"},"
                       "\"none\":{\"shape\":[0,9],\"data_offsets\":[4,4],\"dtype\":\"I64\"}}   ",
                       16, &a, &st, &err, &bytes),
                 RR_OK, "%s", err.text);
    cr_assert_eq(st.n, 3);
    t = rr__st_find(&st, "b");
    cr_assert_not_null(t);
    cr_assert_eq(t->rank, 2);
    cr_assert(t->shape[0] == 2 && t->shape[1] == 3 && t->bytes == 12);
    cr_assert_str_eq(t->dtype, "BF16");
    cr_assert_eq(
        (const unsigned char *)t->data - (const unsigned char *)rr__st_find(&st, "a")->data, 4);
    cr_assert_null(rr__st_find(&st, "c"));
    rr__arena_free(&a);
    free(bytes);
}

#define T(name, dtype, shape, offsets)                                                             \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

Test(safetensors, refuses_and_names_what_is_wrong) {
    static const struct {
        const char *header;
        size_t      n_data;
        const char *text; /* the end of the message */
    } cases[] = {
        {"{" T("w", "F32", "[2]", "[0,8]") "}", 7,
         "w: data ends at byte 8 of 7: file is truncated"},
        {"{" T("w", "F32", "[1]", "[9223372036854775803,9223372036854775807]") "}", 4,
         "w: data ends at byte 9223372036854775807 of 4: file is truncated"},
        {"{" T("v", "F32", "[2]", "[0,8]") "," T("w", "F32", "[2]", "[4,12]") "}", 12,
         "w: overlaps v"},
        {"{" T("v", "F32", "[1]", "[0,4]") "," T("w", "F32", "[1]", "[0,4]") "}", 4, " overlaps "},
        {"{" T("v", "F32", "[1]", "[0,4]") "," T("w", "F32", "[1]", "[8,12]") "}", 12,
         "w: 4 bytes before it belong to no tensor"},
        {"{" T("w", "F32", "[1]", "[0,4]") "}", 9, "5 bytes behind the last tensor"},
        {"{" T("w", "F32", "[2]", "[0,4]") "}", 4, "w: shape and F32 need 8 bytes, offsets give 4"},
        {"{" T("w", "F16", "[2,2]", "[0,16]") "}", 16,
         "w: shape and F16 need 8 bytes, offsets give 16"},
        {"{" T("w", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0, "w: shape is too large"},
        {"{" T("w", "F32", "[9223372036854775807,2]", "[0,8]") "}", 8, "w: shape is too large"},
        {"{" T("w", "F32", "[-1,-4]", "[0,16]") "}", 16, "negative size in a shape"},
        {"{" T("w", "F32", "[1.5]", "[0,4]") "}", 4, "expected an integer"},
        {"{" T("w", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "more than 8 dimensions"},
        {"{" T("w", "F32", "[1]", "[4,0]") "}", 4, "data_offsets must be two rising numbers"},
        {"{" T("w", "F32", "[1]", "[-4,0]") "}", 4, "data_offsets must be two rising numbers"},
        {"{" T("w", "F32", "[1]", "[0,4,8]") "}", 4, "data_offsets has more than two numbers"},
        {"{" T("w", "F33", "[1]", "[0,4]") "}", 4, "unknown dtype"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4,
         "w: byte 32: dtype, shape or data_offsets is missing"},
        {"{\"w\":{\"shape\":[1],\"shape\":[1]}}", 4, "said twice"},
        {"{\"w\":{\"strides\":[1]}}", 4, "expected dtype, shape or data_offsets"},
        {"{" T("w", "F32", "[1]", "[0,4]") "," T("w", "F32", "[1]", "[4,8]") "}", 8,
         "w: named twice"},
        {"{" T("a\\nb", "F32", "[1]", "[0,4]") "}", 4, "control character in a name"},
        {"{" T("", "F32", "[1]", "[0,4]") "}", 4, "a name of 0 or more than 256 bytes"},
        {"[]", 0, "header: byte 0: expected an object"},
        {"{} x", 0, "unexpected text behind the value"},
        {"{\"w\":", 0, "w: byte 5: unexpected end"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rr__arena      a = {0};
        rr__st         st = {.n = 77};
        rr_error       err = {0};
        unsigned char *bytes;

        cr_assert_eq(parse(cases[i].header, cases[i].n_data, &a, &st, &err, &bytes), RR_E_FORMAT,
                     "%s", cases[i].header);
        cr_assert_not_null(strstr(err.text, cases[i].text), "%s: %s", cases[i].header, err.text);
        cr_assert_eq(strncmp(err.text, "m.safetensors: ", 15), 0, "%s", err.text);
        cr_assert_eq(st.n, 77, "output touched");
        rr__arena_free(&a);
        free(bytes);
    }
}

Test(safetensors, refuses_a_file_cut_anywhere) {
    const char     header[] = "{" T("w", "F32", "[2]", "[0,8]") "}";
    size_t         full = 8 + sizeof header - 1 + 8;
    rr__arena      a = {0};
    rr__st         st;
    rr_error       err;
    unsigned char *bytes;

    cr_assert_eq(parse(header, 8, &a, &st, &err, &bytes), RR_OK);
    for (size_t size = 0; size < full; size++) {
        unsigned char *cut = malloc(size ? size : 1);

        memcpy(cut, bytes, size);
        cr_assert_eq(rr__st_parse("f", cut, size, &a, &st, &err), RR_E_FORMAT, "%zu bytes", size);
        free(cut);
    }
    memset(bytes, 0xff, 8); /* a header of 2^64 - 1 bytes */
    cr_assert_eq(rr__st_parse("f", bytes, full, &a, &st, &err), RR_E_FORMAT);
    rr__arena_free(&a);
    free(bytes);
}

Test(safetensors, index_names_only_files_beside_it) {
    static const struct {
        const char *json, *text;
    } cases[] = {
        {"{\"weight_map\":{\"w\":\"../other\"}}", "a shard must be a plain file name"},
        {"{\"weight_map\":{\"w\":\"/etc/passwd\"}}", "a shard must be a plain file name"},
        {"{\"weight_map\":{\"w\":\"..\"}}", "a shard must be a plain file name"},
        {"{\"weight_map\":{\"w\":3}}", "expected a string"},
        {"{\"weight_map\":{}}", "weight_map is missing or empty"},
        {"{}", "weight_map is missing or empty"},
        {"{\"weight_map\":{\"w\":\"a\"},\"weight_map\":{}}", "weight_map twice"},
        {"{\"weight_map\":{\"w\":\"a\"}", "unexpected end"},
    };
    rr__arena    a = {0};
    rr__st_index ix;
    rr_error     err;
    const char  *good = "{\"metadata\":{},\"weight_map\":{\"v\":\"b\",\"w\":\"a\",\"x\":\"b\"}}";

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(rr__st_index_parse("i", cases[i].json, strlen(cases[i].json), &a, &ix, &err),
                     RR_E_FORMAT, "%s", cases[i].json);
        cr_assert_not_null(strstr(err.text, cases[i].text), "%s: %s", cases[i].json, err.text);
    }
    cr_assert_eq(rr__st_index_parse("i", good, strlen(good), &a, &ix, &err), RR_OK);
    cr_assert(ix.n == 3 && ix.n_file == 2);
    cr_assert_str_eq(ix.file[ix.shard[2]], "b");
    cr_assert_str_eq(ix.file[ix.shard[1]], "a");
    rr__arena_free(&a);
}
