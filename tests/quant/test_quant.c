/* Calibration: thresholds against what can be computed by hand, the collector against the model's
 * own activations, the file against itself and against hostile hands. */
#include "quant/quant.h"

#include "backend/backend.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const mini = "models/mini";

static double uniform(uint64_t *s) {
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return ((double)(*s >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(uint64_t *s) {
    return sqrt(-2 * log(uniform(s))) * cos(6.283185307179586 * uniform(s));
}

/* Mean square error of rounding x[n] to 127 steps of amax, by the definition. */
static double int8_error(const float *x, size_t n, float amax) {
    double sum = 0;

    for (size_t i = 0; i < n; i++) {
        double q = fmax(-127, fmin(127, nearbyint(x[i] / amax * 127))) * amax / 127;

        sum += (x[i] - q) * (x[i] - q);
    }
    return sum / (double)n;
}

Test(threshold, max_and_percentile_of_a_ramp) {
    static rr__hist h;
    float           x[1000];

    for (int i = 0; i < 1000; i++)
        x[i] = (float)(i + 1) * (i % 2 ? 1.0f : -1.0f);
    rr__hist_add(&h, x, 1000);
    cr_assert_eq(h.count, 1000);
    cr_assert_float_eq(rr__hist_threshold(&h, RR__QUANT_INT8, RR__QUANT_MAX, 0), 1000, 0);
    cr_assert_float_eq(rr__hist_threshold(&h, RR__QUANT_INT8, RR__QUANT_PERCENTILE, 90), 900, 1);
}

Test(threshold, a_range_that_grows_loses_no_counts) {
    static rr__hist h;
    uint64_t        sum = 0;

    for (int i = -20; i < 20; i++) {
        float x[3] = {(float)ldexp(1, i), (float)-ldexp(0.7, i), 0};

        rr__hist_add(&h, x, 3);
    }
    for (int i = 0; i < RR__QUANT_BINS; i++)
        sum += h.bin[i];
    cr_assert_eq(sum, 120);
    cr_assert_eq(h.count, 120);
    cr_assert_float_eq(h.max, ldexp(1, 19), 0);
}

Test(threshold, mse_is_the_least_error_and_clips_an_outlier) {
    enum { N = 200000 };
    static rr__hist h;
    static float    x[N];
    uint64_t        s = 7;
    double          best = INFINITY;
    float           amax;

    for (int i = 0; i < N; i++)
        x[i] = (float)normal(&s);
    x[17] = 12; /* one outlier triples the range */
    rr__hist_add(&h, x, N);
    amax = rr__hist_threshold(&h, RR__QUANT_INT8, RR__QUANT_MSE, 0);
    for (float a = 0.5f; a <= 12; a += 0.1f)
        best = fmin(best, int8_error(x, N, a));
    cr_assert_lt(int8_error(x, N, amax), 1.05 * best, "threshold %g", (double)amax);
    cr_assert_lt(int8_error(x, N, amax), int8_error(x, N, 12) / 1.2);
    cr_assert_float_eq(rr__hist_error(&h, RR__QUANT_INT8, amax), int8_error(x, N, amax),
                       0.1 * best);
}

Test(threshold, entropy_ignores_a_thin_tail) {
    enum { N = 50000 };
    static rr__hist h;
    static float    x[N];
    uint64_t        s = 3;
    float           amax;

    for (int i = 0; i < N; i++)
        x[i] = (float)normal(&s);
    x[0] = 40;
    rr__hist_add(&h, x, N);
    amax = rr__hist_threshold(&h, RR__QUANT_INT8, RR__QUANT_ENTROPY, 0);
    cr_assert(amax > 2 && amax < 8, "threshold %g of a normal distribution", (double)amax);
}

Test(threshold, fp8_keeps_small_values_that_int8_loses) {
    static rr__hist h;
    float           x[1000];

    for (int i = 0; i < 1000; i++)
        x[i] = i == 0 ? 100 : 0.1f + 0.0001f * (float)i;
    rr__hist_add(&h, x, 1000);
    cr_assert_lt(rr__hist_error(&h, RR__QUANT_FP8, 100),
                 rr__hist_error(&h, RR__QUANT_INT8, 100) / 4);
}

/* ---- collector ------------------------------------------------------------- */

typedef struct seen {
    rr__collector *c;
    float          emb_max;
    rr_error       err;
} seen;

static void show(void *user, const rr__activation *a) {
    seen *s = user;

    cr_assert_eq(rr__collector_add(s->c, a->name, a->rows, a->cols, a->data, &s->err), RR_OK, "%s",
                 s->err.text);
    for (int32_t i = 0; strcmp(a->name, "emb") == 0 && i < a->rows * a->cols; i++)
        s->emb_max = fmaxf(s->emb_max, fabsf(a->data[i]));
}

static rr__calibration *calibrate_mini(rr__model *m, double smooth) {
    const rr__backend *b;
    rr__backend_opts   o = {.max_batch_tokens = 64, .max_batch_seqs = 2, .precision = RR__FP32};
    int32_t   ids[] = {0, 35, 70, 8, 2, 2, 900, 61, 2, 0, 4000, 2, 2, 17, 2}, cu[] = {0, 9, 15};
    rr__batch batch = {2, 15, 9, ids, cu, NULL};
    void     *weights, *instance;
    float     logits[2];
    seen      s = {NULL, 0, {0}};
    rr__quant_opts   q = {RR__QUANT_INT8, RR__QUANT_MAX, 0};
    rr__calibration *cal;

    cr_assert_eq(rr__backend_find("ref", &b, &s.err), RR_OK);
    cr_assert_eq(b->load(m, &o, &weights, &s.err), RR_OK);
    cr_assert_eq(b->open(weights, &instance, &s.err), RR_OK);
    cr_assert_eq(rr__collector_open(m, &s.c, &s.err), RR_OK);
    cr_assert_eq(b->observe(instance, &batch, logits, show, &s, &s.err), RR_OK);
    if (smooth > 0) {
        cr_assert_eq(rr__collector_smooth(s.c, m, smooth, &s.err), RR_OK);
        cr_assert_eq(b->observe(instance, &batch, logits, show, &s, &s.err), RR_OK);
    }
    cr_assert_eq(rr__calibrate(s.c, &q, &cal, &s.err), RR_OK, "%s", s.err.text);
    cr_assert_eq(cal->n, (size_t)m->n_layer * 4);
    if (smooth == 0)
        cr_assert_float_eq(cal->product[0].amax, s.emb_max, 0);
    rr__collector_close(s.c);
    b->close(instance);
    b->unload(weights);
    return cal;
}

Test(collector, products_of_the_embedded_model) {
    rr_error         err;
    rr__model       *m;
    rr__calibration *cal, *back;
    char             path[] = "/tmp/rr_cal_XXXXXX";
    int              fd = mkstemp(path);

    cr_assert(fd >= 0);
    close(fd);
    cr_assert_eq(rr__model_open(mini, &m, &err), RR_OK, "%s", err.text);
    for (int smooth = 0; smooth < 2; smooth++) {
        cal = calibrate_mini(m, smooth ? 0.5 : 0);
        cal->product[5].keep_float = 1;
        cr_assert_eq(rr__calibration_write(cal, path, &err), RR_OK, "%s", err.text);
        cr_assert_eq(rr__calibration_read(path, &back, &err), RR_OK, "%s", err.text);
        cr_assert_eq(rr__calibration_fits(back, m, &err), RR_OK, "%s", err.text);
        for (size_t i = 0; i < cal->n; i++) {
            const rr__calibrated *a = &cal->product[i], *b = &back->product[i];

            cr_assert_str_eq(a->name, b->name);
            cr_assert(a->amax == b->amax && a->max == b->max && a->cols == b->cols);
            cr_assert_eq(a->keep_float, b->keep_float);
            cr_assert_eq(!a->smooth, !b->smooth);
            for (int32_t k = 0; a->smooth && k < a->cols; k++)
                cr_assert(a->smooth[k] == b->smooth[k]);
        }
        rr__calibration_free(cal);
        rr__calibration_free(back);
    }
    rr__model_close(m);
    remove(path);
}

Test(collector, refuses_what_is_not_finite_or_not_its_shape) {
    rr_error       err;
    rr__model     *m;
    rr__collector *c;
    static float   x[384];

    cr_assert_eq(rr__model_open(mini, &m, &err), RR_OK);
    cr_assert_eq(rr__collector_open(m, &c, &err), RR_OK);
    cr_assert_eq(rr__collector_add(c, "3.ln1", 1, 383, x, &err), RR_E_ARG);
    x[200] = NAN;
    cr_assert_eq(rr__collector_add(c, "3.ln1", 1, 384, x, &err), RR_E_FORMAT);
    cr_assert(strstr(err.text, "3.ln1 row 0 column 200 is not finite"), "%s", err.text);
    x[200] = INFINITY;
    cr_assert_eq(rr__collector_add(c, "3.ln1", 1, 384, x, &err), RR_E_FORMAT);
    cr_assert_eq(rr__collector_add(c, "99.ln1", 1, 384, x, &err), RR_OK); /* feeds nothing */
    cr_assert_eq(rr__collector_add(c, "3.attn_out", 1, 384, x, &err), RR_OK);
    rr__collector_close(c);
    rr__model_close(m);
}

/* ---- file ------------------------------------------------------------------- */

static const char *const good =
    "{\"rerank_calibration\": 1, \"format\": \"int8\", \"method\": \"mse\", \"products\": "
    "[{\"name\": \"0.qkv\", \"amax\": 2.5, \"max\": 3, \"columns\": 2, \"smooth\": [1, 2]}]}";

Test(file, hostile_files_say_what_is_wrong) {
    static const struct {
        const char *from, *to, *says;
    } spoil[] = {
        {": 1,", ": 2,", "out of range"},
        {"\"int8\"", "\"int9\"", "unknown format"},
        {"\"mse\"", "\"guess\"", "unknown method"},
        {"2.5", "0", "out of range"},
        {"2.5", "1e99", "out of range"},
        {"2.5", "-1", "out of range"},
        {"2.5", "nan", "byte"},
        {"\"method\"", "\"per_token\": 1, \"method\"", "true or false"},
        {"[1, 2]", "[1, 2, 3]", "do not match columns"},
        {"[1, 2]", "[1, 0]", "out of range"},
        {"0.qkv", "0.qkvvvvvvvvvvvvvvvvvvvvvvvvvvvvv", "too long"},
        {"\"name\": \"0.qkv\",", "", "needs name, amax and columns"},
        {"\"rerank_calibration\": 1,", "", "not a calibration file"},
    };
    rr__calibration *c;
    rr_error         err;
    char             text[1024];

    cr_assert_eq(rr__calibration_parse(good, strlen(good), "good", &c, &err), RR_OK, "%s",
                 err.text);
    cr_assert_float_eq(rr__calibration_find(c, "0.qkv")->smooth[1], 2, 0);
    cr_assert_null(rr__calibration_find(c, "1.qkv"));
    rr__calibration_free(c);
    for (size_t i = 0; i < sizeof spoil / sizeof spoil[0]; i++) {
        const char *at = strstr(good, spoil[i].from);

        cr_assert(at, "%s", spoil[i].from);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, spoil[i].to,
                 at + strlen(spoil[i].from));
        cr_assert_eq(rr__calibration_parse(text, strlen(text), "bad", &c, &err), RR_E_FORMAT, "%s",
                     text);
        cr_assert(strstr(err.text, spoil[i].says), "expected \"%s\" in: %s", spoil[i].says,
                  err.text);
    }
    for (size_t cut = 0; cut < strlen(good); cut++)
        cr_assert_neq(rr__calibration_parse(good, cut, "cut", &c, &err), RR_OK);
}
