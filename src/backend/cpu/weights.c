/* weights.c - the model's matrices as panels of fp32, bf16 or int8; see kernels.h.
 *
 * Packing is shared by all cores: one item is one panel of one matrix. int8 is symmetric with one
 * scale for each output column. Token and position tables stay in the mapped file. */
#include "backend/cpu/cpu.h"
#include "base/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- packing ---------------------------------------------------------------- */

/* Softmax does not see what all keys of a sequence have in common, and bf16 rounds large values more.
 * So where keys are bf16 they are kept less their mean: W (x - beta), as a LayerNorm's x has mean beta. */
typedef struct change {
    const float *beta;   /* [k] of the LayerNorm before */
    float       *mean;   /* [n] b + W beta, for those who look; NULL: not centred */
    int          halved; /* for GELU, see rr__dest */
} change;

typedef struct job { /* one matrix */
    rr__packed       *to;
    const rr__tensor *w, *b;
    change            change;
    size_t            first_panel; /* of all panels */
} job;

typedef struct packing {
    const rr__kernels *kx;
    job               *jobs;
    size_t             n_job, n_panel;
    float             *rows; /* [threads, k_max] */
    size_t             k_max;
} packing;

int32_t rr__units(const rr__kernels *kx, rr__kind kind, int32_t k) {
    const int32_t step = kx->unit_step, units = kind == RR__K_I8 ? k * kx->q_bytes / 4 : k / 2;

    return kind == RR__K_F32 ? k : (units + step - 1) / step * step;
}

/* Column `lane` of a panel out [units, nr] from one row of W. */
static void pack_column(const packing *p, rr__packed *m, int32_t column, float *row,
                        uint32_t *out) {
    const int32_t nr = p->kx->nr, lane = column % nr, k = m->k;
    float         top = 0;
    int32_t       sum = 0;

    for (int32_t i = 0; m->inv_smooth && i < k; i++)
        row[i] /= m->inv_smooth[i];
    if (m->kind == RR__K_F32) {
        for (int32_t i = 0; i < k; i++)
            out[i * nr + lane] = rr__f32_bits(row[i]);
        return;
    }
    if (m->kind != RR__K_I8) {
        const size_t term = (size_t)m->units * (size_t)nr;

        for (int32_t i = 0; i < k; i++) { /* what one term leaves is for the next */
            uint32_t *at = out + i / 2 * nr + lane;
            float     left = row[i];

            for (int32_t t = 0; t < rr__terms(m->kind); t++) {
                const uint16_t h = rr__f32_to_bf16(left);

                at[(size_t)t * term] |= (uint32_t)h << (i % 2 * 16);
                left -= rr__bf16_to_f32(h);
            }
        }
        return;
    }
    for (int32_t i = 0; i < k; i++)
        top = fmaxf(top, fabsf(row[i]));
    m->scale[column] = top / 127;
    for (int32_t i = 0; i < k; i++) {
        const int      per = 4 / p->kx->q_bytes, bits = 8 * p->kx->q_bytes;
        const int32_t  q = top > 0 ? (int32_t)lrintf(row[i] * (127 / top)) : 0;
        const uint32_t mask = bits == 8 ? 0xff : 0xffff;

        sum += q;
        out[i / per * nr + lane] |= ((uint32_t)q & mask) << (i % per * bits);
    }
    m->drop[column] = -m->scale[column] * (float)sum;
}

