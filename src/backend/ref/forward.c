/* forward.c - the forward pass as docs/MODEL.md writes it: the oracle every other backend is
 * tested against.
 *
 * Weights and activations are fp32, every sum runs in double and in rising order, and no token's
 * arithmetic looks at another sequence: a logit has the same bits alone and in any batch. Slow and
 * plain on purpose; the only liberty is that linear() takes 16 tokens at a time. */
#include "backend/ref/forward.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* y[t, o] = b[o] + sum_k x[t, k] w[o, k]       x [n, in], row t at x + t * ldx; y likewise
 * Blocks of tokens lie transposed in xt, so that the compiler adds LANES sums at once; each of them
 * still runs over k in order. */
static void linear(rr__ref *r, const float *x, int32_t ldx, int32_t n, const rr__tensor *w,
                   const rr__tensor *b, float *y, int32_t ldy) {
    const int32_t out = (int32_t)w->shape[0], in = (int32_t)w->shape[1], lanes = RR__REF_LANES;

    for (int32_t t0 = 0; t0 < n; t0 += RR__REF_BLOCK) {
        int32_t nt = n - t0 < RR__REF_BLOCK ? n - t0 : RR__REF_BLOCK;
        int32_t groups = (nt + lanes - 1) / lanes;

        for (int32_t g = 0; g < groups; g++)
            for (int32_t k = 0; k < in; k++)
                for (int32_t j = 0; j < lanes; j++) {
                    int32_t t = g * lanes + j;

                    r->xt[((size_t)g * in + k) * lanes + j] =
                        t < nt ? x[(size_t)(t0 + t) * ldx + k] : 0;
                }
        for (int32_t o = 0; o < out; o++) {
            float bias;

            rr__tensor_f32(b, (size_t)o, 1, &bias);
            rr__tensor_f32(w, (size_t)o * in, (size_t)in, r->row);
            for (int32_t g = 0; g < groups; g++) {
                const double *xt = r->xt + (size_t)g * in * lanes;
                double        sum[RR__REF_LANES];

                for (int32_t j = 0; j < RR__REF_LANES; j++)
                    sum[j] = bias;
                for (int32_t k = 0; k < in; k++)
                    for (int32_t j = 0; j < RR__REF_LANES; j++)
                        sum[j] += (double)r->row[k] * xt[(size_t)k * RR__REF_LANES + j];
                for (int32_t j = 0; j < lanes && g * lanes + j < nt; j++)
                    y[(size_t)(t0 + g * lanes + j) * ldy + o] = (float)sum[j];
            }
        }
    }
}

/* x[t, :] = LN(x[t, :] + y[t, :]) * gamma + beta                        y may be NULL */
static void add_layernorm(rr__ref *r, float *x, const float *y, int32_t n, const rr__tensor *gamma,
                          const rr__tensor *beta) {
    const int32_t d = r->m->d_model;
    float         g, b;

    for (int32_t t = 0; t < n; t++) {
        float *row = x + (size_t)t * d;
        double mean = 0, var = 0;

        for (int32_t k = 0; k < d; k++) {
            if (y)
                row[k] += y[(size_t)t * d + k];
            mean += row[k];
        }
        mean /= d;
        for (int32_t k = 0; k < d; k++)
            var += (row[k] - mean) * (row[k] - mean);
        var /= d;
        for (int32_t k = 0; k < d; k++) {
            rr__tensor_f32(gamma, (size_t)k, 1, &g);
            rr__tensor_f32(beta, (size_t)k, 1, &b);
            row[k] = (float)((row[k] - mean) / sqrt(var + (double)r->m->ln_eps) * g + b);
        }
    }
}

/* x[t, :] = LN(word[tok[t]] + position[pos[t]] + type[0 or 1]) */
static void embed(rr__ref *r, const rr__batch *b) {
    const rr__model *m = r->m;
    const int32_t    d = m->d_model;

    for (int32_t i = 0; i < b->n_seq; i++) {
        int32_t first = b->cu[i], n = b->cu[i + 1] - first;
        int32_t n_type0 = m->n_type > 1 && b->seg ? b->seg[i] : n;

        rr__model_positions(m, b->tok + first, n, r->pos);
        for (int32_t t = 0; t < n; t++) {
            float *x = r->x + (size_t)(first + t) * d;

            rr__tensor_f32(&m->tok_emb, (size_t)b->tok[first + t] * d, (size_t)d, x);
            rr__tensor_f32(&m->type_emb, t < n_type0 ? 0 : (size_t)d, (size_t)d, r->row);
            for (int32_t k = 0; k < d; k++)
                x[k] += r->row[k];
            rr__tensor_f32(&m->pos_emb, (size_t)r->pos[t] * d, (size_t)d, r->row);
            for (int32_t k = 0; k < d; k++)
                x[k] += r->row[k];
        }
    }
    add_layernorm(r, r->x, NULL, b->n_tok, &m->emb_g, &m->emb_b);
}

static double dot(const float *a, const float *b, int32_t n) {
    double sum = 0;

    for (int32_t k = 0; k < n; k++)
        sum += (double)a[k] * b[k];
    return sum;
}

