/* forward.c - the forward pass on the device, the same steps in the same order as
 * src/backend/ref/forward.c.
 *
 * What is fused: embedding + LayerNorm, bias into every GEMM, GELU into the first feed-forward
 * GEMM, the residual add into the two GEMMs that end a sublayer, quantisation (as the product that
 * reads next wants it) into LayerNorm and, for fp8, into GELU and attention. The residual stream x
 * is updated in place; ctx takes q's place; mid lies where qkv was. A batch too large for that
 * place goes through attention in two parts. The last layer computes K and V of all tokens, all
 * else of the first token of each sequence. */
#include "backend/cuda/cuda.h"

#include "base/half.h"

#include <stdio.h>

typedef struct pass {
    rr__cu_instance      *r;
    const rr__cu_weights *w;
    rr__cu_shape          shape;
    rr__cu_staging        in; /* on the device */
    rr__cu_watcher       *watch;
    rr_error             *err;
} pass;

/* Rows a GEMM reads: 16 or 32 bits, or quantised, with a scale and a note each where they have
 * one. */
typedef struct rows {
    const void        *data;
    int32_t            ld;
    const float       *scale;
    const rr__cu_note *note;
} rows;

/* Where quantised rows go: room for data, for scales and notes. */
typedef struct room {
    void        *data;
    float       *scale;
    rr__cu_note *note;
} room;

/* The tokens and sequences that go through attention together; cu and tile count from its start. */
typedef struct part {
    int32_t            n0, n, s0, s, n_tile;
    const int32_t     *cu;
    const rr__cu_tile *tile;
} part;

static part part_of(const pass *p, int i) {
    const rr__cu_shape *h = &p->shape;

    if (i == 0)
        return (part){0, h->n1, 0, h->s1, h->n_tile1, p->in.cu, p->in.tile};
    return (part){h->n1,
                  h->n - h->n1,
                  h->s1,
                  h->s - h->s1,
                  h->n_tile - h->n_tile1,
                  p->in.cu + h->s1 + 1,
                  p->in.tile + h->n_tile1};
}

static int n_part(const pass *p) {
    return p->shape.s1 < p->shape.s ? 2 : 1;
}

#define LAUNCH(call) RR__CU_TRY(call, p->err)

/* ---- observe ------------------------------------------------------------------ */

static float element(const void *p, rr__cu_type type, size_t i) {
    switch (type) {
    case RR__CU_F32:
        return ((const float *)p)[i];
    case RR__CU_F16:
        return rr__f16_to_f32(((const uint16_t *)p)[i]);
    case RR__CU_BF16:
        return rr__bf16_to_f32(((const uint16_t *)p)[i]);
    case RR__CU_E4M3:
        return rr__e4m3_to_f32(((const uint8_t *)p)[i]);
    default:
        return ((const int8_t *)p)[i];
    }
}

/* Wait, and fetch `data` [n, cols] stride ld, each value times scale, less `minus` if not NULL. */
static rr_status look(const pass *p, float *to, int32_t n, int32_t cols, const void *data,
                      int32_t ld, rr__cu_type type, float scale, const float *minus) {
    const size_t size = rr__cu_type_size(type), count = (size_t)n * (size_t)cols;
    char        *raw = (char *)(to + count) - count * size; /* widened in place */

    RR__CU_TRY(cudaStreamSynchronize(p->r->stream), p->err);
    RR__CU_TRY(cudaMemcpy2D(raw, (size_t)cols * size, data, (size_t)ld * size, (size_t)cols * size,
                            (size_t)n, cudaMemcpyDeviceToHost),
               p->err);
    for (size_t i = 0; i < count; i++)
        to[i] = element(raw, type, i) * scale - (minus ? minus[i] : 0);
    return RR_OK;
}

static void tell(const pass *p, int32_t layer, const char *name, int32_t n, int32_t cols,
                 const float *data) {
    char full[32];

    if (layer >= 0)
        snprintf(full, sizeof full, "%d.%s", (int)layer, name);
    else
        snprintf(full, sizeof full, "%s", name);
    p->watch->fn(p->watch->user, &(rr__activation){full, n, cols, data});
}

