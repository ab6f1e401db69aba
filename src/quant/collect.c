/* collect.c - what flows into every matrix product, and the calibration chosen from it. */
#include "quant/quant.h"

#include "base/arena.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QKV, OUT, FFN1, FFN2, N_ROLE };
static const char *const role_name[N_ROLE] = {"qkv", "out", "ffn1", "ffn2"};

struct rr__collector {
    rr__arena          arena;
    int32_t            n_layer;
    size_t             n;
    double             alpha; /* of the smoothing in force; 0 = none */
    rr__product_stats *product;
    float             *row; /* [max(d, f)] scratch */
};

rr_status rr__collector_open(const rr__model *m, rr__collector **out, rr_error *err) {
    rr__collector *c = calloc(1, sizeof *c);

    if (!c)
        return rr__fail(err, RR_E_NOMEM, "collector");
    c->n_layer = m->n_layer;
    c->n = (size_t)m->n_layer * N_ROLE;
    c->product = rr__arena_calloc(&c->arena, c->n, sizeof *c->product);
    c->row = rr__arena_calloc(&c->arena, (size_t)(m->d_ff > m->d_model ? m->d_ff : m->d_model),
                              sizeof *c->row);
    for (size_t i = 0; c->product && i < c->n; i++) {
        rr__product_stats *p = &c->product[i];

        snprintf(p->name, sizeof p->name, "%zu.%s", i / N_ROLE, role_name[i % N_ROLE]);
        p->cols = i % N_ROLE == FFN2 ? m->d_ff : m->d_model;
        p->channel_amax = rr__arena_calloc(&c->arena, (size_t)p->cols, sizeof(float));
        if (!p->channel_amax)
            c->product = NULL;
    }
    if (!c->product || !c->row) {
        rr__collector_close(c);
        return rr__fail(err, RR_E_NOMEM, "histograms of %d layers", (int)m->n_layer);
    }
    *out = c;
    return RR_OK;
}

void rr__collector_close(rr__collector *c) {
    if (!c)
        return;
    rr__arena_free(&c->arena);
    free(c);
}

size_t rr__collector_n(const rr__collector *c) {
    return c->n;
}

const rr__product_stats *rr__collector_at(const rr__collector *c, size_t i) {
    return i < c->n ? &c->product[i] : NULL;
}

/* The product an activation feeds: "emb" and "L.ln2" the next qkv, "L.ctx" out, and so on. */
static rr__product_stats *fed_by(rr__collector *c, const char *name) {
    char *role;
    long  layer;

    if (strcmp(name, "emb") == 0)
        return &c->product[QKV];
    if (*name < '0' || *name > '9')
        return NULL;
    layer = strtol(name, &role, 10);
    if (layer < 0 || layer >= c->n_layer || *role++ != '.')
        return NULL;
    if (strcmp(role, "ctx") == 0)
        return &c->product[layer * N_ROLE + OUT];
    if (strcmp(role, "ln1") == 0)
        return &c->product[layer * N_ROLE + FFN1];
    if (strcmp(role, "ffn_mid") == 0)
        return &c->product[layer * N_ROLE + FFN2];
    if (strcmp(role, "ln2") == 0 && layer + 1 < c->n_layer)
        return &c->product[(layer + 1) * N_ROLE + QKV];
    return NULL;
}

rr_status rr__collector_add(rr__collector *c, const char *name, int32_t rows, int32_t cols,
                            const float *data, rr_error *err) {
    rr__product_stats *p = fed_by(c, name);

    if (!p)
        return RR_OK;
    if (cols != p->cols)
        return rr__fail(err, RR_E_ARG, "%s has %d columns, product %s takes %d", name, (int)cols,
                        p->name, (int)p->cols);
    for (int32_t r = 0; r < rows; r++) {
        const float *x = data + (size_t)r * (size_t)cols;

        for (int32_t i = 0; i < cols; i++) {
            float v = fabsf(x[i]);

            if (!(v <= FLT_MAX)) /* also NaN */
                return rr__fail(err, RR_E_FORMAT, "%s row %d column %d is not finite", name, (int)r,
                                (int)i);
            if (v > p->channel_amax[i])
                p->channel_amax[i] = v;
        }
        for (int32_t i = 0; p->inv_smooth && i < cols; i++)
            c->row[i] = x[i] * p->inv_smooth[i];
        rr__hist_add(&p->hist, p->inv_smooth ? c->row : x, (size_t)cols);
    }
    return RR_OK;
}

