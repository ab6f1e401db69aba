/* test_cuda_8bit.c - the CUDA backend by a calibration file: what the shipped one promises, the
 * same meaning as on the cpu, files it cannot take refused. Needs a card. */
#include "card.h"

#include "quant/quant.h"

static const char *const mini = "models/mini", *const tiny = "tests/data/tiny-xlmr";
static const char *const mini_truth = "tests/data/mini-truth.safetensors";
static const char *const tiny_truth = "tests/data/tiny-xlmr/truth.safetensors";

typedef struct seen {
    rr__collector *c;
    rr_error       err;
} seen;

static void show(void *user, const rr__activation *a) {
    seen *s = user;

    cr_assert_eq(rr__collector_add(s->c, a->name, a->rows, a->cols, a->data, &s->err), RR_OK, "%s",
                 s->err.text);
}

/* Thresholds of the batch's own activations, as `rerank calibrate --method max` finds them. */
static rr__calibration *calibrate(const rr__model *m, const rr__batch *b, rr__quant_format format,
                                  double smooth) {
    const rr__backend *backend = rr__backend_at(1); /* the cpu, or ref where there is no cpu */
    rr__quant_opts     q = {format, RR__QUANT_MAX, 0};
    rr__calibration   *cal;
    float             *logits = calloc((size_t)b->n_seq, sizeof *logits);
    opened             o;
    seen               s = {NULL, {0}};

    cr_assert_not_null(backend);
    backend_open(&o, backend, m, RR__FP32, NULL, 2);
    cr_assert_eq(rr__collector_open(m, &s.c, &s.err), RR_OK);
    for (int pass = 0; pass < (smooth > 0 ? 2 : 1); pass++) {
        if (pass)
            cr_assert_eq(rr__collector_smooth(s.c, m, smooth, &s.err), RR_OK);
        cr_assert_eq(o.backend->observe(o.instance, b, logits, show, &s, &s.err), RR_OK);
    }
    cr_assert_eq(rr__calibrate(s.c, &q, &cal, &s.err), RR_OK, "%s", s.err.text);
    rr__collector_close(s.c);
    backend_close(&o);
    free(logits);
    return cal;
}

/* Score b by a calibration; RR_OK, or why not. */
static rr_status score_by(const rr__backend *backend, const rr__model *m, rr__precision p,
                          const rr__calibration *cal, const rr__batch *b, float *logits,
                          rr_error *err) {
    rr__backend_opts opts = {.precision = p,
                             .threads = 2,
                             .max_batch_tokens = 16384,
                             .max_batch_seqs = 64,
                             .calibration = cal};
    opened           o = {.backend = backend};
    rr_status        s = backend->load(m, &opts, &o.weights, err);

    if (s != RR_OK)
        return s;
    s = backend->open(o.weights, &o.instance, err);
    cr_assert_eq(s, RR_OK, "%s", err->text);
    backend_score(&o, b, logits);
    backend_close(&o);
    return s;
}

typedef struct errors {
    double worst, rms;
} errors;

static errors errors_of(const float *got, const float *want, int32_t n) {
    errors e = {0, 0};

    for (int32_t i = 0; i < n; i++) {
        const double x = fabs((double)got[i] - want[i]);

        e.worst = !(x <= e.worst) ? x : e.worst;
        e.rms += x * x / n;
    }
    e.rms = sqrt(e.rms);
    return e;
}

/* The mark of this model's int8: 0.1 of a logit, which spread by 4. */
Test(cuda_8bit, by_the_shipped_calibration_int8_is_within_a_tenth) {
    NEED_CARD(b);
    truth     t;
    opened    o;
    rr__batch batch;
    float     own[64], none[64];
    errors    e, plain;

    truth_open(&t, mini, mini_truth);
    batch = truth_batch(&t, 0, t.n_seq);
    cr_assert_leq(t.n_seq, 64);
    backend_open(&o, b, t.model, RR__INT8, NULL, 1);
    backend_score(&o, &batch, own);
    backend_close(&o);
    backend_open(&o, b, t.model, RR__INT8, "none", 1);
    backend_score(&o, &batch, none);
    backend_close(&o);
    e = errors_of(own, t.logits, t.n_seq);
    plain = errors_of(none, t.logits, t.n_seq);
    fprintf(stderr, "int8, shipped calibration: largest %.3f, rms %.3f; none: %.3f, %.3f\n",
            e.worst, e.rms, plain.worst, plain.rms);
    cr_expect_leq(e.worst, 0.1);
    cr_expect_lt(e.rms, plain.rms);
    free((void *)batch.cu);
    truth_close(&t);
}

/* Static scales mean the same on both: with all else in fp32 (tf32 on the card) only values that
 * lie between two roundings differ. Smoothed or not, with some products kept. */