/* Wait, and show; the arguments of look. */
static rr_status show(const pass *p, int32_t layer, const char *name, int32_t n, int32_t cols,
                      const void *data, int32_t ld, rr__cu_type type, float scale,
                      const float *minus) {
    if (!p->watch)
        return RR_OK;
    RR__TRY(look(p, p->watch->host, n, cols, data, ld, type, scale, minus));
    tell(p, layer, name, n, cols, p->watch->host);
    return RR_OK;
}

/* qkv, ctx and mid exist piece by piece; row `first` on goes to its place, and all is shown behind
 * the last. */
static rr_status look_piece(const pass *p, float *to, int32_t first, int32_t n, int32_t cols,
                            const void *data, int32_t ld, rr__cu_type type, float scale) {
    return p->watch ? look(p, to + (size_t)first * cols, n, cols, data, ld, type, scale, NULL)
                    : RR_OK;
}

/* Keep the residual stream, so that attn_out and ffn_out can be told from the sum. */
static rr_status remember(const pass *p, const void *x, int32_t n) {
    rr__cu_watcher *w = p->watch;
    const size_t    size = rr__cu_type_size(p->w->act), count = (size_t)n * p->w->m->d_model;
    char           *raw;

    if (!w)
        return RR_OK;
    raw = (char *)(w->before + count) - count * size;
    RR__CU_TRY(cudaStreamSynchronize(p->r->stream), p->err);
    RR__CU_TRY(cudaMemcpy(raw, x, count * size, cudaMemcpyDeviceToHost), p->err);
    for (size_t i = 0; i < count; i++)
        w->before[i] = element(raw, p->w->act, i);
    return RR_OK;
}

/* ---- steps --------------------------------------------------------------------- */

/* d = epilogue(a W^T + b), m rows; d is f32 of a SPLIT, else of out_type */
static rr__cu_gemm gemm_of(const rr__cu_linear *l, rows a, int32_t m, rr__cu_epilogue epilogue,
                           rr__cu_type out_type, void *d, int32_t ldd, float out_scale) {
    return (rr__cu_gemm){.type = l->type,
                         .out_type = out_type,
                         .epilogue = epilogue,
                         .m = m,
                         .n = l->n,
                         .k = l->k,
                         .a = a.data,
                         .w = l->w,
                         .bias = l->bias,
                         .a_scale = a.scale,
                         .w_scale = l->w_scale,
                         .note = a.note,
                         .residual = epilogue == RR__CU_RESIDUAL ? d : NULL,
                         .d = d,
                         .lda = a.ld,
                         .ldd = ldd,
                         .out_scale = out_scale,
                         .backward = l->backward};
}

static rr_status linear(const pass *p, const rr__cu_linear *l, rows a, int32_t m,
                        rr__cu_epilogue epilogue, rr__cu_type out_type, void *d, int32_t ldd,
                        float out_scale) {
    const rr__cu_gemm g = gemm_of(l, a, m, epilogue, out_type, d, ldd, out_scale);

    if (p->w->sm90 && rr__cu_gemm_sm90_fits(&g))
        LAUNCH(rr__cu_gemm_sm90(&g, p->r->stream));
    else
        LAUNCH(rr__cu_gemm_mma(&g, p->r->stream));
    return RR_OK;
}

/* x += a W^T + b, m rows. In fast, k of few rows is split: *halves are then what the LayerNorm behind
 * has to add, else NULL. halves is NULL where that normalises more than these rows. */
static rr_status add(const pass *p, const rr__cu_linear *l, rows a, int32_t m, void *x,
                     const float **halves) {
    float            *to = p->watch || !halves ? NULL : p->r->halves;
    const rr__cu_gemm g = gemm_of(l, a, m, RR__CU_SPLIT, RR__CU_F32, to, l->n, 1);
    const int         split = to && rr__cu_gemm_sm90_fits(&g) && rr__cu_gemm_sm90_splits(&g);

    if (halves)
        *halves = split ? to : NULL;
    if (split)
        LAUNCH(rr__cu_gemm_sm90(&g, p->r->stream));
    else
        RR__TRY(linear(p, l, a, m, RR__CU_RESIDUAL, p->w->act, x, l->n, p->w->sum_scale));
    return RR_OK;
}