/* [cols] largest magnitude of each input channel over the rows of n_w stacked weights. */
static void weight_ranges(const rr__tensor *const *w, int n_w, size_t cols, float *row,
                          float *amax) {
    memset(amax, 0, cols * sizeof *amax);
    for (int k = 0; k < n_w; k++)
        for (size_t r = 0; r < (size_t)w[k]->shape[0]; r++) {
            rr__tensor_f32(w[k], r * cols, cols, row);
            for (size_t i = 0; i < cols; i++)
                amax[i] = fmaxf(amax[i], fabsf(row[i]));
        }
}

rr_status rr__collector_smooth(rr__collector *c, const rr__model *m, double alpha, rr_error *err) {
    if (!(alpha > 0 && alpha < 1))
        return rr__fail(err, RR_E_ARG, "smoothing exponent %g is not between 0 and 1", alpha);
    for (size_t i = 0; i < c->n; i++) {
        rr__product_stats *p = &c->product[i];
        const rr__layer   *l = &m->layer[i / N_ROLE];
        const rr__tensor  *w[N_ROLE][3] = {[QKV] = {&l->wq, &l->wk, &l->wv},
                                           [OUT] = {&l->wo},
                                           [FFN1] = {&l->w1},
                                           [FFN2] = {&l->w2}};
        size_t             cols = (size_t)p->cols;

        p->smooth = rr__arena_alloc(&c->arena, cols * sizeof *p->smooth);
        p->inv_smooth = rr__arena_alloc(&c->arena, cols * sizeof *p->inv_smooth);
        if (!p->smooth || !p->inv_smooth)
            return rr__fail(err, RR_E_NOMEM, "smoothing of %s", p->name);
        weight_ranges(w[i % N_ROLE], i % N_ROLE == QKV ? 3 : 1, cols, c->row, p->smooth);
        for (size_t k = 0; k < cols; k++) {
            double x = fmax(p->channel_amax[k], 1e-5), wmax = fmax(p->smooth[k], 1e-5);
            double s = pow(x, alpha) / pow(wmax, 1 - alpha);

            p->smooth[k] = (float)fmin(fmax(s, 1e-3), 1e3);
            p->inv_smooth[k] = 1 / p->smooth[k];
        }
        memset(&p->hist, 0, sizeof p->hist);
    }
    c->alpha = alpha;
    return RR_OK;
}

rr_status rr__calibrate(const rr__collector *c, const rr__quant_opts *o, rr__calibration **out,
                        rr_error *err) {
    double           percentile = o->percentile > 0 ? o->percentile : 99.99;
    rr__calibration *cal;

    for (size_t i = 0; i < c->n; i++)
        if (!c->product[i].hist.count || !(c->product[i].hist.max > 0))
            return rr__fail(err, RR_E_ARG, "nothing but zeros was seen at product %s",
                            c->product[i].name);
    cal = rr__calibration_new(c->n);
    if (!cal)
        return rr__fail(err, RR_E_NOMEM, "calibration of %zu products", c->n);
    cal->format = o->format;
    cal->method = o->method;
    cal->percentile = o->method == RR__QUANT_PERCENTILE ? percentile : 0;
    cal->smooth_alpha = c->alpha;
    for (size_t i = 0; i < c->n; i++) {
        const rr__product_stats *p = &c->product[i];
        rr__calibrated          *q = &cal->product[i];

        memcpy(q->name, p->name, sizeof q->name);
        q->cols = p->cols;
        q->max = p->hist.max;
        q->amax = rr__hist_threshold(&p->hist, o->format, o->method, percentile);
        q->sensitivity = -1;
        if (p->smooth && !(q->smooth = rr__calibration_floats(cal, p->smooth, (size_t)p->cols))) {
            rr__calibration_free(cal);
            return rr__fail(err, RR_E_NOMEM, "smoothing of %s", p->name);
        }
    }
    *out = cal;
    return RR_OK;
}
