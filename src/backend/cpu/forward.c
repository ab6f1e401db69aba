/* forward.c - the forward pass of the cpu backend, the steps of ref/forward.c in its order.
 *
 * Two kinds of work alternate. Attention: an item is one head of one sequence. The rest of a layer:
 * an item is a tile of rows, which one thread takes through output projection, LayerNorm, both
 * feed-forward multiplications, LayerNorm and the next layer's query, key and value, so that what
 * lies between stays in its cache. No value depends on how rows are grouped into tiles. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAD = 16 }; /* units between rows of a left operand */

static int is_bf16(const rr__cpu *c, int32_t layer) { /* its qkv and ctx */
    return c->w->layer[layer].attend == RR__K_BF16;
}

/* Element i of an array of fp32 or bf16. */
static void *at(int half, void *p, size_t i) {
    return (char *)p + i * (half ? 2 : 4);
}

/* ---- sublayers on a tile ------------------------------------------------------ */

/* A left operand: rows lda units apart. */
typedef struct operand {
    const uint32_t *ptr;
    size_t          lda;
} operand;

/* Rows ld elements apart, in the worker's buffer as m wants them; where
 * they are that already, and end in a whole tile, they stay where they are: mid in bf16 keeps its
 * outliers. half: x is bf16, not fp32. */
static operand make_operand(rr__cpu *c, rr__cpu_worker *k, const rr__packed *m, const void *x,
                            int half, size_t ld, int32_t rows) {
    const rr__kernels *kx = c->w->kx;
    const size_t       lda = (size_t)(m->units * rr__terms(m->kind)) + PAD;

    for (int32_t r = 0; r < rows; r++)
        k->note[r].n = 0;
    if (m->kind == (half ? RR__K_BF16 : RR__K_F32) && m->k == m->units * (half ? 2 : 1))
        return (operand){x, half ? ld / 2 : ld};
    for (int32_t r = 0; r < rows; r++)
        kx->operand(m, (const char *)x + (size_t)r * ld * (half ? 2 : 4), half,
                    k->a + (size_t)r * lda, &k->note[r]);
    return (operand){k->a, lda};
}

static void linear(rr__cpu *c, rr__cpu_worker *k, const rr__packed *m, operand a, int32_t rows,
                   rr__dest to) {
    c->w->kx->gemm(m, a.ptr, a.lda, k->note, rows, &to);
}

/* Queries (if q), keys and values of a layer from x [rows, ld]; first = their token. */
static void project(rr__cpu *c, rr__cpu_worker *k, int32_t layer, const float *x, int32_t first,
                    int32_t rows, int q) {
    const rr__cpu_layer *p = &c->w->layer[layer];
    const int32_t        d = c->w->m->d_model;
    const size_t         ld3 = rr__cpu_ld(3 * d);
    operand              a = make_operand(c, k, &p->q, x, 0, rr__cpu_ld(d), rows);
    const int            half = is_bf16(c, layer);
    rr__dest             to = {at(half, c->qkv, (size_t)first * ld3), ld3, half, 0};

    if (q)
        linear(c, k, &p->q, a, rows, to);
    if (p->k.kind != p->q.kind) /* the last layer */
        a = make_operand(c, k, &p->k, x, 0, rr__cpu_ld(d), rows);
    to.ptr = at(half, to.ptr, (size_t)d);
    linear(c, k, &p->k, a, rows, to);
    to.ptr = at(half, to.ptr, (size_t)d);
    linear(c, k, &p->v, a, rows, to);
}

static void keep(float *to, int32_t first, const float *from, size_t ld, int32_t rows, int32_t d) {
    for (int32_t r = 0; r < rows; r++)
        memcpy(to + (size_t)(first + r) * (size_t)d, from + (size_t)r * ld, (size_t)d * sizeof *to);
}

