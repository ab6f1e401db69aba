/* test_text.c - the tokenizer and the pair policy by hand: errors, edges, truncation. Exactness
 * against the reference is in test_tokenizer.py. */
#include "text/pair.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static rr__tokenizer *mini(void) {
    rr__tokenizer *t = NULL;
    rr_error       err = {0};

    cr_assert_eq(rr__tokenizer_open("models/mini", &t, &err), RR_OK, "%s", err.text);
    return t;
}

static void encode(const rr__tokenizer *t, rr_str text, rr__ids *out) {
    rr_error err = {0};

    out->n = 0;
    cr_assert_eq(rr__tokenizer_encode(t, text, out, &err), RR_OK, "%s", err.text);
}

Test(text, describes_itself) {
    rr__tokenizer *t = mini();

    cr_assert_eq(rr__tokenizer_vocab_size(t), 34560);
    cr_assert_eq(rr__tokenizer_bos(t), 0);
    cr_assert_eq(rr__tokenizer_eos(t), 2);
    cr_assert_eq(rr__tokenizer_pair_special(t), 4);
    cr_assert_eq(rr__tokenizer_piece(t, 0).len, 3);
    cr_assert_null(rr__tokenizer_piece(t, -1).ptr);
    cr_assert_null(rr__tokenizer_piece(t, 34560).ptr);
    rr__tokenizer_close(t);
}

Test(text, odd_texts) {
    rr__tokenizer *t = mini();
    rr__ids        a = {0}, b = {0};

    encode(t, RR_STR(""), &a);
    cr_assert_eq(a.n, 0);
    encode(t, (rr_str){NULL, 0}, &a);
    cr_assert_eq(a.n, 0);
    encode(t, RR_STR(" \n\t "), &a);
    cr_assert_eq(a.n, 0);
    encode(t, RR_STR("a\xff\xe2\x82z"), &a); /* one U+FFFD for ff, one for the cut-off e2 82 */
    encode(t, RR_STR("a\xef\xbf\xbd\xef\xbf\xbdz"), &b);
    cr_assert_eq(a.n, b.n);
    cr_assert_eq(memcmp(a.id, b.id, a.n * sizeof *a.id), 0);
    encode(t, RR_STR("x\0y"), &a);
    cr_assert_gt(a.n, 1);
    rr__ids_free(&a);
    rr__ids_free(&b);
    rr__tokenizer_close(t);
}

/* Ten megabytes: no spaces, only spaces, one cluster of accents. */
Test(text, ten_megabytes, .timeout = 60) {
    static const char *const unit[] = {"a", " ", "\xcc\x81", "\xe4\xb8\xad\xe6\x96\x87", "ab "};
    size_t                   size = 10u << 20;
    char                    *big = malloc(size);
    rr__tokenizer           *t = mini();
    rr__ids                  ids = {0};

    for (int k = 0; k < 5; k++) {
        size_t n = strlen(unit[k]);

        for (size_t i = 0; i + n <= size; i += n)
            memcpy(big + i, unit[k], n);
        encode(t, (rr_str){big, size / n * n}, &ids);
        cr_assert(k == 1 ? ids.n == 0 : ids.n > 0);
    }
    free(big);
    rr__ids_free(&ids);
    rr__tokenizer_close(t);
}

Test(text, spans_cover_the_text) {
    rr__tokenizer *t = mini();
    rr_str         text = RR_STR("Paris  is\xff nice");
    rr_token       token[32];
    size_t         n = 0;
    rr_error       err;

    cr_assert_eq(rr__tokenizer_encode_spans(t, text, 1, token, 32, &n, &err), RR_OK);
    cr_assert_gt(n, 5);
    cr_assert_lt(n, 32);
    cr_assert(token[0].special && token[0].id == 0 && token[0].end == 0);
    cr_assert(token[n - 1].special && token[n - 1].id == 2 && token[n - 1].start == text.len);
    cr_assert_eq(token[1].start, 0);
    cr_assert_eq(token[1].end, 5);
    cr_assert_eq(token[n - 2].end, text.len);
    cr_assert_eq(rr__tokenizer_encode_spans(t, text, 1, token, 2, &n, &err), RR_OK);
    cr_assert_gt(n, 5, "the full count even if cap is smaller");
    rr__tokenizer_close(t);
}

/* ---- pairs -------------------------------------------------------------------- */

enum { NQ = 20, ND = 50 };
static int32_t query[NQ], doc[ND];