Test(cuda_8bit, static_files_mean_what_they_mean_on_the_cpu) {
    NEED_CARD(b);
    static const double smooth[] = {0, 0.5};
    const rr__backend  *cpu = rr__backend_at(1);
    truth               t;
    rr__batch           batch;
    float               want[20], got[20];
    rr_error            err = {0};

    if (!cpu || strcmp(cpu->name, "cpu") != 0)
        cr_skip_test("no cpu backend");
    truth_open(&t, tiny, tiny_truth);
    batch = truth_batch(&t, 0, 20);
    for (int i = 0; i < 2; i++)
        for (size_t kept = 0; kept <= 12; kept += 4) {
            rr__calibration *cal = calibrate(t.model, &batch, RR__QUANT_INT8, smooth[i]);
            errors           e;

            cal->exact = 1;
            for (size_t k = 0; k < kept && k < cal->n; k++)
                cal->product[k * 5 % cal->n].keep_float = 1;
            cr_assert_eq(score_by(cpu, t.model, RR__INT8, cal, &batch, want, &err), RR_OK, "%s",
                         err.text);
            cr_assert_eq(score_by(b, t.model, RR__INT8, cal, &batch, got, &err), RR_OK, "%s",
                         err.text);
            e = errors_of(got, want, 20);
            fprintf(stderr, "static, smoothed %.1f, %zu kept: %.3g from the cpu's\n", smooth[i],
                    kept, e.worst);
            /* fp16 or tf32 around a product shifts some values across a rounding of the next; bf16
             * alone moves these logits by 0.1 */
            cr_expect_leq(e.worst, 0.25);
            rr__calibration_free(cal);
        }
    free((void *)batch.cu);
    truth_close(&t);
}

/* Values beyond the threshold saturate: with thresholds far too low the scores are wrong, and
 * finite. */
Test(cuda_8bit, what_lies_beyond_a_static_threshold_saturates) {
    NEED_CARD(b);
    truth     t;
    rr__batch batch;
    float     good[8], cut[8];
    rr_error  err = {0};

    truth_open(&t, tiny, tiny_truth);
    batch = truth_batch(&t, 0, 8);
    for (int p = RR__INT8; p <= RR__FP8; p++) {
        rr__calibration *cal =
            calibrate(t.model, &batch, p == RR__INT8 ? RR__QUANT_INT8 : RR__QUANT_FP8, 0);
        rr_status s = score_by(b, t.model, (rr__precision)p, cal, &batch, good, &err);

        if (p == RR__FP8 && s == RR_E_UNSUPPORTED && strstr(err.text, "no fp8")) {
            rr__calibration_free(cal);
            continue; /* an Ampere card */
        }
        cr_assert_eq(s, RR_OK, "%s", err.text);
        cr_expect_leq(errors_of(good, t.logits, 8).worst, 1.5);
        for (size_t i = 0; i < cal->n; i++)
            cal->product[i].amax /= 100;
        cr_assert_eq(score_by(b, t.model, (rr__precision)p, cal, &batch, cut, &err), RR_OK);
        cr_expect(isfinite(errors_of(cut, good, 8).worst));
        cr_expect_gt(errors_of(cut, good, 8).worst, 1e-3);
        rr__calibration_free(cal);
    }
    free((void *)batch.cu);
    truth_close(&t);
}

/* A static fp8 file costs no accuracy to speak of: e4m3 has its own exponents. */
Test(cuda_8bit, static_fp8_errs_like_fp8_with_a_scale_a_row) {
    NEED_CARD(b);
    truth            t;
    rr__batch        batch;
    rr__calibration *cal;
    float            dynamic[64], fixed[64], kept[64];
    errors           a, e, k;
    rr_error         err = {0};
    rr_status        s;

    truth_open(&t, mini, mini_truth);
    batch = truth_batch(&t, 0, t.n_seq);
    cal = calibrate(t.model, &batch, RR__QUANT_FP8, 0);
    s = score_by(b, t.model, RR__FP8, NULL, &batch, dynamic, &err);
    if (s == RR_E_UNSUPPORTED)
        cr_skip_test("no fp8 on this card");
    cr_assert_eq(s, RR_OK, "%s", err.text);
    cr_assert_eq(score_by(b, t.model, RR__FP8, cal, &batch, fixed, &err), RR_OK, "%s", err.text);
    for (size_t i = 0; i < cal->n; i++)
        cal->product[i].keep_float = i % 4 > 1; /* both of the feed-forward */
    cr_assert_eq(score_by(b, t.model, RR__FP8, cal, &batch, kept, &err), RR_OK, "%s", err.text);
    a = errors_of(dynamic, t.logits, t.n_seq);
    e = errors_of(fixed, t.logits, t.n_seq);
    k = errors_of(kept, t.logits, t.n_seq);
    fprintf(stderr, "fp8, rms: a scale a row %.3f, static %.3f, feed-forward kept %.3f\n", a.rms,
            e.rms, k.rms);
    cr_expect_leq(e.rms, 2 * a.rms);
    cr_expect_lt(k.rms, e.rms);
    rr__calibration_free(cal);
    free((void *)batch.cu);
    truth_close(&t);
}

Test(cuda_8bit, files_it_cannot_take_are_refused) {
    NEED_CARD(b);
    truth            t;
    rr__batch        batch;
    rr__calibration *cal, *none = NULL;
    float            logits[8];
    rr_error         err = {0};
    rr_status        s;

    truth_open(&t, tiny, tiny_truth);
    batch = truth_batch(&t, 0, 8);
    cal = calibrate(t.model, &batch, RR__QUANT_FP8, 0.5);
    s = score_by(b, t.model, RR__FP8, cal, &batch, logits, &err);
    cr_expect_eq(s, RR_E_UNSUPPORTED);
    cr_expect(strstr(err.text, "smooth") || strstr(err.text, "no fp8"), "%s", err.text);
    rr__calibration_free(cal);
    cr_expect_eq(rr__backend_calibration(b, RR__FP16, t.model, "x.json", &none, &err), RR_E_ARG);
    cr_expect(strstr(err.text, "int8"), "%s", err.text);
    cr_expect_null(none);
    free((void *)batch.cu);
    truth_close(&t);
}
