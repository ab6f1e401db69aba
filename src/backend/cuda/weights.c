/* weights.c - the model on a device: one allocation, filled from the mapped file.
 *
 * A walk over all tensors runs twice, first with no memory to add up the bytes, then to place them.
 * Bytes travel as the file stores them, 64 MB at a time; the device converts or quantises. For fp8
 * the scales of ctx and mid come from bounds (convert.cu) and go into the scales of the weights
 * that read them. */
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

/* n matrices [out, in] with their biases, one under the other, as one linear layer. */
static rr_status linear(loader *l, const rr__tensor *const w[], const rr__tensor *const b[], int n,
                        rr__cu_linear *to) {
    const rr__cu_type type = l->w->type;
    const size_t      out = (size_t)w[0]->shape[0], in = (size_t)w[0]->shape[1];
    const int         quantised = type == RR__CU_E4M3 || type == RR__CU_S8;
    rr_status         s = RR_OK;

    to->w = place(l, (size_t)n * out * in * rr__cu_type_size(type));
    to->bias = place(l, (size_t)n * out * sizeof(float));
    to->w_scale = quantised ? place(l, (size_t)n * out * sizeof(float)) : NULL;
    for (int i = 0; l->base && i < n && s == RR_OK; i++) {
        char *dst = (char *)to->w + (size_t)i * out * in * rr__cu_type_size(type);

        s = upload(l, b[i], to->bias + (size_t)i * out, RR__CU_F32);
        if (s == RR_OK && !quantised)
            s = upload(l, w[i], dst, type);
        if (s != RR_OK || !quantised)
            continue;
        RR__CU_TRY(cudaMemcpy(l->scratch, w[i]->data, w[i]->bytes, cudaMemcpyHostToDevice), l->err);
        RR__CU_TRY(rr__cu_quantise_weight(l->scratch, type_of(w[i]), (int32_t)out, (int32_t)in, dst,
                                          type, to->w_scale + (size_t)i * out, NULL),
                   l->err);
    }
    return s;
}

/* *scale = the power of two from the largest magnitude w can give behind LayerNorm (g, b), over
 * E4M3's 448, on: dividing by it rounds nothing. */
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
    *scale = exp2f(ceilf(log2f(top / 448)));
    return s;
}

/* scale[i] *= by, n values on the device */
static rr_status rescale(loader *l, float *scale, int32_t n, float by) {
    float    *host;
    rr_status s = RR_OK;

    if (!l->base)
        return RR_OK;
    host = malloc((size_t)n * sizeof *host);
    if (!host)
        return rr__fail(l->err, RR_E_NOMEM, "cuda: out of memory");
    if (cudaMemcpy(host, scale, (size_t)n * sizeof *host, cudaMemcpyDeviceToHost) != cudaSuccess)
        s = rr__cu_fail(l->err, cudaGetLastError(), "cudaMemcpy", __FILE__, __LINE__);
    for (int32_t i = 0; i < n; i++)
        host[i] *= by;
    if (s == RR_OK &&
        cudaMemcpy(scale, host, (size_t)n * sizeof *host, cudaMemcpyHostToDevice) != cudaSuccess)
        s = rr__cu_fail(l->err, cudaGetLastError(), "cudaMemcpy", __FILE__, __LINE__);
    free(host);
    return s;
}

/* before_g, before_b: the LayerNorm the layer's input comes from */
static rr_status layer(loader *l, const rr__layer *p, const float *before_g, const float *before_b,
                       rr__cu_layer *to) {
    const int32_t           d = l->w->m->d_model;
    const rr__tensor *const w[] = {&p->wq, &p->wk, &p->wv}, *const b[] = {&p->bq, &p->bk, &p->bv};
    const rr__tensor *const wo = &p->wo, *const bo = &p->bo, *const w1 = &p->w1, *const b1 = &p->b1;
    const rr__tensor *const w2 = &p->w2, *const b2 = &p->b2;

    RR__TRY(linear(l, w, b, 3, &to->qkv));
    RR__TRY(linear(l, &wo, &bo, 1, &to->o));
    RR__TRY(linear(l, &w1, &b1, 1, &to->f1));
    RR__TRY(linear(l, &w2, &b2, 1, &to->f2));
    RR__TRY(floats(l, &p->ln1_g, &to->ln1_g));
    RR__TRY(floats(l, &p->ln1_b, &to->ln1_b));
    RR__TRY(floats(l, &p->ln2_g, &to->ln2_g));
    RR__TRY(floats(l, &p->ln2_b, &to->ln2_b));
    to->ctx_scale = to->mid_scale = 1;
    if (l->w->type != RR__CU_E4M3)
        return RR_OK;
    RR__TRY(bound(l, &p->wv, before_g, before_b, to->qkv.bias + 2 * (size_t)d, &to->ctx_scale));
    RR__TRY(bound(l, &p->w1, to->ln1_g, to->ln1_b, to->f1.bias, &to->mid_scale));
    to->mid_scale = fminf(fmaxf(to->mid_scale, RR__CU_GELU_LEAST), RR__CU_GELU_MOST);
    RR__TRY(rescale(l, to->o.w_scale, d, to->ctx_scale));
    return rescale(l, to->f2.w_scale, d, to->mid_scale);
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
        RR__TRY(layer(l, &m->layer[i], g, b, &w->layer[i]));
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
    w->sum_scale = w->act == RR__CU_F16 ? 1.0f / 64 : 1;
    if (w->type == RR__CU_E4M3 && w->sm < 89)
        return rr__fail(err, RR_E_UNSUPPORTED,
                        "cuda: %s has no fp8 (compute capability 8.9 or newer); use fp16 or int8",
                        w->device_name);
    return RR_OK;
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