static rr_status splice(const rr__tokenizer *t, size_t nq, size_t nd, rr__pair_opts o, rr__ids *out,
                        int32_t *seg, rr_doc_info *info) {
    rr_error err;

    for (int32_t i = 0; i < NQ; i++)
        query[i] = 100 + i;
    for (int32_t i = 0; i < ND; i++)
        doc[i] = 200 + i;
    out->n = 0;
    return rr__pair_splice(t, query, nq, doc, nd, &o, out, seg, info, &err);
}

Test(pair, whole) {
    rr__tokenizer *t = mini();
    rr__ids        out = {0};
    rr_doc_info    info;
    int32_t        seg, want[] = {0, 100, 101, 2, 2, 200, 201, 202, 2};

    cr_assert_eq(splice(t, 2, 3, (rr__pair_opts){.max_length = 512}, &out, &seg, &info), RR_OK);
    cr_assert_eq(out.n, 9);
    cr_assert_eq(memcmp(out.id, want, sizeof want), 0);
    cr_assert(info.tokens == 9 && info.kept == 9 && !info.truncated);
    cr_assert_eq(splice(t, 0, 0, (rr__pair_opts){.max_length = 5}, &out, &seg, &info), RR_OK);
    cr_assert_eq(out.n, 4);
    rr__ids_free(&out);
    rr__tokenizer_close(t);
}

Test(pair, only_second_keeps_three_quarters_for_the_query) {
    rr__tokenizer *t = mini();
    rr__ids        out = {0};
    rr_doc_info    info;
    int32_t        seg;
    rr__pair_opts  o = {.max_length = 24};

    cr_assert_eq(splice(t, 20, 50, o, &out, &seg, &info), RR_OK);
    cr_assert_eq(out.n, 24);
    cr_assert_eq(out.id[18], 117, "18 of 20 query tokens");
    cr_assert_eq(out.id[21], 200);
    cr_assert_eq(out.id[22], 201);
    cr_assert(info.tokens == 74 && info.kept == 24 && info.truncated);
    o.side = RR_SIDE_LEFT;
    cr_assert_eq(splice(t, 20, 50, o, &out, &seg, &info), RR_OK);
    cr_assert_eq(out.id[1], 102);
    cr_assert_eq(out.id[22], 249);
    o = (rr__pair_opts){.max_length = 24, .max_query = 5, .max_doc = 7};
    cr_assert_eq(splice(t, 20, 50, o, &out, &seg, &info), RR_OK);
    cr_assert_eq(out.n, 16);
    cr_assert(info.tokens == 74 && info.kept == 16 && info.truncated);
    rr__ids_free(&out);
    rr__tokenizer_close(t);
}

Test(pair, longest_first) {
    rr__tokenizer *t = mini();
    rr__ids        out = {0};
    rr_doc_info    info;
    int32_t        seg;
    rr__pair_opts  o = {.max_length = 29, .truncation = RR_TRUNC_LONGEST_FIRST};

    cr_assert_eq(splice(t, 20, 50, o, &out, &seg, &info), RR_OK);
    cr_assert_eq(out.n, 29);
    cr_assert_eq(out.id[12], 111, "12 of the query, 13 of the document");
    cr_assert_eq(out.id[13], 2);
    cr_assert_eq(splice(t, 4, 50, o, &out, &seg, &info), RR_OK);
    cr_assert_eq(out.id[4], 103);
    cr_assert_eq(out.n, 29);
    rr__ids_free(&out);
    rr__tokenizer_close(t);
}

Test(pair, errors) {
    rr__tokenizer *t = mini();
    rr__ids        out = {0};
    rr_doc_info    info;
    int32_t        seg;
    rr__pair_opts  o = {.max_length = 24, .truncation = RR_TRUNC_ERROR};

    cr_assert_eq(splice(t, 20, 50, o, &out, &seg, &info), RR_E_TOO_LARGE);
    cr_assert_eq(out.n, 0);
    cr_assert_eq(splice(t, 10, 10, o, &out, &seg, &info), RR_OK);
    o.max_length = 4;
    cr_assert_eq(splice(t, 1, 1, o, &out, &seg, &info), RR_E_ARG);
    rr__ids_free(&out);
    rr__tokenizer_close(t);
}

/* ---- files -------------------------------------------------------------------- */

Test(text, missing_folder) {
    rr__tokenizer *t = NULL;
    rr_error       err = {0};

    cr_assert_eq(rr__tokenizer_open("models", &t, &err), RR_E_IO);
    cr_assert(strstr(err.text, "tokenizer.json"));
    cr_assert_null(t);
}
