/* test_backends.c - one test for every backend of this build, at every precision it offers:
 * against Hugging Face and against ref, over the shapes that break kernels, and the promise that a
 * logit has the same bits alone, in company, and for any number of threads. What does not run on
 * this machine is skipped with its reason. `make test-hf` adds a model of 24 x 1024. */
#include "truth.h"

#include <stdio.h>

extern const rr__backend rr__backend_ref;

/* Largest absolute error of a logit; logits of these models spread over some 4 units. On a GPU fp32
 * means tf32, whose operands have the 10 bits of fraction of fp16, and e4m3 has 3. */
static const double exact[RR__N_PRECISION] = {
    [RR__FP32] = 1e-4, [RR__BF16] = 3e-2, [RR__FP16] = 1e-2, [RR__INT8] = 1e-1, [RR__FP8] = 2e-1};
static const double on_gpu[RR__N_PRECISION] = {
    [RR__FP32] = 2e-2, [RR__BF16] = 3e-1, [RR__FP16] = 3e-2, [RR__INT8] = 8e-1, [RR__FP8] = 1.5};

/* The tiny models sum over 64 random channels: rounding averages out far less than in a real one. */
static double tolerance(const opened *o, rr__precision precision, const rr__model *m) {
    if (strcmp(o->backend->name, "cuda") == 0)
        return precision == RR__INT8 && m->d_model >= 128 ? exact[RR__INT8] : on_gpu[precision];
    return exact[precision] * (precision > RR__FP32 && m->d_model < 128 ? 10 : 1);
}

/* Call fn for each backend and precision that runs here; returns how many that were. */
typedef void (*check_fn)(const rr__backend *backend, rr__precision precision, void *arg);

static int for_each_backend(check_fn fn, void *arg) {
    const rr__backend *b;
    int                n = 0;

    for (int i = 0; (b = rr__backend_at(i)); i++) {
        rr_error err = {0};

        if (strcmp(b->name, "trt") == 0)
            continue; /* needs an engine file; tests/trt builds one */
        if (b->probe(&err) != RR_OK) {
            fprintf(stderr, "skip: %s: %s\n", b->name, err.text);
            continue;
        }
        for (int p = RR__FP32; p < RR__N_PRECISION; p++)
            if (b->precisions >> p & 1) {
                fn(b, (rr__precision)p, arg);
                n++;
            }
    }
    return n;
}

static double worst_error(const float *got, const float *want, int32_t n) {
    double worst = 0;

    for (int32_t i = 0; i < n; i++) {
        double e = fabs((double)got[i] - want[i]);

        if (!(e <= worst)) /* a NaN is the worst of all */
            worst = isnan(e) ? INFINITY : e;
    }
    return worst;
}

/* ---- agreement with Hugging Face ------------------------------------------ */

typedef struct against_truth {
    truth      *t;
    const char *what;
    int32_t     n, n_ref; /* the last sequences of the truth file, for ref fewer */
    int         threads;
} against_truth;

static void check_truth(const rr__backend *backend, rr__precision precision, void *arg) {
    against_truth *a = arg;
    int32_t        n = backend == &rr__backend_ref ? a->n_ref : a->n;
    int32_t        first = a->t->n_seq > n ? a->t->n_seq - n : 0;
    opened         o;
    rr__batch      b = truth_batch(a->t, first, a->t->n_seq - first);
    float         *logits = calloc((size_t)b.n_seq, sizeof *logits);
    double         worst;

    backend_open(&o, backend, a->t->model, precision, NULL, a->threads);
    backend_score(&o, &b, logits);
    worst = worst_error(logits, a->t->logits + first, b.n_seq);
    fprintf(stderr, "%s: %s %s: %d sequences, largest logit error %.2g\n", a->what, backend->name,
            rr__precision_name(precision), (int)b.n_seq, worst);
    cr_expect_leq(worst, tolerance(&o, precision, a->t->model), "%s: %s %s: logit error %g",
                  a->what, backend->name, rr__precision_name(precision), worst);
    backend_close(&o);
    free(logits);
    free((void *)b.cu);
}

