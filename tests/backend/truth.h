/* truth.h - a model folder, what Hugging Face made of it (tools/oracle.py), and a backend opened
 * on it: what the backend tests share. */
#ifndef TESTS_BACKEND_TRUTH_H
#define TESTS_BACKEND_TRUTH_H

#include "backend/backend.h"
#include "base/file.h"
#include "model/safetensors.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct truth {
    rr__model     *model;
    rr__file       file;
    rr__arena      arena;
    rr__st         st;
    int32_t        n_seq, n_observed;
    const int32_t *ids, *cu, *seg;
    const float   *logits; /* [n_seq] */
} truth;

/* A tensor of the truth file, copied so that it is aligned. */
static const void *truth_data(truth *t, const char *name, int64_t *n) {
    const rr__st_tensor *x = rr__st_find(&t->st, name);
    void                *copy;

    cr_assert_not_null(x, "no %s in the truth file", name);
    copy = rr__arena_alloc(&t->arena, x->bytes);
    memcpy(copy, x->data, x->bytes);
    *n = x->rank ? x->shape[0] : 1;
    return copy;
}

static void truth_open(truth *t, const char *dir, const char *path) {
    rr_error err = {0};
    int64_t  n;

    memset(t, 0, sizeof *t);
    cr_assert_eq(rr__model_open(dir, &t->model, &err), RR_OK, "%s", err.text);
    cr_assert_eq(rr__file_map(path, &t->file, &err), RR_OK, "%s", err.text);
    cr_assert_eq(rr__st_parse(path, t->file.ptr, t->file.size, &t->arena, &t->st, &err), RR_OK,
                 "%s", err.text);
    t->ids = truth_data(t, "ids", &n);
    t->cu = truth_data(t, "cu", &n);
    t->seg = truth_data(t, "seg", &n);
    t->n_seq = (int32_t)n;
    t->logits = truth_data(t, "logits", &n);
    t->n_observed = *(const int32_t *)truth_data(t, "observed", &n);
}

static void truth_close(truth *t) {
    rr__model_close(t->model);
    rr__file_unmap(&t->file);
    rr__arena_free(&t->arena);
}

/* Sequences [first, first + n) as a batch of their own; free cu. */
static inline rr__batch truth_batch(const truth *t, int32_t first, int32_t n) {
    int32_t  *cu = malloc(((size_t)n + 1) * sizeof *cu);
    rr__batch b = {.n_seq = n, .tok = t->ids + t->cu[first], .cu = cu, .seg = t->seg + first};

    for (int32_t i = 0; i <= n; i++) {
        cu[i] = t->cu[first + i] - t->cu[first];
        if (i && cu[i] - cu[i - 1] > b.max_len)
            b.max_len = cu[i] - cu[i - 1];
    }
    b.n_tok = cu[n];
    return b;
}

typedef struct opened {
    const rr__backend *backend;
    void              *weights, *instance;
} opened;

/* calibration: a path, "none", or NULL for the model folder's own, as in rr_engine_opts. */
static void backend_open(opened *o, const rr__backend *backend, const rr__model *m,
                         rr__precision precision, const char *calibration, int threads) {
    rr__calibration *cal;
    rr__backend_opts opts = {.precision = precision,
                             .threads = threads,
                             .max_batch_tokens = 16384,
                             .max_batch_seqs = 1024};
    rr_error         err = {0};

    o->backend = backend;
    cr_assert_eq(rr__backend_calibration(backend, precision, m, calibration, &cal, &err), RR_OK,
                 "%s", err.text);
    opts.calibration = cal;
    cr_assert_eq(backend->load(m, &opts, &o->weights, &err), RR_OK, "%s", err.text);
    rr__calibration_free(cal);
    cr_assert_eq(backend->open(o->weights, &o->instance, &err), RR_OK, "%s", err.text);
}

static void backend_close(opened *o) {
    o->backend->close(o->instance);
    o->backend->unload(o->weights);
}

static void backend_score(opened *o, const rr__batch *b, float *logits) {
    rr_error err = {0};

    cr_assert_eq(o->backend->score(o->instance, b, logits, &err), RR_OK, "%s", err.text);
}

#endif
