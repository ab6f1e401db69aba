/* test_ref.c - the reference against Hugging Face: logits, every activation, batch invariance. */
#include "truth.h"

#include <stdio.h>

extern const rr__backend rr__backend_ref;

enum { MAX_SEQ = 64 };
static const double tolerance = 1e-4;

/* The last n sequences of the truth file, the longest among them. */
static void check_logits(const char *dir, const char *path, int32_t n) {
    truth     t;
    opened    o;
    rr__batch b;
    float     logits[MAX_SEQ];
    double    worst = 0;

    truth_open(&t, dir, path);
    backend_open(&o, &rr__backend_ref, t.model, RR__AUTO, NULL, 1);
    n = n < t.n_seq ? n : t.n_seq;
    b = truth_batch(&t, t.n_seq - n, n);
    backend_score(&o, &b, logits);
    for (int32_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)logits[i] - t.logits[t.n_seq - n + i]));
    fprintf(stderr, "%s: %d sequences, largest logit error %.2g\n", dir, (int)n, worst);
    cr_assert_leq(worst, tolerance);
    free((void *)b.cu);
    backend_close(&o);
    truth_close(&t);
}

Test(ref, agrees_with_hf_on_the_embedded_model) {
    check_logits("models/mini", "tests/data/mini-truth.safetensors", 16);
}

Test(ref, agrees_with_hf_on_a_tiny_xlm_roberta) {
    check_logits("tests/data/tiny-xlmr", "tests/data/tiny-xlmr/truth.safetensors", MAX_SEQ);
}

Test(ref, agrees_with_hf_on_a_tiny_bert_with_token_types) {
    check_logits("tests/data/tiny-bert", "tests/data/tiny-bert/truth.safetensors", MAX_SEQ);
}

typedef struct watch {
    truth *t;
    int    compared, skipped;
} watch;

static void compare(void *user, const rr__activation *a) {
    watch       *w = user;
    const float *want;
    int64_t      rows;
    double       worst = 0;

    if (strcmp(a->name, "logits") == 0 || !rr__st_find(&w->t->st, a->name)) {
        w->skipped++;
        return;
    }
    want = truth_data(w->t, a->name, &rows);
    cr_assert_eq(rows, a->rows, "%s: %d rows", a->name, (int)a->rows);
    cr_assert_eq(rr__st_find(&w->t->st, a->name)->shape[1], a->cols, "%s", a->name);
    for (size_t i = 0; i < (size_t)a->rows * (size_t)a->cols; i++)
        worst = fmax(worst, fabs((double)a->data[i] - want[i]));
    cr_assert_leq(worst, tolerance, "%s: largest error %g", a->name, worst);
    w->compared++;
}

/* want: activations the truth file holds. */
static void check_activations(const char *dir, const char *path, int want) {
    truth     t;
    opened    o;
    rr__batch b;
    float     logits[MAX_SEQ];
    watch     w = {.t = &t};
    rr_error  err = {0};

    truth_open(&t, dir, path);
    backend_open(&o, &rr__backend_ref, t.model, RR__FP32, NULL, 1);
    b = truth_batch(&t, 0, t.n_observed);
    cr_assert_eq(rr__backend_ref.observe(o.instance, &b, logits, compare, &w, &err), RR_OK, "%s",
                 err.text);
    cr_assert_eq(w.compared, want);
    cr_assert_eq(w.compared + w.skipped, 1 + 7 * t.model->n_layer + 2);
    free((void *)b.cu);
    backend_close(&o);
    truth_close(&t);
}

Test(ref, every_activation_agrees_with_hf) {
    check_activations("tests/data/tiny-xlmr", "tests/data/tiny-xlmr/truth.safetensors", 23);
    check_activations("tests/data/tiny-bert", "tests/data/tiny-bert/truth.safetensors", 23);
    check_activations("models/mini", "tests/data/mini-truth.safetensors", 5);
}

Test(ref, alone_equals_in_company_to_the_bit) {
    truth     t;
    opened    o;
    rr__batch b;
    float     together[MAX_SEQ], alone;

    truth_open(&t, "tests/data/tiny-bert", "tests/data/tiny-bert/truth.safetensors");
    backend_open(&o, &rr__backend_ref, t.model, RR__FP32, NULL, 1);
    b = truth_batch(&t, 0, t.n_seq);
    backend_score(&o, &b, together);
    free((void *)b.cu);
    for (int32_t i = 0; i < t.n_seq; i++) {
        b = truth_batch(&t, i, 1);
        backend_score(&o, &b, &alone);
        cr_assert_eq(memcmp(&alone, &together[i], sizeof alone), 0, "sequence %d", (int)i);
        free((void *)b.cu);
    }
    backend_close(&o);
    truth_close(&t);
}

Test(ref, refuses_what_it_was_not_planned_for) {
    truth            t;
    opened           o;
    rr_error         err;
    float            logit = 7;
    int32_t          tok[200] = {0}, cu[2] = {0, 129};
    rr__batch        b = {.n_seq = 1, .n_tok = 129, .max_len = 129, .tok = tok, .cu = cu};
    rr__backend_opts opts = {.precision = RR__INT8};
    void            *weights;

    truth_open(&t, "tests/data/tiny-xlmr", "tests/data/tiny-xlmr/truth.safetensors");
    cr_assert_eq(rr__backend_ref.load(t.model, &opts, &weights, &err), RR_E_UNSUPPORTED);
    backend_open(&o, &rr__backend_ref, t.model, RR__FP32, NULL, 1);
    cr_assert_eq(rr__backend_ref.score(o.instance, &b, &logit, &err), RR_E_ARG); /* 128 positions */
    cu[1] = b.n_tok = b.max_len = 5;
    tok[3] = t.model->vocab_size;
    cr_assert_eq(rr__backend_ref.score(o.instance, &b, &logit, &err), RR_E_ARG);
    cr_assert_eq(logit, 7);
    backend_close(&o);
    truth_close(&t);
}