/* All of a layer behind attention, on rows of x and ctx; first = row number of the first. */
static void encode(rr__cpu *c, rr__cpu_worker *k, float *x, const void *ctx, int32_t first,
                   int32_t rows) {
    const rr__cpu_weights *w = c->w;
    const rr__cpu_layer   *p = &w->layer[c->layer];
    const rr__cpu_seen    *seen = c->seen;
    const int32_t          d = w->m->d_model, f = w->m->d_ff;
    const size_t           ld = rr__cpu_ld(d), ldm = rr__cpu_ld(f);
    const int      half = p->f2.kind == RR__K_BF16 || p->f2.kind == RR__K_I8; /* mid is bf16 */
    const rr__dest to_y = {k->y, ld, 0, 0}, to_mid = {k->mid, ldm, half, 1};

    linear(c, k, &p->o, make_operand(c, k, &p->o, ctx, is_bf16(c, c->layer), ld, rows), rows, to_y);
    if (seen)
        keep(seen->attn_out, first, k->y, ld, rows, d);
    for (int32_t r = 0; r < rows; r++)
        w->kx->layernorm(x + (size_t)r * ld, k->y + (size_t)r * ld, p->ln1_g, p->ln1_b,
                         w->m->ln_eps, d);
    if (seen)
        keep(seen->ln1, first, x, ld, rows, d);
    linear(c, k, &p->f1, make_operand(c, k, &p->f1, x, 0, ld, rows), rows, to_mid);
    if (seen && !half)
        keep(seen->ffn_mid, first, k->mid, ldm, rows, f);
    for (int32_t r = 0; seen && half && r < rows; r++)
        w->kx->to_f32((const uint16_t *)(const void *)k->mid + (size_t)r * ldm, f,
                      seen->ffn_mid + (size_t)(first + r) * (size_t)f);
    linear(c, k, &p->f2, make_operand(c, k, &p->f2, k->mid, half, ldm, rows), rows, to_y);
    if (seen)
        keep(seen->ffn_out, first, k->y, ld, rows, d);
    for (int32_t r = 0; r < rows; r++)
        w->kx->layernorm(x + (size_t)r * ld, k->y + (size_t)r * ld, p->ln2_g, p->ln2_b,
                         w->m->ln_eps, d);
}

/* ---- work items ----------------------------------------------------------------- */

/* Rows [*first, *first + return) of n for tile i. */
static int32_t tile_rows(const rr__cpu *c, size_t i, int32_t n, int32_t *first) {
    *first = (int32_t)i * c->tile;
    return n - *first < c->tile ? n - *first : c->tile;
}

static size_t tiles(const rr__cpu *c, int32_t n) {
    return ((size_t)n + (size_t)c->tile - 1) / (size_t)c->tile;
}

/* The last layer needs the query of <s> only, but observe shows them all. */
static int wants_q(const rr__cpu *c, int32_t layer) {
    return layer + 1 < c->w->m->n_layer || c->seen;
}

/* x[t, :] = LN(word[tok[t]] + type[0 or 1] + position[pos[t]]), and the first layer's projection */
static void do_embed(void *arg, size_t i, int worker) {
    rr__cpu               *c = arg;
    const rr__cpu_weights *w = c->w;
    const rr__model       *m = w->m;
    const rr__batch       *b = c->b;
    const int32_t          d = m->d_model;
    int32_t                first, rows = tile_rows(c, i, b->n_tok, &first);
    float                 *x = c->x + (size_t)first * rr__cpu_ld(d);

    for (int32_t r = 0; r < rows; r++) {
        const int32_t t = first + r, s = c->seq[t];
        const int     type = m->n_type > 1 && b->seg && t - b->cu[s] >= b->seg[s];
        float        *row = x + (size_t)r * rr__cpu_ld(d);

        w->kx->row(row, &m->tok_emb, (size_t)b->tok[t] * (size_t)d, d, 0);
        w->kx->row(row, &m->type_emb, type ? (size_t)d : 0, d, 1);
        w->kx->row(row, &m->pos_emb, (size_t)c->pos[t] * (size_t)d, d, 1);
        w->kx->layernorm(row, NULL, w->emb_g, w->emb_b, m->ln_eps, d);
    }
    if (!c->seen) /* observe shows x first */
        project(c, &c->worker[worker], 0, x, first, rows, wants_q(c, 0));
}