/* One query against the n keys of its sequence, one head of width c:
 *     p = softmax(q K^T / sqrt(c)),  out = p V             q, k, v rows are 3d apart */
static void attend(rr__ref *r, const float *q, const float *k, const float *v, int32_t n, int32_t c,
                   float *out) {
    const int32_t ld = 3 * r->m->d_model;
    double        max = -INFINITY, sum = 0;

    for (int32_t j = 0; j < n; j++) {
        r->prob[j] = dot(q, k + (size_t)j * ld, c) / sqrt((double)c);
        if (r->prob[j] > max)
            max = r->prob[j];
    }
    for (int32_t j = 0; j < n; j++) {
        r->prob[j] = exp(r->prob[j] - max);
        sum += r->prob[j];
    }
    for (int32_t i = 0; i < c; i++) {
        double o = 0;

        for (int32_t j = 0; j < n; j++)
            o += r->prob[j] * v[(size_t)j * ld + i];
        out[i] = (float)(o / sum);
    }
}

/* ctx[t, head] = attention of token t over its own sequence, for every head */
static void attention(rr__ref *r, const rr__batch *b) {
    const int32_t d = r->m->d_model, c = d / r->m->n_head;

    for (int32_t i = 0; i < b->n_seq; i++) {
        const float *qkv = r->qkv + (size_t)b->cu[i] * 3 * d;
        int32_t      n = b->cu[i + 1] - b->cu[i];

        for (int32_t h = 0; h < r->m->n_head; h++)
            for (int32_t t = 0; t < n; t++)
                attend(r, qkv + (size_t)t * 3 * d + h * c, qkv + d + h * c, qkv + 2 * d + h * c, n,
                       c, r->ctx + (size_t)(b->cu[i] + t) * d + h * c);
    }
}

/* x / 2 * (1 + erf(x / sqrt 2)), not the tanh approximation */
static void gelu(float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(0.5 * x[i] * (1 + erf(x[i] * 0.70710678118654752440)));
}

/* ---- the pass ------------------------------------------------------------- */

typedef struct watcher {
    rr__observe_fn fn;
    void          *user;
} watcher;

static void show(const watcher *w, int32_t layer, const char *name, int32_t rows, int32_t cols,
                 const float *data) {
    char full[32];

    if (!w->fn)
        return;
    if (layer >= 0)
        snprintf(full, sizeof full, "%d.%s", (int)layer, name);
    else
        snprintf(full, sizeof full, "%s", name);
    w->fn(w->user, &(rr__activation){full, rows, cols, data});
}

static void encoder_layer(rr__ref *r, const rr__batch *b, int32_t l, const watcher *w) {
    const rr__layer *p = &r->m->layer[l];
    const int32_t    n = b->n_tok, d = r->m->d_model, f = r->m->d_ff;

    linear(r, r->x, d, n, &p->wq, &p->bq, r->qkv, 3 * d);
    linear(r, r->x, d, n, &p->wk, &p->bk, r->qkv + d, 3 * d);
    linear(r, r->x, d, n, &p->wv, &p->bv, r->qkv + 2 * (size_t)d, 3 * d);
    show(w, l, "qkv", n, 3 * d, r->qkv);
    attention(r, b);
    show(w, l, "ctx", n, d, r->ctx);
    linear(r, r->ctx, d, n, &p->wo, &p->bo, r->y, d);
    show(w, l, "attn_out", n, d, r->y);
    add_layernorm(r, r->x, r->y, n, &p->ln1_g, &p->ln1_b);
    show(w, l, "ln1", n, d, r->x);
    linear(r, r->x, d, n, &p->w1, &p->b1, r->mid, f);
    gelu(r->mid, (size_t)n * f);
    show(w, l, "ffn_mid", n, f, r->mid);
    linear(r, r->mid, f, n, &p->w2, &p->b2, r->y, d);
    show(w, l, "ffn_out", n, d, r->y);
    add_layernorm(r, r->x, r->y, n, &p->ln2_g, &p->ln2_b);
    show(w, l, "ln2", n, d, r->x);
}

void rr__ref_forward(rr__ref *r, const rr__batch *b, float *logits, rr__observe_fn fn, void *user) {
    const rr__model *m = r->m;
    const int32_t    d = m->d_model, s = b->n_seq;
    const watcher    w = {fn, user};

    embed(r, b);
    show(&w, -1, "emb", b->n_tok, d, r->x);
    for (int32_t l = 0; l < m->n_layer; l++)
        encoder_layer(r, b, l, &w);
    for (int32_t i = 0; i < s; i++)
        memcpy(r->first + (size_t)i * d, r->x + (size_t)b->cu[i] * d, (size_t)d * sizeof *r->x);
    linear(r, r->first, d, s, &m->head_w, &m->head_b, r->head, d);
    for (size_t i = 0; i < (size_t)s * d; i++)
        r->head[i] = (float)tanh(r->head[i]);
    show(&w, -1, "head", s, d, r->head);
    linear(r, r->head, d, s, &m->out_w, &m->out_b, logits, 1);
    show(&w, -1, "logits", s, 1, logits);
}