static void all_agree(const char *dir, const char *path, int32_t n, int32_t n_ref) {
    truth         t;
    against_truth a = {.t = &t, .what = dir, .n = n, .n_ref = n_ref};

    truth_open(&t, dir, path);
    cr_assert_gt(for_each_backend(check_truth, &a), 0);
    truth_close(&t);
}

Test(backends, agree_with_hf_on_the_embedded_model) {
    all_agree("models/mini", "tests/data/mini-truth.safetensors", 64, 2);
}

Test(backends, agree_with_hf_on_tiny_models) {
    all_agree("tests/data/tiny-xlmr", "tests/data/tiny-xlmr/truth.safetensors", 64, 64);
    all_agree("tests/data/tiny-bert", "tests/data/tiny-bert/truth.safetensors", 64, 64);
}

Test(backends, agree_with_hf_on_8192_tokens) {
    all_agree("tests/data/tiny-long", "tests/data/tiny-long/truth.safetensors", 4, 4);
}

Test(backends, agree_with_hf_on_24x1024, .timeout = 1800) {
    const char *dir = getenv("RR_HF_DIR");
    char        path[4096];

    if (!dir) {
        fprintf(stderr, "skip: 24x1024 model: run make test-hf (needs torch and transformers)\n");
        cr_skip_test("make test-hf");
    }
    snprintf(path, sizeof path, "%s/truth.safetensors", dir);
    all_agree(dir, path, 1000, 2);
}

/* ---- shapes against ref ---------------------------------------------------- */

/* Sequences of the given lengths, ids drawn from the whole vocabulary with the pad token among
 * them, a first segment of every length. */
typedef struct shape {
    const char *what;
    int32_t     n_seq;
    int32_t (*length)(int32_t i, int32_t max_length);
} shape;

static int32_t one(int32_t i, int32_t max_length) {
    return 1;
}
static int32_t longest(int32_t i, int32_t max_length) {
    return max_length;
}
static int32_t ragged(int32_t i, int32_t max_length) {
    return 1 + i * 37 % max_length;
}
static int32_t rising(int32_t i, int32_t max_length) {
    return 1 + i % 17;
}

static const shape shapes[] = {
    {"one token", 1, one},          {"one sequence of max_length", 1, longest},
    {"512 of one token", 512, one}, {"512 of 1..17 tokens", 512, rising},
    {"40 ragged", 40, ragged},      {"3 of max_length", 3, longest},
};

static rr__batch make_batch(const shape *s, const rr__model *m) {
    int32_t  *cu = calloc((size_t)s->n_seq + 1, sizeof *cu);
    int32_t  *seg = calloc((size_t)s->n_seq, sizeof *seg), *tok;
    rr__batch b = {.n_seq = s->n_seq, .cu = cu, .seg = seg};
    unsigned  seed = 1;

    for (int32_t i = 0; i < s->n_seq; i++) {
        int32_t len = s->length(i, m->max_length);

        cu[i + 1] = cu[i] + len;
        seg[i] = i % (len + 1);
        if (len > b.max_len)
            b.max_len = len;
    }
    b.n_tok = cu[s->n_seq];
    tok = calloc((size_t)b.n_tok, sizeof *tok);
    for (int32_t t = 0; t < b.n_tok; t++) {
        seed = seed * 1103515245 + 12345;
        tok[t] = (int32_t)((seed >> 8) % (unsigned)m->vocab_size);
        if (seed >> 28 == 0)
            tok[t] = m->pad_id < 0 ? 0 : m->pad_id;
    }
    b.tok = tok;
    return b;
}

static void free_batch(rr__batch *b) {
    free((void *)b->tok);
    free((void *)b->cu);
    free((void *)b->seg);
}

