/* forward.c - the forward pass on the device, the same steps in the same order as
 * src/backend/ref/forward.c.
 *
 * What is fused: embedding + LayerNorm, bias into every GEMM, GELU into the first feed-forward
 * GEMM, the residual add into the two GEMMs that end a sublayer, quantisation into LayerNorm and
 * (fp8) into GELU and attention. The residual stream x is updated in place; ctx takes q's place;
 * mid lies where qkv was. The last layer computes K and V of all tokens, all else of the first
 * token of each sequence. */
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

/* Rows a GEMM reads: 16 or 32 bits, or quantised with a scale each. */
typedef struct rows {
    const void  *data;
    int32_t      ld;
    const float *scale;
} rows;

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

/* Wait, and show `data` [n, cols] stride ld, each value times scale, less `minus` if not NULL. */
static rr_status show(const pass *p, int32_t layer, const char *name, int32_t n, int32_t cols,
                      const void *data, int32_t ld, rr__cu_type type, float scale,
                      const float *minus) {
    rr__cu_watcher *w = p->watch;
    const size_t    size = rr__cu_type_size(type);
    char            full[32], *raw;

    if (!w)
        return RR_OK;
    raw = (char *)(w->host + (size_t)n * cols) - (size_t)n * cols * size; /* widened in place */
    RR__CU_TRY(cudaStreamSynchronize(p->r->stream), p->err);
    RR__CU_TRY(cudaMemcpy2D(raw, (size_t)cols * size, data, (size_t)ld * size, (size_t)cols * size,
                            (size_t)n, cudaMemcpyDeviceToHost),
               p->err);
    for (size_t i = 0; i < (size_t)n * (size_t)cols; i++)
        w->host[i] = element(raw, type, i) * scale - (minus ? minus[i] : 0);
    if (layer >= 0)
        snprintf(full, sizeof full, "%d.%s", (int)layer, name);
    else
        snprintf(full, sizeof full, "%s", name);
    w->fn(w->user, &(rr__activation){full, n, cols, w->host});
    return RR_OK;
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

/* Output rows [first, first + n) of linear layer l: d = epilogue(a W^T + b) */
static rr_status linear(const pass *p, const rr__cu_linear *l, int32_t first, int32_t n, int32_t k,
                        rows a, int32_t m, rr__cu_epilogue epilogue, rr__cu_type out_type, void *d,
                        int32_t ldd, float out_scale) {
    const rr__cu_weights *w = p->w;
    rr__cu_gemm           g = {.type = w->type,
                               .out_type = out_type,
                               .epilogue = epilogue,
                               .m = m,
                               .n = n,
                               .k = k,
                               .a = a.data,
                               .w = (char *)l->w + (size_t)first * k * rr__cu_type_size(w->type),
                               .bias = l->bias + first,
                               .a_scale = a.scale,
                               .w_scale = l->w_scale ? l->w_scale + first : NULL,
                               .residual = epilogue == RR__CU_RESIDUAL ? d : NULL,
                               .d = d,
                               .lda = a.ld,
                               .ldd = ldd,
                               .out_scale = out_scale};

    if (w->sm90 && rr__cu_gemm_sm90_fits(&g))
        LAUNCH(rr__cu_gemm_sm90(&g, p->r->stream));
    else
        LAUNCH(rr__cu_gemm_mma(&g, p->r->stream));
    return RR_OK;
}

static int quantised(const pass *p) {
    return p->w->type == RR__CU_E4M3 || p->w->type == RR__CU_S8;
}

/* What LayerNorm left of x: x itself, or its quantised form. */
static rows normalised(const pass *p, const void *x, const void *x8, const float *scale) {
    const int32_t d = p->w->m->d_model;

    return quantised(p) ? (rows){x8, d, scale} : (rows){x, d, NULL};
}

static rr_status layernorm(const pass *p, void *x, void *x8, float *scale, int32_t n,
                           const float *gamma, const float *beta) {
    const rr__cu_weights *w = p->w;
    rr__cu_norm           a = {.type = w->act,
                               .q_type = w->type,
                               .rows = n,
                               .d = w->m->d_model,
                               .eps = w->m->ln_eps * w->sum_scale * w->sum_scale,
                               .in = x,
                               .gamma = gamma,
                               .beta = beta,
                               .out = x,
                               .q = x8,
                               .q_scale = scale};

    LAUNCH(rr__cu_layernorm(&a, p->r->stream));
    return RR_OK;
}

static rr_status embed(const pass *p) {
    const rr__cu_weights *w = p->w;
    rr__cu_norm           a = {.type = w->act,
                               .q_type = w->type,
                               .rows = p->shape.n,
                               .d = w->m->d_model,
                               .eps = w->m->ln_eps,
                               .gamma = w->emb_g,
                               .beta = w->emb_b,
                               .out = p->r->x,
                               .q = p->r->x8,
                               .q_scale = p->r->x_scale};
    rr__cu_embed          e = {p->in.tok, p->in.pos, w->tok_emb, w->type_emb, w->pos_emb};

    LAUNCH(rr__cu_embed_layernorm(&a, &e, p->r->stream));
    return RR_OK;
}

/* qkv in r->wide to ctx; *ctx says where it lies */
static rr_status attention(const pass *p, const rr__cu_layer *l, rows *ctx) {
    rr__cu_instance *r = p->r;
    const int32_t    d = p->w->m->d_model, h = p->w->m->n_head;
    const int        fp8 = p->w->type == RR__CU_E4M3;
    rr__cu_attention a = {.type = p->w->act,
                          .out_type = fp8 ? RR__CU_E4M3 : p->w->act,
                          .n_head = h,
                          .head_dim = d / h,
                          .n_tile = p->shape.n_tile,
                          .n_row = p->shape.n,
                          .qkv = r->wide,
                          .cu = p->in.cu,
                          .tile = p->in.tile,
                          .ctx = fp8 ? r->x8 : r->wide,
                          .ld_ctx = fp8 ? d : 3 * d,
                          .out_scale = 1 / l->ctx_scale};

    if (p->w->tile_rows == RR__CU_TILE_SM90)
        LAUNCH(rr__cu_attention_sm90(&a, r->stream));
    else if (rr__cu_attention_mma_fits(&a))
        LAUNCH(rr__cu_attention_mma(&a, r->stream));
    else
        LAUNCH(rr__cu_attention_any(&a, r->stream));
    *ctx = (rows){a.ctx, a.ld_ctx, NULL};
    if (p->w->type == RR__CU_S8) {
        LAUNCH(rr__cu_quantise_rows(p->w->act, r->wide, 3 * d, p->shape.n, d, RR__CU_S8, r->x8,
                                    r->x_scale, r->stream));
        *ctx = (rows){r->x8, d, r->x_scale};
    }
    return RR_OK;
}

/* The same for the first token of each sequence, whose q lie in r->first_q. */
static rr_status attention_first(const pass *p, const rr__cu_layer *l, rows *ctx) {
    rr__cu_instance *r = p->r;
    const int32_t    d = p->w->m->d_model, h = p->w->m->n_head;
    const int        fp8 = p->w->type == RR__CU_E4M3;
    rr__cu_attention a = {.type = p->w->act,
                          .out_type = fp8 ? RR__CU_E4M3 : p->w->act,
                          .n_head = h,
                          .head_dim = d / h,
                          .n_tile = p->shape.s,
                          .qkv = r->wide,
                          .cu = p->in.cu,
                          .ctx = fp8 ? r->first8 : r->first_q,
                          .ld_ctx = d,
                          .out_scale = 1 / l->ctx_scale};

    LAUNCH(rr__cu_attention_first(&a, r->first_q, r->stream));
    *ctx = (rows){a.ctx, d, NULL};
    if (p->w->type == RR__CU_S8) {
        LAUNCH(rr__cu_quantise_rows(p->w->act, r->first_q, d, p->shape.s, d, RR__CU_S8, r->first8,
                                    r->first_scale, r->stream));
        *ctx = (rows){r->first8, d, r->first_scale};
    }
    return RR_OK;
}

/* x += gelu(x W1^T + b1) W2^T + b2, chunk by chunk so that mid fits in r->wide */
static rr_status feed_forward(const pass *p, int32_t layer, const rr__cu_layer *l, char *x, rows in,
                              int32_t n) {
    rr__cu_instance  *r = p->r;
    const int32_t     d = p->w->m->d_model, f = p->w->m->d_ff;
    const rr__cu_type type = p->w->type, act = p->w->act;
    const rr__cu_type mid_type = type == RR__CU_E4M3 ? type : act;
    char             *mid8 = (char *)r->wide + (size_t)r->chunk * f * rr__cu_type_size(act);

    for (int32_t at = 0; at < n; at += r->chunk) {
        int32_t m = n - at < r->chunk ? n - at : r->chunk;
        rows    a = {(const char *)in.data + (size_t)at * in.ld * rr__cu_type_size(type), in.ld,
                  in.scale ? in.scale + at : NULL};
        rows    mid = {r->wide, f, NULL};

        RR__TRY(
            linear(p, &l->f1, 0, f, d, a, m, RR__CU_GELU, mid_type, r->wide, f, 1 / l->mid_scale));
        if (n <= r->chunk)
            RR__TRY(show(p, layer, "ffn_mid", m, f, r->wide, f, mid_type, l->mid_scale, NULL));
        if (type == RR__CU_S8) {
            LAUNCH(
                rr__cu_quantise_rows(act, r->wide, f, m, f, type, mid8, r->mid_scale, r->stream));
            mid = (rows){mid8, f, r->mid_scale};
        }
        RR__TRY(linear(p, &l->f2, 0, d, f, mid, m, RR__CU_RESIDUAL, act,
                       x + (size_t)at * d * rr__cu_type_size(act), d, p->w->sum_scale));
    }
    return RR_OK;
}

/* What follows attention, for n rows: mix, add, normalise, feed-forward, add, normalise. */
static rr_status after_attention(const pass *p, int32_t layer, rows ctx, void *x, void *x8,
                                 float *scale, int32_t n) {
    const rr__cu_layer *l = &p->w->layer[layer];
    const int32_t       d = p->w->m->d_model;
    const rr__cu_type   act = p->w->act;
    const float         unscale = 1 / p->w->sum_scale, *before = p->watch ? p->watch->before : NULL;

    RR__TRY(remember(p, x, n));
    RR__TRY(linear(p, &l->o, 0, d, d, ctx, n, RR__CU_RESIDUAL, act, x, d, p->w->sum_scale));
    RR__TRY(show(p, layer, "attn_out", n, d, x, d, act, unscale, before));
    RR__TRY(layernorm(p, x, x8, scale, n, l->ln1_g, l->ln1_b));
    RR__TRY(show(p, layer, "ln1", n, d, x, d, act, 1, NULL));
    RR__TRY(remember(p, x, n));
    RR__TRY(feed_forward(p, layer, l, x, normalised(p, x, x8, scale), n));
    RR__TRY(show(p, layer, "ffn_out", n, d, x, d, act, unscale, before));
    RR__TRY(layernorm(p, x, x8, scale, n, l->ln2_g, l->ln2_b));
    return show(p, layer, "ln2", n, d, x, d, act, 1, NULL);
}

static rr_status encoder_layer(const pass *p, int32_t layer) {
    rr__cu_instance    *r = p->r;
    const rr__cu_layer *l = &p->w->layer[layer];
    const int32_t       n = p->shape.n, d = p->w->m->d_model;
    const rr__cu_type   act = p->w->act;
    rows                ctx = {0};

    RR__TRY(linear(p, &l->qkv, 0, 3 * d, d, normalised(p, r->x, r->x8, r->x_scale), n, RR__CU_BIAS,
                   act, r->wide, 3 * d, 1));
    RR__TRY(show(p, layer, "qkv", n, 3 * d, r->wide, 3 * d, act, 1, NULL));
    RR__TRY(attention(p, l, &ctx));
    if (p->w->type == RR__CU_E4M3)
        RR__TRY(show(p, layer, "ctx", n, d, r->x8, d, RR__CU_E4M3, l->ctx_scale, NULL));
    else
        RR__TRY(show(p, layer, "ctx", n, d, r->wide, 3 * d, act, 1, NULL));
    return after_attention(p, layer, ctx, r->x, r->x8, r->x_scale, n);
}

/* The head reads the first token of each sequence: of the others only K and V are needed. */
static rr_status last_layer(const pass *p, int32_t layer) {
    rr__cu_instance    *r = p->r;
    const rr__cu_layer *l = &p->w->layer[layer];
    const int32_t       n = p->shape.n, s = p->shape.s, d = p->w->m->d_model;
    const rr__cu_type   act = p->w->act;
    rows                ctx = {0};

    RR__TRY(linear(p, &l->qkv, d, 2 * d, d, normalised(p, r->x, r->x8, r->x_scale), n, RR__CU_BIAS,
                   act, (char *)r->wide + (size_t)d * rr__cu_type_size(act), 3 * d, 1));
    LAUNCH(rr__cu_gather_first(r->x, r->first, p->in.cu, s, d * (int32_t)rr__cu_type_size(act),
                               r->stream));
    if (quantised(p)) {
        LAUNCH(rr__cu_gather_first(r->x8, r->first8, p->in.cu, s, d, r->stream));
        LAUNCH(rr__cu_gather_first(r->x_scale, r->first_scale, p->in.cu, s, 4, r->stream));
    }
    RR__TRY(linear(p, &l->qkv, 0, d, d, normalised(p, r->first, r->first8, r->first_scale), s,
                   RR__CU_BIAS, act, r->first_q, d, 1));
    RR__TRY(attention_first(p, l, &ctx));
    return after_attention(p, layer, ctx, r->first, r->first8, r->first_scale, s);
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

rr_status rr__cu_forward(rr__cu_instance *r, const rr__cu_shape *shape, rr__cu_watcher *watch,
                         rr_error *err) {
    const rr__model *m = r->w->m;
    const pass       p = {r, r->w, *shape, rr__cu_staging_at(r->stage_dev, shape), watch, err};

    RR__TRY(embed(&p));
    RR__TRY(show(&p, -1, "emb", shape->n, m->d_model, r->x, m->d_model, r->w->act, 1, NULL));
    for (int32_t l = 0; l < m->n_layer - 1; l++)
        RR__TRY(encoder_layer(&p, l));
    RR__TRY(last_layer(&p, m->n_layer - 1));
    return head(&p);
}