/* How l wants its rows quantised; l may be NULL or want them as they are. */
static rr__cu_quant quant_for(const rr__cu_linear *l, room to) {
    if (!l || !rr__cu_is_8bit(l->type))
        return (rr__cu_quant){.q = NULL};
    return (rr__cu_quant){.type = l->type,
                          .q = to.data,
                          .inv_smooth = l->inv_smooth,
                          .scale = l->in_scale,
                          .row_scale = to.scale,
                          .note = l->type == RR__CU_S8 && l->in_scale == 0 ? to.note : NULL};
}

/* What l reads of rows that lie at x (stride ld) and, quantised for it, in x8. */
static rows rows_for(const rr__cu_linear *l, const void *x, int32_t ld, room x8) {
    const rr__cu_quant q = quant_for(l, x8);

    return q.q ? (rows){q.q, l->k, q.scale > 0 ? NULL : q.row_scale, q.note}
               : (rows){x, ld, NULL, NULL};
}

/* From token t of the batch, from sequence s. */
static room room_x(const pass *p, int32_t t) {
    const rr__cu_instance *r = p->r;

    return r->x8 ? (room){(char *)r->x8 + (size_t)t * p->w->m->d_model, r->x_scale + t,
                          r->x_note ? r->x_note + t : NULL}
                 : (room){NULL, NULL, NULL};
}

static room room_first(const pass *p, int32_t s) {
    const rr__cu_instance *r = p->r;

    return r->first8
               ? (room){(char *)r->first8 + (size_t)s * p->w->m->d_model, r->first_scale + s, NULL}
               : (room){NULL, NULL, NULL};
}

/* Row i of an [.., d] array of activations. */
static void *row(const pass *p, void *x, int32_t i) {
    return (char *)x + (size_t)i * p->w->m->d_model * rr__cu_type_size(p->w->act);
}

/* next: what reads x, in x8 if it is quantised; NULL = only the head. before: what wrote x.
 * halves: what it left to add, or NULL. */
static rr_status layernorm(const pass *p, void *x, room x8, int32_t n, const float *gamma,
                           const float *beta, const rr__cu_linear *next,
                           const rr__cu_linear *before, const float *halves) {
    const rr__cu_weights *w = p->w;
    const float           scale = halves ? 1 : w->sum_scale;
    rr__cu_norm           a = {.type = w->act,
                               .rows = n,
                               .d = w->m->d_model,
                               .eps = w->m->ln_eps * scale * scale,
                               .in = x,
                               .halves = halves,
                               .bias = before->bias,
                               .gamma = gamma,
                               .beta = beta,
                               .out = x,
                               .backward = !before->backward,
                               .to = quant_for(next, x8)};

    LAUNCH(rr__cu_layernorm(&a, p->r->stream));
    return RR_OK;
}

/* What a layer's keys and values are computed with. */
static const rr__cu_linear *first_of(const rr__cu_weights *w, int32_t layer) {
    return layer + 1 < w->m->n_layer ? &w->layer[layer].qkv : &w->layer[layer].kv;
}

static rr_status embed(const pass *p) {
    const rr__cu_weights *w = p->w;
    rr__cu_norm           a = {.type = w->act,
                               .rows = p->shape.n,
                               .d = w->m->d_model,
                               .eps = w->m->ln_eps,
                               .gamma = w->emb_g,
                               .beta = w->emb_b,
                               .out = p->r->x,
                               .to = quant_for(first_of(w, 0), room_x(p, 0))};
    rr__cu_embed          e = {p->in.tok, p->in.pos, w->tok_emb, w->type_emb, w->pos_emb};

    LAUNCH(rr__cu_embed_layernorm(&a, &e, p->r->stream));
    return RR_OK;
}

/* Attention of one part, whose qkv lie in r->wide; ctx goes to x, or to x8 where its reader o is
 * fp8. */