typedef struct against_ref {
    const rr__model *m;
    const char      *dir;
    rr__batch        batch[sizeof shapes / sizeof *shapes];
    float           *want[sizeof shapes / sizeof *shapes];
} against_ref;

static void check_shapes(const rr__backend *backend, rr__precision precision, void *arg) {
    against_ref *a = arg;
    opened       o;

    backend_open(&o, backend, a->m, precision, NULL, 2);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const rr__batch *b = &a->batch[i];
        float           *logits = calloc((size_t)b->n_seq, sizeof *logits);
        double           worst;

        backend_score(&o, b, logits);
        worst = worst_error(logits, a->want[i], b->n_seq);
        cr_expect_leq(worst, tolerance(&o, precision, a->m), "%s: %s %s: %s: logit error %g",
                      a->dir, backend->name, rr__precision_name(precision), shapes[i].what, worst);
        free(logits);
    }
    backend_close(&o);
}

static void check_model_shapes(const char *dir) {
    rr__model  *m = NULL;
    rr_error    err = {0};
    against_ref a = {.dir = dir};
    opened      ref;

    cr_assert_eq(rr__model_open(dir, &m, &err), RR_OK, "%s", err.text);
    a.m = m;
    backend_open(&ref, &rr__backend_ref, m, RR__FP32, NULL, 1);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        a.batch[i] = make_batch(&shapes[i], m);
        a.want[i] = calloc((size_t)a.batch[i].n_seq, sizeof(float));
        backend_score(&ref, &a.batch[i], a.want[i]);
    }
    backend_close(&ref);
    for_each_backend(check_shapes, &a);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        free_batch(&a.batch[i]);
        free(a.want[i]);
    }
    rr__model_close(m);
}

Test(backends, agree_with_ref_on_every_shape) {
    check_model_shapes("tests/data/tiny-xlmr");
    check_model_shapes("tests/data/tiny-bert");
}

/* ---- the same bits alone and in company ------------------------------------ */

/* 20 sequences together on one thread; then alone, and in two other companies, on others. */
static void check_company(const rr__backend *backend, rr__precision precision, void *arg) {
    truth    *t = arg;
    int32_t   n = t->n_seq < 20 ? t->n_seq : 20;
    float     together[20], other[20];
    rr__batch b = truth_batch(t, 0, n);
    opened    o;

    backend_open(&o, backend, t->model, precision, NULL, 1);
    backend_score(&o, &b, together);
    backend_close(&o);
    free((void *)b.cu);
    for (int threads = 1; threads <= 3; threads++) {
        int32_t group = threads == 1 ? 1 : threads == 2 ? 3 : n;

        backend_open(&o, backend, t->model, precision, NULL, threads);
        for (int32_t i = 0; i < n; i += group) {
            b = truth_batch(t, i, i + group < n ? group : n - i);
            backend_score(&o, &b, other + i);
            free((void *)b.cu);
        }
        backend_close(&o);
        for (int32_t i = 0; i < n; i++)
            cr_expect_eq(memcmp(&together[i], &other[i], sizeof other[i]), 0,
                         "%s %s: sequence %d: %.9g in company of %d, %.9g of %d on %d threads",
                         backend->name, rr__precision_name(precision), (int)i, (double)together[i],
                         (int)n, (double)other[i], (int)group, threads);
    }
}

Test(backends, alone_equals_in_company_to_the_bit) {
    truth t;

    truth_open(&t, "tests/data/tiny-xlmr", "tests/data/tiny-xlmr/truth.safetensors");
    for_each_backend(check_company, &t);
    truth_close(&t);
}

static void check_company_but_ref(const rr__backend *backend, rr__precision precision, void *arg) {
    if (backend != &rr__backend_ref) /* too slow, and as true as on the tiny model */
        check_company(backend, precision, arg);
}

Test(backends, alone_equals_in_company_on_the_embedded_model) {
    truth t;

    truth_open(&t, "models/mini", "tests/data/mini-truth.safetensors");
    for_each_backend(check_company_but_ref, &t);
    truth_close(&t);
}