static void do_project(void *arg, size_t i, int worker) {
    rr__cpu *c = arg;
    int32_t  first, rows = tile_rows(c, i, c->b->n_tok, &first);

    project(c, &c->worker[worker], c->layer, c->x + (size_t)first * rr__cpu_ld(c->w->m->d_model),
            first, rows, 1);
}

static int is_last(const rr__cpu *c) {
    return c->layer + 1 == c->w->m->n_layer;
}

static void do_attend(void *arg, size_t i, int worker) {
    rr__cpu         *c = arg;
    rr__cpu_worker  *k = &c->worker[worker];
    const rr__model *m = c->w->m;
    const int32_t    d = m->d_model, width = d / m->n_head;
    const int32_t    s = (int32_t)(i / (size_t)m->n_head), first = c->b->cu[s];
    const size_t     ld = rr__cpu_ld(d), ld3 = rr__cpu_ld(3 * d);
    const size_t     column = i % (size_t)m->n_head * (size_t)width, row = (size_t)first * ld3;
    const int        half = is_bf16(c, c->layer);
    rr__head         h = {
                .q = at(half, c->qkv, row + column),
                .k = at(half, c->qkv, row + (size_t)d + column),
                .v = at(half, c->qkv, row + 2 * (size_t)d + column),
                .out = at(half, c->ctx, (size_t)first * ld + column),
                .ld_q = ld3,
                .ld_kv = ld3,
                .ld_out = ld,
                .n = c->b->cu[s + 1] - first,
                .width = width,
                .kind = c->w->layer[c->layer].attend,
                .scores = k->scores,
                .kp = k->kp,
                .vp = k->vp,
                .qt = k->qt,
                .probs = k->probs,
    };

    h.n_q = h.n;
    if (is_last(c)) {
        h.q = at(half, c->qs, (size_t)s * ld + column);
        h.out = at(half, c->ctx, (size_t)s * ld + column);
        h.ld_q = ld;
        h.n_q = 1;
    }
    c->w->kx->attend(&h);
}

static void do_encode(void *arg, size_t i, int worker) {
    rr__cpu        *c = arg;
    rr__cpu_worker *k = &c->worker[worker];
    const size_t    ld = rr__cpu_ld(c->w->m->d_model);
    int32_t         first, rows = tile_rows(c, i, c->b->n_tok, &first);
    float          *x = c->x + (size_t)first * ld;

    encode(c, k, x, at(is_bf16(c, c->layer), c->ctx, (size_t)first * ld), first, rows);
    if (!c->seen)
        project(c, k, c->layer + 1, x, first, rows, wants_q(c, c->layer + 1));
}

/* The residual stream and the last layer's query of each sequence's first token. */
static void do_first(void *arg, size_t i, int worker) {
    rr__cpu          *c = arg;
    rr__cpu_worker   *k = &c->worker[worker];
    const int32_t     d = c->w->m->d_model;
    const size_t      ld = rr__cpu_ld(d);
    int32_t           first, rows = tile_rows(c, i, c->b->n_seq, &first);
    float            *xs = c->xs + (size_t)first * ld;
    const rr__packed *q = &c->w->layer[c->layer].q;
    const int         half = is_bf16(c, c->layer);

    for (int32_t r = 0; r < rows; r++)
        memcpy(xs + (size_t)r * ld, c->x + (size_t)c->b->cu[first + r] * ld,
               (size_t)d * sizeof *xs);
    linear(c, k, q, make_operand(c, k, q, xs, 0, ld, rows), rows,
           (rr__dest){at(half, c->qs, (size_t)first * ld), ld, half, 0});
}

