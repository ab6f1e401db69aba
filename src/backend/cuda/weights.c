/* weights.c - the model on a device: one allocation, filled from the mapped file.
 *
 * A walk over all tensors runs twice, first with no memory to add up the bytes, then to place
 * them. Bytes travel as the file stores them, 64 MB at a time; the device converts or quantises.
 *
 * Which products are quantised: all in fp8; in int8, and by a calibration, all that it does not
 * keep in float but the last layer's query, output and feed-forward, which see one row of a
 * sequence and cost nothing in 16 bits (the rule of cpu/weights.c). The scale of a product's rows
 * is constant where the calibration has one, and for what attention and GELU write in fp8, from a
 * bound (convert.cu); constants go into the scales of the weights. */
#include "backend/cuda/cuda.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SCRATCH = 64 << 20, ALIGN = 256 };

typedef struct loader {
    rr__cu_weights *w;
    char           *base; /* NULL on the first walk */
    size_t          used;
    char           *scratch; /* [SCRATCH] on the device */
    float          *bound;   /* [max(d, f)] on the device, in scratch's allocation */
    rr_error       *err;
} loader;

static void *place(loader *l, size_t bytes) {
    char *p = l->base ? l->base + l->used : NULL;

    l->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

static rr__cu_type type_of(const rr__tensor *t) {
    return t->dtype == RR__DT_F32 ? RR__CU_F32 : t->dtype == RR__DT_F16 ? RR__CU_F16 : RR__CU_BF16;
}

static size_t count(const rr__tensor *t) {
    size_t n = 1;

    for (int i = 0; i < t->rank; i++)
        n *= (size_t)t->shape[i];
    return n;
}

/* Values [0, n) of t as `type` at dst, piece by piece through the scratch. */
static rr_status upload(loader *l, const rr__tensor *t, void *dst, rr__cu_type type) {
    const size_t n = count(t), size = rr__dtype_size(t->dtype), most = SCRATCH / size;

    for (size_t at = 0; l->base && at < n; at += most) {
        size_t part = n - at < most ? n - at : most;

        RR__CU_TRY(cudaMemcpy(l->scratch, (const char *)t->data + at * size, part * size,
                              cudaMemcpyHostToDevice),
                   l->err);
        RR__CU_TRY(rr__cu_convert(l->scratch, type_of(t), (char *)dst + at * rr__cu_type_size(type),
                                  type, part, NULL),
                   l->err);
    }
    return RR_OK;
}

static rr_status tensor(loader *l, const rr__tensor *t, rr__cu_type type, void **out) {
    *out = place(l, count(t) * rr__cu_type_size(type));
    return upload(l, t, *out, type);
}

static rr_status floats(loader *l, const rr__tensor *t, float **out) {
    void     *p = NULL;
    rr_status s = tensor(l, t, RR__CU_F32, &p);

    *out = p;
    return s;
}

/* How one product is computed; cal: the calibration's part in it, if it is quantised and there is
 * one. */
typedef struct how {
    rr__cu_type           type;
    const rr__calibrated *cal;
} how;

static how how_of(const rr__cu_weights *w, int32_t layer, const char *role, int first_rows) {
    const rr__calibration *c = w->opts.calibration;
    const int              last = layer + 1 == w->m->n_layer;
    const rr__calibrated  *p = NULL;
    char                   name[24];

    if (c) {
        snprintf(name, sizeof name, "%d.%s", (int)layer, role);
        p = rr__calibration_find(c, name); /* it is there: the calibration fits */
    }
    if (!rr__cu_is_8bit(w->type) || (p && p->keep_float) ||
        (last && first_rows && (p || w->type == RR__CU_S8)))
        return (how){w->act, NULL};
    return (how){w->type, p};
}

/* The smoothing of to's rows, if there is one. */
static rr_status smoothing(loader *l, const float *smooth, rr__cu_linear *to) {
    float    *inv;
    rr_status s = RR_OK;

    to->inv_smooth = smooth ? place(l, (size_t)to->k * sizeof(float)) : NULL;
    if (!l->base || !smooth)
        return RR_OK;
    inv = malloc((size_t)to->k * sizeof *inv);
    if (!inv)
        return rr__fail(l->err, RR_E_NOMEM, "cuda: out of memory");
    for (int32_t i = 0; i < to->k; i++)
        inv[i] = 1 / smooth[i];
    if (cudaMemcpy(to->inv_smooth, inv, (size_t)to->k * sizeof *inv, cudaMemcpyHostToDevice) !=
        cudaSuccess)
        s = rr__cu_fail(l->err, cudaGetLastError(), "cudaMemcpy", __FILE__, __LINE__);
    free(inv);
    return s;
}

/* n matrices [out, in] with their biases, one under the other, as one linear layer. */
static rr_status linear(loader *l, const rr__tensor *const w[], const rr__tensor *const b[], int n,
                        how h, rr__cu_linear *to) {
    const rr__calibration *c = l->w->opts.calibration;
    const size_t           out = (size_t)w[0]->shape[0], in = (size_t)w[0]->shape[1];
    const int              quantised = rr__cu_is_8bit(h.type);
    rr_status              s = RR_OK;

    to->type = h.type;
    to->n = n * (int32_t)out, to->k = (int32_t)in;
    to->w = place(l, (size_t)n * out * in * rr__cu_type_size(h.type));
    to->bias = place(l, (size_t)n * out * sizeof(float));
    to->w_scale = quantised ? place(l, (size_t)n * out * sizeof(float)) : NULL;
    to->in_scale = quantised ? 0 : 1;
    if (h.cal && !c->per_token)
        to->in_scale = h.cal->amax / (h.type == RR__CU_E4M3 ? 448 : 127);
    RR__TRY(smoothing(l, h.cal ? h.cal->smooth : NULL, to));
    for (int i = 0; l->base && i < n && s == RR_OK; i++) {
        char *dst = (char *)to->w + (size_t)i * out * in * rr__cu_type_size(h.type);

        s = upload(l, b[i], to->bias + (size_t)i * out, RR__CU_F32);
        if (s == RR_OK && !quantised)
            s = upload(l, w[i], dst, h.type);
        if (s != RR_OK || !quantised)
            continue;
        RR__CU_TRY(cudaMemcpy(l->scratch, w[i]->data, w[i]->bytes, cudaMemcpyHostToDevice), l->err);
        RR__CU_TRY(rr__cu_quantise_weight(l->scratch, type_of(w[i]), (int32_t)out, (int32_t)in,
                                          to->inv_smooth, dst, h.type,
                                          to->w_scale + (size_t)i * out, NULL),
                   l->err);
    }
    return s;
}

/* *scale = the largest magnitude w can give behind LayerNorm (g, b), over E4M3's 448 */
static rr_status bound(loader *l, const rr__tensor *w, const float *g, const float *b,
                       const float *bias, float *scale) {
    const int32_t out = (int32_t)w->shape[0], in = (int32_t)w->shape[1];
    float        *host, top = 1e-12f;
    rr_status     s = RR_OK;
    cudaError_t   e;

    if (!l->base)
        return RR_OK;
    host = malloc((size_t)out * sizeof *host);
    if (!host)
        return rr__fail(l->err, RR_E_NOMEM, "cuda: out of memory");
    e = cudaMemcpy(l->scratch, w->data, w->bytes, cudaMemcpyHostToDevice);
    if (e == cudaSuccess)
        e = rr__cu_bound_rows(l->scratch, type_of(w), out, in, g, b, bias, l->bound, NULL);
    if (e == cudaSuccess)
        e = cudaMemcpy(host, l->bound, (size_t)out * sizeof *host, cudaMemcpyDeviceToHost);
    if (e != cudaSuccess)
        s = rr__cu_fail(l->err, e, "bound", __FILE__, __LINE__);
    for (int32_t i = 0; s == RR_OK && i < out; i++)
        top = host[i] > top ? host[i] : top;
    free(host);
    *scale = top / 448;
    return s;
}

/* A scale of all of to's rows goes into its weights' scales. */
static rr_status fold(loader *l, const rr__cu_linear *to) {
    const size_t bytes = (size_t)to->n * sizeof(float);
    float       *host;
    rr_status    s = RR_OK;

    if (!l->base || !to->w_scale || to->in_scale == 0)
        return RR_OK;
    host = malloc(bytes);
    if (!host)
        return rr__fail(l->err, RR_E_NOMEM, "cuda: out of memory");
    if (cudaMemcpy(host, to->w_scale, bytes, cudaMemcpyDeviceToHost) != cudaSuccess)
        s = rr__cu_fail(l->err, cudaGetLastError(), "cudaMemcpy", __FILE__, __LINE__);
    for (int32_t i = 0; s == RR_OK && i < to->n; i++)
        host[i] *= to->in_scale;
    if (s == RR_OK && cudaMemcpy(to->w_scale, host, bytes, cudaMemcpyHostToDevice) != cudaSuccess)
        s = rr__cu_fail(l->err, cudaGetLastError(), "cudaMemcpy", __FILE__, __LINE__);
    free(host);
    return s;
}

/* before_g, before_b: the LayerNorm the layer's input comes from */
static rr_status layer(loader *l, int32_t i, const float *before_g, const float *before_b) {
    const rr__cu_weights   *w = l->w;
    const rr__layer        *p = &w->m->layer[i];
    rr__cu_layer           *to = &w->layer[i];
    const int               last = i + 1 == w->m->n_layer;
    const rr__tensor *const ws[] = {&p->wq, &p->wk, &p->wv}, *const bs[] = {&p->bq, &p->bk, &p->bv};
    const rr__tensor *const wo = &p->wo, *const bo = &p->bo, *const w1 = &p->w1, *const b1 = &p->b1;
    const rr__tensor *const w2 = &p->w2, *const b2 = &p->b2;
    const how    qkv = how_of(w, i, "qkv", 0);
    const float *bv;

    if (last) {
        RR__TRY(linear(l, ws, bs, 1, how_of(w, i, "qkv", 1), &to->q));
        RR__TRY(linear(l, ws + 1, bs + 1, 2, qkv, &to->kv));
    } else {
        RR__TRY(linear(l, ws, bs, 3, qkv, &to->qkv));
    }
    RR__TRY(linear(l, &wo, &bo, 1, how_of(w, i, "out", 1), &to->o));
    RR__TRY(linear(l, &w1, &b1, 1, how_of(w, i, "ffn1", 1), &to->f1));
    RR__TRY(linear(l, &w2, &b2, 1, how_of(w, i, "ffn2", 1), &to->f2));
    to->o.backward = to->f1.backward = 1;
    RR__TRY(floats(l, &p->ln1_g, &to->ln1_g));
    RR__TRY(floats(l, &p->ln1_b, &to->ln1_b));
    RR__TRY(floats(l, &p->ln2_g, &to->ln2_g));
    RR__TRY(floats(l, &p->ln2_b, &to->ln2_b));
    bv = last ? to->kv.bias + w->m->d_model : to->qkv.bias + 2 * (size_t)w->m->d_model;
    if (to->o.type == RR__CU_E4M3 && to->o.in_scale == 0)
        RR__TRY(bound(l, &p->wv, before_g, before_b, bv, &to->o.in_scale));
    if (to->f2.type == RR__CU_E4M3 && to->f2.in_scale == 0)
        RR__TRY(bound(l, &p->w1, to->ln1_g, to->ln1_b, to->f1.bias, &to->f2.in_scale));
    if (to->f2.type == RR__CU_E4M3) /* also what a file says: GELU multiplies by it in fp16 */
        to->f2.in_scale =
            fminf(fmaxf(exp2f(ceilf(log2f(to->f2.in_scale))), RR__CU_GELU_LEAST), RR__CU_GELU_MOST);
    RR__TRY(fold(l, last ? &to->kv : &to->qkv));
    RR__TRY(fold(l, &to->o));
    RR__TRY(fold(l, &to->f1));
    return fold(l, &to->f2);
}

/* What forward and instances must know of the products as a whole. */
static void sum_up(rr__cu_weights *w) {
    const rr__calibration *c = w->opts.calibration;
    const size_t           e = rr__cu_type_size(w->act);

    w->notes = w->type == RR__CU_S8 && !(c && !c->per_token);
    w->mid_size = 1;
    for (int32_t i = 0; i < w->m->n_layer; i++) {
        const rr__cu_type t = w->layer[i].f2.type;
        const size_t      size = t == RR__CU_E4M3 ? 1 : t == RR__CU_S8 ? e + 1 : e;

        w->mid_size = w->mid_size > size ? w->mid_size : size;
    }
}

static rr_status walk(loader *l) {
    rr__cu_weights  *w = l->w;
    const rr__model *m = w->m;
    const float     *g, *b;

    l->used = 0;
    RR__TRY(tensor(l, &m->tok_emb, w->act, &w->tok_emb));
    RR__TRY(tensor(l, &m->pos_emb, w->act, &w->pos_emb));
    RR__TRY(tensor(l, &m->type_emb, w->act, &w->type_emb));
    RR__TRY(floats(l, &m->emb_g, &w->emb_g));
    RR__TRY(floats(l, &m->emb_b, &w->emb_b));
    g = w->emb_g, b = w->emb_b;
    for (int32_t i = 0; i < m->n_layer; i++) {
        RR__TRY(layer(l, i, g, b));
        g = w->layer[i].ln2_g, b = w->layer[i].ln2_b;
    }
    RR__TRY(floats(l, &m->head_w, &w->head_w));
    RR__TRY(floats(l, &m->head_b, &w->head_b));
    RR__TRY(floats(l, &m->out_w, &w->out_w));
    return floats(l, &m->out_b, &w->out_b);
}

/* The kernels' limits, named. */
static rr_status check_model(const rr__model *m, rr_error *err) {
    const int32_t c = m->d_model / m->n_head;

    if (m->d_model > RR__CU_MAX_WIDTH || m->d_model % 16 || m->d_ff % 16)
        return rr__fail(err, RR_E_UNSUPPORTED,
                        "cuda: hidden_size %d and intermediate_size %d must be multiples of 16, "
                        "the first at most %d",
                        (int)m->d_model, (int)m->d_ff, RR__CU_MAX_WIDTH);
    if (c != 16 && c != 32 && c != 64)
        return rr__fail(err, RR_E_UNSUPPORTED, "cuda: heads are %d wide; 16, 32 and 64 are built",
                        (int)c);
    if ((uint64_t)m->d_model * (uint64_t)m->d_ff * 4 > SCRATCH)
        return rr__fail(err, RR_E_UNSUPPORTED, "cuda: a matrix of %d x %d is too large",
                        (int)m->d_ff, (int)m->d_model);
    return RR_OK;
}

/* fp8 rows go straight from GELU's kernel to the next, which knows one scale, not one a column. */
static rr_status check_calibration(const rr__cu_weights *w, rr_error *err) {
    const rr__calibration *c = w->opts.calibration;

    for (size_t i = 0; c && w->type == RR__CU_E4M3 && i < c->n; i++)
        if (c->product[i].smooth && !c->product[i].keep_float)
            return rr__fail(err, RR_E_UNSUPPORTED,
                            "cuda: fp8 takes no smoothed calibration, and %s is smoothed; "
                            "calibrate without --smooth, or use --precision int8",
                            c->product[i].name);
    return RR_OK;
}

static rr_status set_precision(rr__cu_weights *w, rr_error *err) {
    w->precision = w->opts.precision == RR__AUTO ? RR__FP16 : w->opts.precision;
    switch (w->precision) {
    case RR__FP32:
        w->act = w->type = RR__CU_F32;
        break;
    case RR__BF16:
        w->act = w->type = RR__CU_BF16;
        break;
    case RR__FP16:
        w->act = w->type = RR__CU_F16;
        break;
    case RR__INT8:
        w->act = RR__CU_F16, w->type = RR__CU_S8;
        break;
    default:
        w->act = RR__CU_F16, w->type = RR__CU_E4M3;
        break;
    }
    if (w->opts.calibration && w->opts.calibration->exact)
        w->act = RR__CU_F32;
    w->sum_scale = w->act == RR__CU_F16 ? 1.0f / 64 : 1;
    if (w->type == RR__CU_E4M3 && w->sm < 89)
        return rr__fail(err, RR_E_UNSUPPORTED,
                        "cuda: %s has no fp8 (compute capability 8.9 or newer); use fp16 or int8",
                        w->device_name);
    return check_calibration(w, err);
}

/* Do the weights and one instance fit in what is allowed and in what is free? */
static rr_status check_memory(const rr__cu_weights *w, size_t bytes, rr_error *err) {
    size_t room = 0, total = 0, instance = rr__cu_instance_bytes(w);

    RR__CU_TRY(cudaMemGetInfo(&room, &total), err);
    if (w->opts.memory_limit && w->opts.memory_limit < room)
        room = (size_t)w->opts.memory_limit;
    if (bytes + instance <= room)
        return RR_OK;
    return rr__fail(err, RR_E_NOMEM,
                    "cuda: %.0f MB of weights and %.0f MB an instance (%d tokens) do not fit in "
                    "the %.0f MB %s; lower max_batch_tokens or use fp8",
                    bytes / 1e6, instance / 1e6, (int)w->opts.max_batch_tokens, room / 1e6,
                    w->opts.memory_limit && w->opts.memory_limit <= room ? "allowed" : "free");
}

static rr_status fill(rr__cu_weights *w, rr_error *err) {
    const rr__model *m = w->m;
    loader           l = {.w = w, .err = err};
    rr_status        s;

    RR__TRY(walk(&l));
    sum_up(w);
    RR__TRY(check_memory(w, l.used, err));
    RR__CU_TRY(cudaMalloc((void **)&w->base, l.used), err);
    w->bytes = l.used;
    l.base = w->base;
    RR__CU_TRY(
        cudaMalloc((void **)&l.scratch, SCRATCH + (size_t)(m->d_ff + m->d_model) * sizeof(float)),
        err);
    l.bound = (float *)(l.scratch + SCRATCH);
    s = walk(&l);
    if (s == RR_OK && cudaDeviceSynchronize() != cudaSuccess)
        s = rr__cu_fail(err, cudaGetLastError(), "load", __FILE__, __LINE__);
    cudaFree(l.scratch);
    return s;
}

rr_status rr__cu_load(const rr__model *m, const rr__backend_opts *o, void **weights,
                      rr_error *err) {
    rr__cu_weights *w = calloc(1, sizeof *w);
    rr_status       s;

    if (!w)
        return rr__fail(err, RR_E_NOMEM, "cuda: out of memory");
    w->m = m;
    w->opts = *o;
    w->layer = calloc((size_t)m->n_layer, sizeof *w->layer);
    s = w->layer ? rr__cu_device(o->device, &w->sm, w->device_name, err)
                 : rr__fail(err, RR_E_NOMEM, "cuda: out of memory");
    if (s == RR_OK)
        s = check_model(m, err);
    if (s == RR_OK)
        s = set_precision(w, err);
    w->sm90 = w->sm == 90;
    w->tile_rows = RR__CU_TILE_MMA;
    if (w->sm90 && m->d_model == 64 * m->n_head && (w->act == RR__CU_F16 || w->act == RR__CU_BF16))
        w->tile_rows = RR__CU_TILE_SM90;
    if (s == RR_OK && cudaSetDevice(o->device) != cudaSuccess)
        s = rr__cu_fail(err, cudaGetLastError(), "cudaSetDevice", __FILE__, __LINE__);
    if (s == RR_OK)
        s = fill(w, err);
    w->opts.calibration = NULL; /* not ours to keep */
    if (s != RR_OK) {
        rr__cu_unload(w);
        return s;
    }
    *weights = w;
    return RR_OK;
}

void rr__cu_unload(void *weights) {
    rr__cu_weights *w = weights;

    if (!w)
        return;
    if (w->base) {
        cudaSetDevice(w->opts.device);
        cudaFree(w->base);
    }
    free(w->layer);
    free(w);
}