static rr__cu_attention attention_of(const pass *p, const part *at, const rr__cu_linear *o, void *x,
                                     int32_t ld, void *x8) {
    const int32_t d = p->w->m->d_model, h = p->w->m->n_head;
    const int     fp8 = o->type == RR__CU_E4M3;

    return (rr__cu_attention){.type = p->w->act,
                              .out_type = fp8 ? RR__CU_E4M3 : p->w->act,
                              .n_head = h,
                              .head_dim = d / h,
                              .n_tile = at->n_tile,
                              .n_row = at->n,
                              .qkv = p->r->wide,
                              .cu = at->cu,
                              .tile = at->tile,
                              .ctx = fp8 ? x8 : x,
                              .ld_ctx = fp8 ? d : ld,
                              .out_scale = fp8 ? 1 / o->in_scale : 1,
                              .fast = p->w->opts.fast};
}

/* ctx [n, d] at x for o: in int8 it is quantised here, in fp8 attention has done so. */
static rr_status quantise_ctx(const pass *p, const rr__cu_linear *o, const void *x, int32_t ld,
                              int32_t n, room x8, rows *ctx) {
    const rr__cu_quant to = quant_for(o, x8);

    if (o->type == RR__CU_S8)
        LAUNCH(rr__cu_quantise_rows(p->w->act, x, ld, n, o->k, &to, p->r->stream));
    *ctx = rows_for(o, x, ld, x8);
    return RR_OK;
}

/* qkv in r->wide to ctx; *ctx says where it lies */
static rr_status attention(const pass *p, const part *at, const rr__cu_linear *o, rows *ctx) {
    rr__cu_instance *r = p->r;
    const room       x8 = room_x(p, at->n0);
    const int32_t    ld = 3 * p->w->m->d_model;
    rr__cu_attention a = attention_of(p, at, o, r->wide, ld, x8.data);

    if (p->w->tile_rows == RR__CU_TILE_SM90)
        LAUNCH(rr__cu_attention_sm90(&a, r->stream));
    else if (rr__cu_attention_mma_fits(&a))
        LAUNCH(rr__cu_attention_mma(&a, r->stream));
    else
        LAUNCH(rr__cu_attention_any(&a, r->stream));
    return quantise_ctx(p, o, r->wide, ld, at->n, x8, ctx);
}

/* The same for the first token of each sequence, whose q lie in r->first_q. */
static rr_status attention_first(const pass *p, const part *at, const rr__cu_linear *o) {
    const int32_t    d = p->w->m->d_model;
    const room       first8 = room_first(p, at->s0);
    void            *q = row(p, p->r->first_q, at->s0);
    rr__cu_attention a = attention_of(p, at, o, q, d, first8.data);

    a.n_tile = at->s;
    LAUNCH(rr__cu_attention_first(&a, q, p->r->stream));
    return RR_OK;
}

/* x += gelu(x W1^T + b1) W2^T + b2, chunk by chunk so that mid fits in r->wide */
static rr_status feed_forward(const pass *p, int32_t layer, const rr__cu_layer *l, char *x, rows in,
                              int32_t n, const float **halves) {
    rr__cu_instance  *r = p->r;
    const int32_t     d = p->w->m->d_model, f = p->w->m->d_ff;
    const rr__cu_type act = p->w->act;
    const int         fp8 = l->f2.type == RR__CU_E4M3;
    const rr__cu_type mid_type = fp8 ? RR__CU_E4M3 : act;
    char             *mid8 = (char *)r->wide + (size_t)r->chunk * f * rr__cu_type_size(act);
    const room        to = {fp8 ? r->wide : mid8, r->mid_scale, r->mid_note};
    rr__cu_watcher   *w = p->watch;

    *halves = NULL;
    for (int32_t at = 0; at < n; at += r->chunk) {
        const int32_t m = n - at < r->chunk ? n - at : r->chunk;
        const size_t  size = rr__cu_type_size(l->f1.type);
        const rows    a = {(const char *)in.data + (size_t)at * in.ld * size, in.ld,
                        in.scale ? in.scale + at : NULL, in.note ? in.note + at : NULL};
        const float   scale = fp8 ? l->f2.in_scale : 1;

        RR__TRY(linear(p, &l->f1, a, m, RR__CU_GELU, mid_type, r->wide, f, 1 / scale));
        RR__TRY(look_piece(p, w ? w->host : NULL, at, m, f, r->wide, f, mid_type, scale));
        if (l->f2.type == RR__CU_S8) {
            const rr__cu_quant q = quant_for(&l->f2, to);

            LAUNCH(rr__cu_quantise_rows(act, r->wide, f, m, f, &q, r->stream));
        }
        RR__TRY(add(p, &l->f2, rows_for(&l->f2, r->wide, f, to), m,
                    x + (size_t)at * d * rr__cu_type_size(act), m == n ? halves : NULL));
    }
    if (w)
        tell(p, layer, "ffn_mid", n, f, w->host);
    return RR_OK;
}