static double dot(const float *a, const float *b, int32_t n) {
    double sum = 0;

    for (int32_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

static void pack_panel(void *arg, size_t item, int worker) {
    const packing *p = arg;
    const job     *j = p->jobs;
    float         *row = p->rows + (size_t)worker * p->k_max;
    int32_t        first;
    uint32_t      *out;

    while (j + 1 < p->jobs + p->n_job && j[1].first_panel <= item)
        j++;
    first = (int32_t)(item - j->first_panel) * p->kx->nr;
    out = j->to->w + (size_t)first * (size_t)(j->to->units * rr__terms(j->to->kind));
    for (int32_t n = first; n < first + p->kx->nr && n < j->to->n; n++) {
        p->kx->row(row, j->w, (size_t)n * (size_t)j->to->k, j->to->k, 0);
        for (int32_t i = 0; j->change.halved && i < j->to->k; i++)
            row[i] /= 2;
        if (j->change.mean) {
            const double part = dot(row, j->change.beta, j->to->k);
            float        bias;

            rr__tensor_f32(j->b, (size_t)n, 1, &bias);
            j->change.mean[n] = (float)(bias + part);
            j->to->bias[n] = (float)-part;
        }
        pack_column(p, j->to, n, row, out);
        for (int32_t i = 0; j->to->wt && i < j->to->k; i++)
            j->to->wt[(size_t)i * (size_t)j->to->panels * (size_t)p->kx->nr + (size_t)n] =
                rr__f32_to_f16(row[i]);
    }
    if (first == 0 && !j->change.mean)
        rr__tensor_f32(j->b, 0, (size_t)j->to->n, j->to->bias);
    for (int32_t n = 0; first == 0 && j->change.halved && n < j->to->n; n++)
        j->to->bias[n] /= 2;
}

/* ---- layout ------------------------------------------------------------------ */

/* How one product is computed. cal: the calibration's part in it, if int8 and there is one. */
typedef struct how {
    rr__kind              kind;
    const rr__calibrated *cal;
} how;

/* Called twice, as the plan is: jobs are kept by the second call only. uneven: its input comes from
 * LayerNorm and has outliers worth keeping. A calibrated product keeps none if one threshold holds for
 * all rows; if each row is measured they are kept everywhere, for with so many products in int8 the
 * feed-forward's inner outliers are most of the error (docs/SPEED.md). */
static void matrix(rr__cpu_weights *w, packing *p, rr__packed *to, how h, int uneven,
                   const rr__tensor *t, const rr__tensor *bias, change c) {
    const int32_t nr = w->kx->nr, n = (int32_t)t->shape[0], k = (int32_t)t->shape[1];
    const int32_t panels = (n + nr - 1) / nr, units = rr__units(w->kx, h.kind, k);
    const size_t  columns = (size_t)panels * (size_t)nr;
    const int     per_token = h.cal && w->opts.calibration->per_token;

    *to = (rr__packed){.kind = h.kind, .n = n, .k = k, .units = units, .panels = panels};
    to->w = rr__plan_take(&w->plan, columns * (size_t)(units * rr__terms(h.kind)), 4);
    to->bias = rr__plan_take(&w->plan, columns, sizeof *to->bias);
    if (h.kind == RR__K_I8) {
        to->scale = rr__plan_take(&w->plan, columns, sizeof *to->scale);
        to->drop = rr__plan_take(&w->plan, columns, sizeof *to->drop);
        to->amax = h.cal && !per_token ? h.cal->amax : 0;
        if (h.cal && h.cal->smooth)
            to->inv_smooth = rr__plan_take(&w->plan, (size_t)k, sizeof *to->inv_smooth);
        for (int32_t i = 0; to->inv_smooth && i < k; i++)
            to->inv_smooth[i] = 1 / h.cal->smooth[i];
    }
    if (h.cal ? per_token : uneven && (h.kind == RR__K_BF16 || h.kind == RR__K_I8))
        to->wt = rr__plan_take(&w->plan, columns * (size_t)k, sizeof *to->wt);
    if (w->plan.base) {
        p->jobs[p->n_job++] = (job){to, t, bias, c, p->n_panel};
        p->n_panel += (size_t)panels;
    }
}

static float *vector(rr__cpu_weights *w, const rr__tensor *t) {
    float *v = rr__plan_take(&w->plan, (size_t)w->m->d_model, sizeof *v);

    if (v)
        rr__tensor_f32(t, 0, (size_t)w->m->d_model, v);
    return v;
}

/* In the layers about the middle of a trained encoder a rounding moves the logit most (docs/SPEED.md).
 * There bf16 is not enough. A wider model, whose roundings average out, needs no more such layers. */
static int is_middle(const rr__cpu_weights *w, int32_t layer) {
    const int32_t first = w->m->n_layer * 5 / 12 - w->kx->fine_layers / 2;

    return w->precision == RR__BF16 && w->half == RR__K_BF16 && layer >= first &&
           layer < first + w->kx->fine_layers;
}

typedef struct plan_of_layer {
    how q, kv, o, f1, f2;
} plan_of_layer;

/* Of products that are not int8: fp32 or bf16, as w->half says. */
static how base(const rr__cpu_weights *w) {
    return (how){w->half == RR__K_F32 ? w->kx->exact : w->half, NULL};
}

static how calibrated(const rr__cpu_weights *w, int32_t layer, const char *role) {
    const rr__calibrated *c;
    char                  name[24];

    snprintf(name, sizeof name, "%d.%s", (int)layer, role);
    c = rr__calibration_find(w->opts.calibration, name); /* it is there: the calibration fits */
    return c->keep_float ? base(w) : (how){RR__K_I8, c};
}

/* Which multiplication runs in which kind, by measured error of the logits (docs/SPEED.md). The last
 * layer sees one row of each sequence, so that fp32 costs nothing there. In int8 the first third,
 * where channels are most uneven, and the multiplications that int8 hurts most stay bf16, unless a
 * calibration says which do. */
static plan_of_layer plan_layer(const rr__cpu_weights *w, int32_t layer) {
    const how f = {RR__K_F32, NULL}, half = base(w), low = {RR__K_I8, NULL},
              fine = {w->kx->fine, NULL};
    const int last = layer + 1 == w->m->n_layer;
    const int third = w->precision == RR__INT8 && layer >= w->m->n_layer / 3;

    if (w->opts.calibration) {
        const how qkv = calibrated(w, layer, "qkv");

        if (last)
            return (plan_of_layer){f, qkv, f, f, f};
        return (plan_of_layer){qkv, qkv, calibrated(w, layer, "out"), calibrated(w, layer, "ffn1"),
                               calibrated(w, layer, "ffn2")};
    }
    if (last)
        return (plan_of_layer){f, half, f, f, f};
    if (is_middle(w, layer))
        return (plan_of_layer){fine, fine, fine, fine, fine};
    return (plan_of_layer){half, half, third ? low : half, third ? low : half, half};
}

static void layout(rr__cpu_weights *w, packing *p) {
    const change none = {0}, halved = {.halved = 1};
    const float *before;

    w->emb_g = vector(w, &w->m->emb_g);
    before = w->emb_b = vector(w, &w->m->emb_b);
    for (int32_t l = 0; l < w->m->n_layer; l++) {
        const rr__layer    *from = &w->m->layer[l];
        rr__cpu_layer      *to = &w->layer[l];
        const plan_of_layer use = plan_layer(w, l);

        to->attend = is_middle(w, l) ? w->kx->fine : base(w).kind;
        if (to->attend == RR__K_BF16)
            to->k_mean = rr__plan_take(&w->plan, (size_t)w->m->d_model, sizeof *to->k_mean);
        matrix(w, p, &to->q, use.q, 1, &from->wq, &from->bq, none);
        matrix(w, p, &to->k, use.kv, 1, &from->wk, &from->bk, (change){before, to->k_mean, 0});
        matrix(w, p, &to->v, use.kv, 1, &from->wv, &from->bv, none);
        matrix(w, p, &to->o, use.o, 0, &from->wo, &from->bo, none);
        matrix(w, p, &to->f1, use.f1, 1, &from->w1, &from->b1, halved);
        matrix(w, p, &to->f2, use.f2, 0, &from->w2, &from->b2, none);
        to->ln1_g = vector(w, &from->ln1_g);
        to->ln1_b = vector(w, &from->ln1_b);
        to->ln2_g = vector(w, &from->ln2_g);
        before = to->ln2_b = vector(w, &from->ln2_b);
    }
    matrix(w, p, &w->head, (how){RR__K_F32, NULL}, 0, &w->m->head_w, &w->m->head_b, none);
    w->out_w = vector(w, &w->m->out_w);
}

static rr_status pack(rr__cpu_weights *w, rr_error *err) {
    const rr__model *m = w->m;
    packing   p = {.kx = w->kx, .k_max = (size_t)(m->d_ff > m->d_model ? m->d_ff : m->d_model)};
    rr__pool *pool = NULL;
    rr_status s;

    layout(w, &p);
    s = rr__plan_alloc(&w->plan, "the weights", err);
    if (s == RR_OK)
        s = rr__pool_open(w->opts.threads, 0, &pool, err);
    if (s != RR_OK)
        return s;
    p.jobs = calloc((size_t)m->n_layer * 6 + 1, sizeof *p.jobs);
    p.rows = calloc((size_t)rr__pool_threads(pool) * p.k_max, sizeof *p.rows);
    if (p.jobs && p.rows) {
        layout(w, &p);
        rr__pool_run(pool, p.n_panel, pack_panel, &p);
        rr__tensor_f32(&m->out_b, 0, 1, &w->out_b);
    } else {
        s = rr__fail(err, RR_E_NOMEM, "cpu: no memory to pack the weights");
    }
    rr__pool_close(pool);
    free(p.jobs);
    free(p.rows);
    return s;
}

/* ---- load -------------------------------------------------------------------- */

static rr_status check_shape(const rr__model *m, rr_error *err) {
    const int32_t width = m->d_model / m->n_head;

    if (m->d_model % 8 || m->d_ff % 8 || width % 8)
        return rr__fail(
            err, RR_E_UNSUPPORTED,
            "cpu: d_model %d, d_ff %d and head width %d must be multiples of 8; use ref",
            (int)m->d_model, (int)m->d_ff, (int)width);
    return RR_OK;
}

static rr_status choose(rr__cpu_weights *w, rr_error *err) {
    switch (w->opts.precision) {
    case RR__AUTO: /* bf16 where the machine multiplies it, as it costs no accuracy to speak of */
        w->precision = w->kx->half == RR__K_BF16 ? RR__BF16 : RR__FP32;
        break;
    case RR__FP32:
    case RR__BF16:
    case RR__INT8:
        w->precision = w->opts.precision;
        break;
    default:
        return rr__fail(err, RR_E_UNSUPPORTED, "cpu computes in fp32, bf16 or int8, not %s",
                        rr__precision_name(w->opts.precision));
    }
    w->half = w->kx->half;
    if (w->precision == RR__FP32 || (w->opts.calibration && w->opts.calibration->exact))
        w->half = RR__K_F32;
    return RR_OK;
}

rr_status rr__cpu_load(const rr__model *m, const rr__backend_opts *o, void **weights,
                       rr_error *err) {
    rr__cpu_weights *w = calloc(1, sizeof *w);
    rr_status        s;

    if (!w)
        return rr__fail(err, RR_E_NOMEM, "cpu: out of memory");
    w->m = m;
    w->opts = *o;
    s = check_shape(m, err);
    if (s == RR_OK)
        s = (w->kx = rr__kernels_pick(err)) ? RR_OK : RR_E_UNSUPPORTED;
    if (s == RR_OK)
        s = choose(w, err);
    if (s == RR_OK && !(w->layer = calloc((size_t)m->n_layer, sizeof *w->layer)))
        s = rr__fail(err, RR_E_NOMEM, "cpu: out of memory");
    if (s == RR_OK)
        s = pack(w, err);
    w->opts.calibration = NULL;
    if (s != RR_OK) {
        rr__cpu_unload(w);
        return s;
    }
    *weights = w;
    return RR_OK;
}

void rr__cpu_unload(void *weights) {
    rr__cpu_weights *w = weights;

    if (!w)
        return;
    free(w->layer);
    free(w->plan.base);
    free(w);
}
