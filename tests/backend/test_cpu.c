/* test_cpu.c - what only the cpu backend promises: every table of kernels that runs on this machine
 * agrees with Hugging Face, activation by activation, and keeps a logit's bits in any company. */
#define _GNU_SOURCE /* setenv */
#include "truth.h"

#include <stdio.h>

extern const rr__backend rr__backend_cpu;

static const char *const isas[] = {"avx2", "avx512", "avx512_bf16", "amx"};
enum { N_ISA = sizeof isas / sizeof *isas };

typedef struct watch {
    truth *t;
    int    compared;
} watch;

static void compare(void *user, const rr__activation *a) {
    watch       *w = user;
    const float *want;
    int64_t      rows;
    double       worst = 0;

    if (strcmp(a->name, "logits") == 0 || !rr__st_find(&w->t->st, a->name))
        return;
    want = truth_data(w->t, a->name, &rows);
    if (rows != a->rows) /* the last layer sees the first token of each sequence only */
        return;
    for (size_t i = 0; i < (size_t)a->rows * (size_t)a->cols; i++)
        worst = fmax(worst, fabs((double)a->data[i] - want[i]));
    cr_expect_leq(worst, 1e-4, "%s: largest error %g", a->name, worst);
    w->compared++;
}

/* fp32: every activation; returns 0 where this machine lacks the instructions. */
static int check_activations(const char *isa, const char *dir, const char *path) {
    truth     t;
    opened    o;
    rr__batch b;
    float     logits[64];
    watch     w = {.t = &t};
    rr_error  err = {0};

    setenv("RR_CPU_ISA", isa, 1);
    if (rr__backend_cpu.probe(&err) != RR_OK) {
        fprintf(stderr, "skip: %s: %s\n", isa, err.text);
        return 0;
    }
    truth_open(&t, dir, path);
    backend_open(&o, &rr__backend_cpu, t.model, RR__FP32, NULL, 2);
    b = truth_batch(&t, 0, t.n_observed);
    cr_assert_eq(rr__backend_cpu.observe(o.instance, &b, logits, compare, &w, &err), RR_OK, "%s",
                 err.text);
    cr_expect_geq(w.compared, 1 + 7 * (t.model->n_layer - 1) + 1, "%s: %d", isa, w.compared);
    free((void *)b.cu);
    backend_close(&o);
    truth_close(&t);
    return 1;
}

Test(cpu, every_activation_agrees_with_hf_on_every_isa) {
    int ran = 0;

    for (int i = 0; i < N_ISA; i++) {
        ran += check_activations(isas[i], "tests/data/tiny-xlmr",
                                 "tests/data/tiny-xlmr/truth.safetensors");
        check_activations(isas[i], "tests/data/tiny-bert",
                          "tests/data/tiny-bert/truth.safetensors");
    }
    cr_assert_gt(ran, 0);
}

/* Every isa and precision on the embedded model, int8 with and without the calibration that comes with
 * it: accuracy, and bits alone against in company. */
static void check_embedded(const char *isa, rr__precision precision, const char *calibration,
                           double tolerance) {
    truth     t;
    opened    o;
    rr__batch b;
    float     together[64], alone;
    double    worst = 0;

    setenv("RR_CPU_ISA", isa, 1);
    if (rr__backend_cpu.probe(NULL) != RR_OK)
        return;
    truth_open(&t, "models/mini", "tests/data/mini-truth.safetensors");
    backend_open(&o, &rr__backend_cpu, t.model, precision, calibration, 2);
    cr_assert_leq(t.n_seq, 64);
    b = truth_batch(&t, 0, t.n_seq);
    backend_score(&o, &b, together);
    free((void *)b.cu);
    for (int32_t i = 0; i < t.n_seq; i++)
        worst = fmax(worst, fabs((double)together[i] - t.logits[i]));
    for (int32_t i = 0; i < 8; i++) {
        b = truth_batch(&t, i, 1);
        backend_score(&o, &b, &alone);
        cr_expect_eq(memcmp(&alone, &together[i], sizeof alone), 0, "%s %s: sequence %d", isa,
                     rr__precision_name(precision), (int)i);
        free((void *)b.cu);
    }
    cr_expect_leq(worst, tolerance, "%s %s: logit error %g", isa, rr__precision_name(precision),
                  worst);
    backend_close(&o);
    truth_close(&t);
}

Test(cpu, every_isa_is_accurate_and_batch_invariant) {
    for (int i = 0; i < N_ISA; i++) {
        check_embedded(isas[i], RR__FP32, NULL, 1e-4);
        check_embedded(isas[i], RR__BF16, NULL, 3e-2);
        check_embedded(isas[i], RR__INT8, "none", 1e-1);
        check_embedded(isas[i], RR__INT8, NULL, 1e-1);
    }
}

Test(cpu, refuses_an_isa_it_does_not_know) {
    rr_error err = {0};

    setenv("RR_CPU_ISA", "avx1024", 1);
    cr_assert_eq(rr__backend_cpu.probe(&err), RR_E_UNSUPPORTED);
    cr_assert_not_null(strstr(err.text, "avx1024"));
}