/* What follows attention and the mixing of its heads, for n rows of x: normalise, feed-forward,
 * add, normalise. halves: of o. next: what reads x behind it. */
static rr_status after_attention(const pass *p, int32_t layer, void *x, room x8, int32_t n,
                                 const float *halves, const rr__cu_linear *next) {
    const rr__cu_layer *l = &p->w->layer[layer];
    const int32_t       d = p->w->m->d_model;
    const rr__cu_type   act = p->w->act;
    const float         unscale = 1 / p->w->sum_scale, *before = p->watch ? p->watch->before : NULL;

    RR__TRY(show(p, layer, "attn_out", n, d, x, d, act, unscale, before));
    RR__TRY(layernorm(p, x, x8, n, l->ln1_g, l->ln1_b, &l->f1, &l->o, halves));
    RR__TRY(show(p, layer, "ln1", n, d, x, d, act, 1, NULL));
    RR__TRY(remember(p, x, n));
    RR__TRY(feed_forward(p, layer, l, x, rows_for(&l->f1, x, d, x8), n, &halves));
    RR__TRY(show(p, layer, "ffn_out", n, d, x, d, act, unscale, before));
    RR__TRY(layernorm(p, x, x8, n, l->ln2_g, l->ln2_b, next, &l->f2, halves));
    return show(p, layer, "ln2", n, d, x, d, act, 1, NULL);
}

static rr_status encoder_layer(const pass *p, int32_t layer) {
    rr__cu_instance    *r = p->r;
    const rr__cu_layer *l = &p->w->layer[layer];
    const int32_t       n = p->shape.n, d = p->w->m->d_model;
    const rr__cu_type   act = p->w->act;
    const int           fp8 = l->o.type == RR__CU_E4M3;
    rr__cu_watcher     *w = p->watch;
    const float        *halves = NULL;

    RR__TRY(remember(p, r->x, n));
    for (int i = 0; i < n_part(p); i++) {
        const part at = part_of(p, i);
        const room x8 = room_x(p, at.n0);
        void      *x = row(p, r->x, at.n0);
        rows       ctx = {0};

        RR__TRY(linear(p, &l->qkv, rows_for(&l->qkv, x, d, x8), at.n, RR__CU_BIAS, act, r->wide,
                       3 * d, 1));
        RR__TRY(look_piece(p, w ? w->host : NULL, at.n0, at.n, 3 * d, r->wide, 3 * d, act, 1));
        RR__TRY(attention(p, &at, &l->o, &ctx));
        RR__TRY(look_piece(p, w ? w->ctx : NULL, at.n0, at.n, d, fp8 ? x8.data : r->wide,
                           fp8 ? d : 3 * d, fp8 ? RR__CU_E4M3 : act, fp8 ? l->o.in_scale : 1));
        RR__TRY(add(p, &l->o, ctx, at.n, x, at.n == n ? &halves : NULL));
    }
    if (w) {
        tell(p, layer, "qkv", n, 3 * d, w->host);
        tell(p, layer, "ctx", n, d, w->ctx);
    }
    return after_attention(p, layer, r->x, room_x(p, 0), n, halves, first_of(p->w, layer + 1));
}