/* The last layer's rest, and logit = tanh(x W^T + b) . out + out_b, all in fp32. */
static void do_last(void *arg, size_t i, int worker) {
    rr__cpu               *c = arg;
    const rr__cpu_weights *w = c->w;
    const int32_t          d = w->m->d_model;
    const size_t           ld = rr__cpu_ld(d);
    int32_t                first, rows = tile_rows(c, i, c->b->n_seq, &first);
    float         *xs = c->xs + (size_t)first * ld, *head = c->head + (size_t)first * (size_t)d;
    const rr__dest to = {head, (size_t)d, 0, 0};

    encode(c, &c->worker[worker], xs, at(is_bf16(c, c->layer), c->ctx, (size_t)first * ld), first,
           rows);
    w->kx->gemm(&w->head, (const uint32_t *)(const void *)xs, ld, NULL, rows, &to);
    for (int32_t r = 0; r < rows; r++) {
        float *h = head + (size_t)r * (size_t)d;
        double sum = w->out_b;

        for (int32_t j = 0; j < d; j++) {
            h[j] = tanhf(h[j]);
            sum += (double)h[j] * w->out_w[j];
        }
        c->logits[first + r] = (float)sum;
    }
}

/* ---- the pass ---------------------------------------------------------------------- */

static void begin(rr__cpu *c, const rr__batch *b, float *logits) {
    const int32_t mr = c->w->kx->mr, share = (b->n_tok + c->threads - 1) / c->threads;

    c->b = b;
    c->logits = logits;
    c->layer = 0;
    c->tile = (share + mr - 1) / mr * mr; /* a small batch still has a tile for every thread */
    if (c->tile > c->w->kx->tile)
        c->tile = c->w->kx->tile / mr * mr;
    for (int32_t s = 0; s < b->n_seq; s++) {
        rr__model_positions(c->w->m, b->tok + b->cu[s], b->cu[s + 1] - b->cu[s], c->pos + b->cu[s]);
        for (int32_t t = b->cu[s]; t < b->cu[s + 1]; t++)
            c->seq[t] = s;
    }
}

void rr__cpu_forward(rr__cpu *c, const rr__batch *b, float *logits) {
    const size_t heads = (size_t)b->n_seq * (size_t)c->w->m->n_head;

    c->seen = NULL;
    begin(c, b, logits);
    rr__pool_run(c->pool, tiles(c, b->n_tok), do_embed, c);
    for (; !is_last(c); c->layer++) {
        rr__pool_run(c->pool, heads, do_attend, c);
        rr__pool_run(c->pool, tiles(c, b->n_tok), do_encode, c);
    }
    rr__pool_run(c->pool, tiles(c, b->n_seq), do_first, c);
    rr__pool_run(c->pool, heads, do_attend, c);
    rr__pool_run(c->pool, tiles(c, b->n_seq), do_last, c);
}

/* ---- the same, watched ---------------------------------------------------------------- */

typedef struct watcher {
    rr__cpu       *c;
    rr__observe_fn fn;
    void          *user;
} watcher;

static void show(const watcher *w, const char *name, int32_t rows, int32_t cols,
                 const float *data) {
    char full[32];

    snprintf(full, sizeof full, "%d.%s", (int)w->c->layer, name);
    w->fn(w->user, &(rr__activation){full, rows, cols, data});
}

/* Rows of x [rows, ld], fp32 or bf16, put together without gaps. */
static const float *dense(const watcher *w, const void *x, int half, size_t ld, int32_t rows,
                          int32_t cols) {
    const rr__cpu *c = w->c;

    for (int32_t r = 0; r < rows; r++) {
        float *to = c->seen->dense + (size_t)r * (size_t)cols;

        if (half)
            c->w->kx->to_f32((const uint16_t *)x + (size_t)r * ld, cols, to);
        else
            memcpy(to, (const float *)x + (size_t)r * ld, (size_t)cols * sizeof *to);
    }
    return c->seen->dense;
}