/* Of one part of the last layer: the first tokens' x, q, and ctx. */
static rr_status last_part(const pass *p, const rr__cu_layer *l, const part *at) {
    rr__cu_instance  *r = p->r;
    const int32_t     d = p->w->m->d_model;
    const rr__cu_type act = p->w->act;
    const room        x8 = room_x(p, at->n0), first8 = room_first(p, at->s0);
    void             *x = row(p, r->x, at->n0), *first = row(p, r->first, at->s0);

    RR__TRY(linear(p, &l->kv, rows_for(&l->kv, x, d, x8), at->n, RR__CU_BIAS, act,
                   (char *)r->wide + (size_t)d * rr__cu_type_size(act), 3 * d, 1));
    LAUNCH(rr__cu_gather_first(x, first, at->cu, at->s, d * (int32_t)rr__cu_type_size(act),
                               r->stream));
    if (rr__cu_is_8bit(l->q.type)) { /* fp8 without a calibration: what LayerNorm wrote */
        LAUNCH(rr__cu_gather_first(x8.data, first8.data, at->cu, at->s, d, r->stream));
        LAUNCH(rr__cu_gather_first(x8.scale, first8.scale, at->cu, at->s, 4, r->stream));
    }
    RR__TRY(linear(p, &l->q, rows_for(&l->q, first, d, first8), at->s, RR__CU_BIAS, act,
                   row(p, r->first_q, at->s0), d, 1));
    return attention_first(p, at, &l->o);
}

/* The head reads the first token of each sequence: of the others only K and V are needed. */
static rr_status last_layer(const pass *p, int32_t layer) {
    rr__cu_instance    *r = p->r;
    const rr__cu_layer *l = &p->w->layer[layer];
    const int32_t       s = p->shape.s, d = p->w->m->d_model;
    rows                ctx = {0};
    const float        *halves = NULL;

    for (int i = 0; i < n_part(p); i++) {
        const part at = part_of(p, i);

        RR__TRY(last_part(p, l, &at));
    }
    if (l->o.type == RR__CU_E4M3)
        RR__TRY(show(p, layer, "ctx", s, d, r->first8, d, RR__CU_E4M3, l->o.in_scale, NULL));
    else
        RR__TRY(show(p, layer, "ctx", s, d, r->first_q, d, p->w->act, 1, NULL));
    RR__TRY(remember(p, r->first, s));
    RR__TRY(quantise_ctx(p, &l->o, r->first_q, d, s, room_first(p, 0), &ctx));
    RR__TRY(add(p, &l->o, ctx, s, r->first, &halves));
    return after_attention(p, layer, r->first, room_first(p, 0), s, halves, NULL);
}

static rr_status head(const pass *p) {
    rr__cu_instance      *r = p->r;
    const rr__cu_weights *w = p->w;
    const int32_t         s = p->shape.s, d = w->m->d_model;
    rr__cu_head_args      a = {.type = w->act,
                               .rows = s,
                               .d = d,
                               .x = r->first,
                               .w = w->head_w,
                               .b = w->head_b,
                               .out_w = w->out_w,
                               .out_b = w->out_b,
                               .t = r->head,
                               .logits = r->logits};

    LAUNCH(rr__cu_head(&a, r->stream));
    RR__TRY(show(p, -1, "head", s, d, r->head, d, RR__CU_F32, 1, NULL));
    return show(p, -1, "logits", s, 1, r->logits, 1, RR__CU_F32, 1, NULL);
}

rr_status rr__cu_forward(rr__cu_instance *r, const rr__cu_slot *slot, const rr__cu_shape *shape,
                         rr__cu_watcher *watch, rr_error *err) {
    const rr__model     *m = r->w->m;
    const rr__cu_staging in = rr__cu_staging_at(slot->stage_dev, shape);
    const pass           p = {r, r->w, *shape, in, watch, err};

    RR__TRY(embed(&p));
    RR__TRY(show(&p, -1, "emb", shape->n, m->d_model, r->x, m->d_model, r->w->act, 1, NULL));
    for (int32_t l = 0; l < m->n_layer - 1; l++)
        RR__TRY(encoder_layer(&p, l));
    RR__TRY(last_layer(&p, m->n_layer - 1));
    return head(&p);
}