/* Keys with what the layer keeps them without. */
static const float *dense_qkv(const watcher *w) {
    const rr__cpu *c = w->c;
    const int32_t  d = c->w->m->d_model, n = c->b->n_tok;
    const float   *mean = c->w->layer[c->layer].k_mean;

    dense(w, c->qkv, is_bf16(c, c->layer), rr__cpu_ld(3 * d), n, 3 * d);
    for (int32_t t = 0; mean && t < n; t++)
        for (int32_t j = 0; j < d; j++)
            c->seen->dense[((size_t)t * 3 + 1) * (size_t)d + (size_t)j] += mean[j];
    return c->seen->dense;
}

static void watch(const watcher *w, const rr__batch *b) {
    rr__cpu            *c = w->c;
    const rr__cpu_seen *seen = c->seen;
    const int32_t       d = c->w->m->d_model, f = c->w->m->d_ff;
    const size_t        heads = (size_t)b->n_seq * (size_t)c->w->m->n_head, ld = rr__cpu_ld(d);

    rr__pool_run(c->pool, tiles(c, b->n_tok), do_embed, c);
    w->fn(w->user, &(rr__activation){"emb", b->n_tok, d, dense(w, c->x, 0, ld, b->n_tok, d)});
    for (; c->layer < c->w->m->n_layer; c->layer++) {
        const int32_t rows = is_last(c) ? b->n_seq : b->n_tok;

        rr__pool_run(c->pool, tiles(c, b->n_tok), do_project, c);
        show(w, "qkv", b->n_tok, 3 * d, dense_qkv(w));
        if (is_last(c))
            rr__pool_run(c->pool, tiles(c, rows), do_first, c);
        rr__pool_run(c->pool, heads, do_attend, c);
        show(w, "ctx", rows, d, dense(w, c->ctx, is_bf16(c, c->layer), ld, rows, d));
        rr__pool_run(c->pool, tiles(c, rows), is_last(c) ? do_last : do_encode, c);
        show(w, "attn_out", rows, d, seen->attn_out);
        show(w, "ln1", rows, d, seen->ln1);
        show(w, "ffn_mid", rows, f, seen->ffn_mid);
        show(w, "ffn_out", rows, d, seen->ffn_out);
        show(w, "ln2", rows, d, dense(w, is_last(c) ? c->xs : c->x, 0, ld, rows, d));
    }
    w->fn(w->user, &(rr__activation){"head", b->n_seq, d, c->head});
    w->fn(w->user, &(rr__activation){"logits", b->n_seq, 1, c->logits});
}

rr_status rr__cpu_observe(void *instance, const rr__batch *b, float *logits, rr__observe_fn fn,
                          void *user, rr_error *err) {
    rr__cpu     *c = instance;
    const size_t d = (size_t)c->w->m->d_model, f = (size_t)c->w->m->d_ff;
    const size_t wide = f > 3 * d ? f : 3 * d;
    rr_status    s = rr__batch_check(b, c->w->m, &c->w->opts, err);
    rr__cpu_seen seen;
    float       *block;

    if (s != RR_OK)
        return s;
    block = malloc((size_t)b->n_tok * (3 * d + f + wide) * sizeof *block);
    if (!block)
        return rr__fail(err, RR_E_NOMEM, "cpu: no memory to observe %d tokens", (int)b->n_tok);
    seen.attn_out = block;
    seen.ln1 = seen.attn_out + (size_t)b->n_tok * d;
    seen.ffn_out = seen.ln1 + (size_t)b->n_tok * d;
    seen.ffn_mid = seen.ffn_out + (size_t)b->n_tok * d;
    seen.dense = seen.ffn_mid + (size_t)b->n_tok * f;
    c->seen = &seen;
    begin(c, b, logits);
    watch(&(watcher){c, fn, user}, b);
    c->seen = NULL;
    free(block);
    return RR_OK;
}
