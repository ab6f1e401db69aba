/* export.c - an rr__model as an ONNX graph with dynamic batch and sequence axes.
 *
 * The steps and their names are those of docs/MODEL.md and of every backend's forward pass, so the
 * named tensors ("3.ln1", "3.ffn_mid") can be compared across runtimes. Letters: b batch, s
 * sequence, d, f, h as in model.h, e = d / h. Operators by opset:
 *   LayerNormalization from 17, else its formula in fp32; Gelu from 20, else x/2 (1 + erf(x/√2)).
 * Quantized products are QuantizeLinear -> DequantizeLinear before MatMul on both sides, per tensor
 * for the input (calibrated) and per output channel for the weight, the form that TensorRT and ONNX
 * Runtime fuse into an integer or fp8 matrix product. */
#include "onnx/graph.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct exporter {
    rr__graph           *g;
    const rr__model     *m;
    const rr__onnx_opts *o;
    int                  type; /* ONNX type of weights and activations */
    const char          *mask; /* [b, 1, 1, s] added to attention scores */
    rr_error            *err;
    rr_status            status;
    /* shared constants */
    const char *eps, *half, *one, *sqrt2, *scale, *qkv_shape, *ctx_shape;
} exporter;

static const char *fmt(exporter *x, int layer, const char *name) {
    return layer < 0 ? name : rr__graph_name(x->g, "%d.%s", layer, name);
}

static const char *constant(exporter *x, const char *name, float v) {
    return rr__graph_floats(x->g, name, x->type, &v, 1, 0);
}

/* A vector or table weight as it is. */
static const char *weight(exporter *x, const rr__tensor *t, const char *name) {
    rr__weight *w = rr__graph_weight(x->g, name, x->type, t->rank, t->shape);

    w->src[0] = t;
    w->n_src = 1;
    return name;
}

/* The largest magnitude of each output channel over the stacked sources, smoothed, divided by
 * limit: [out] floats in the arena. */
static float *channel_scales(exporter *x, const rr__tensor *const *src, int n_src, int64_t rows,
                             int64_t cols, const float *smooth, float limit) {
    float *scale = rr__arena_alloc(&x->g->arena, (size_t)rows * sizeof *scale);
    float *row = malloc((size_t)cols * sizeof *row);
    size_t at = 0;

    for (int s = 0; scale && row && s < n_src; s++)
        for (int64_t r = 0; r < src[s]->shape[0]; r++, at++) {
            float amax = 0;

            rr__tensor_f32(src[s], (size_t)(r * cols), (size_t)cols, row);
            for (int64_t c = 0; c < cols; c++)
                amax = fmaxf(amax, fabsf(smooth ? row[c] * smooth[c] : row[c]));
            scale[at] = amax > 0 ? amax / limit : 1;
        }
    if (!scale || !row)
        x->g->status = RR_E_NOMEM;
    free(row);
    return scale;
}

static const rr__onnx_scale *scale_of(const exporter *x, const char *product) {
    for (size_t i = 0; i < x->o->n_scale; i++)
        if (strcmp(x->o->scale[i].name, product) == 0)
            return &x->o->scale[i];
    return NULL;
}

/* in -> Q -> DQ with one calibrated scale. */
static const char *fake_quantize(exporter *x, const char *in, const char *product, float scale) {
    rr__graph  *g = x->g;
    const char *zero =
        rr__graph_zeros(g, rr__graph_name(g, "%s.in_zero", product),
                        x->o->quant == RR__ONNX_INT8 ? ONNX_INT8 : ONNX_FLOAT8E4M3FN, 0);
    const char *s =
        rr__graph_floats(g, rr__graph_name(g, "%s.in_scale", product), x->type, &scale, 1, 0);
    const char *q =
        rr__graph_op(g, "QuantizeLinear", rr__graph_name(g, "%s.in_q", product), in, s, zero);

    return rr__graph_op(g, "DequantizeLinear", rr__graph_name(g, "%s.in_dq", product), q, s, zero);
}

/* out = in W^T + b for the stacked rows of up to three weights; quantized where asked. */
static const char *linear(exporter *x, int layer, const char *product, const char *out,
                          const char *in, const rr__tensor *const *w, const rr__tensor *const *b,
                          int n_src) {
    rr__graph            *g = x->g;
    const char           *p = fmt(x, layer, product), *wname = rr__graph_name(g, "%s.weight", p);
    const char           *bname = rr__graph_name(g, "%s.bias", p), *y;
    const rr__onnx_scale *s = x->o->quant == RR__ONNX_FLOAT ? NULL : scale_of(x, p);
    int64_t               dims[2] = {w[0]->shape[1], 0}; /* [in, out] */
    int                   quantized = x->o->quant != RR__ONNX_FLOAT && !(s && s->keep_float);
    int                   int8 = x->o->quant == RR__ONNX_INT8;
    float                 limit = int8 ? 127.0f : 448.0f;
    rr__weight           *rec, *bias;

    for (int i = 0; i < n_src; i++)
        dims[1] += w[i]->shape[0];
    if (quantized && (!s || !(s->amax > 0))) {
        if (!x->status)
            x->status =
                rr__fail(x->err, RR_E_ARG, "calibration has no positive range for product %s", p);
        return in;
    }
    rec = rr__graph_weight(g, wname,
                           !quantized ? x->type
                           : int8     ? ONNX_INT8
                                      : ONNX_FLOAT8E4M3FN,
                           2, dims);
    rec->n_src = n_src;
    rec->transpose = 1;
    for (int i = 0; i < n_src; i++)
        rec->src[i] = w[i];
    if (quantized) {
        const char *sname, *zname, *smooth;
        float      *scale = channel_scales(x, w, n_src, dims[1], dims[0], s->smooth, limit);
        int64_t     n = dims[1];

        if (!scale)
            return in;
        rec->scale = scale;
        rec->smooth = s->smooth;
        if (s->smooth) {
            float *inv = rr__arena_alloc(&g->arena, (size_t)dims[0] * sizeof *inv);

            for (int64_t i = 0; inv && i < dims[0]; i++)
                inv[i] = 1 / s->smooth[i];
            smooth = rr__graph_name(g, "%s.smooth", p);
            if (inv)
                rr__graph_floats(g, smooth, x->type, inv, (size_t)dims[0], 1);
            in = rr__graph_op(g, "Mul", rr__graph_name(g, "%s.in_smooth", p), in, smooth);
        }
        in = fake_quantize(x, in, p, s->amax / limit);
        sname = rr__graph_floats(g, rr__graph_name(g, "%s.weight_scale", p), x->type, scale,
                                 (size_t)n, 1);
        zname = rr__graph_zeros(g, rr__graph_name(g, "%s.weight_zero", p),
                                int8 ? ONNX_INT8 : ONNX_FLOAT8E4M3FN, (size_t)n);
        wname = rr__graph_op(g, "DequantizeLinear", rr__graph_name(g, "%s.weight_dq", p), wname,
                             sname, zname);
        rr__graph_attr_int(g, "axis", 1);
    }
    bias = rr__graph_weight(g, bname, x->type, 1, &dims[1]);
    bias->n_src = n_src;
    for (int i = 0; i < n_src; i++)
        bias->src[i] = b[i];
    y = rr__graph_op(g, "MatMul", rr__graph_name(g, "%s.matmul", p), in, wname);
    return rr__graph_op(g, "Add", out, y, bname);
}

static const char *layer_norm(exporter *x, const char *out, const char *in, const rr__tensor *gamma,
                              const rr__tensor *beta) {
    rr__graph  *g = x->g;
    const char *gn = weight(x, gamma, rr__graph_name(g, "%s.gamma", out));
    const char *bn = weight(x, beta, rr__graph_name(g, "%s.beta", out));
    const char *mean, *dev, *var, *y;
    int64_t     last = -1;
    int         wide = x->type != ONNX_FLOAT; /* the formula runs in fp32 */

    if (g->opset >= 17) {
        y = rr__graph_op(g, "LayerNormalization", out, in, gn, bn);
        rr__graph_attr_int(g, "axis", -1);
        rr__graph_attr_float(g, "epsilon", x->m->ln_eps);
        return y;
    }
    if (wide) {
        in = rr__graph_op(g, "Cast", rr__graph_name(g, "%s.wide", out), in);
        rr__graph_attr_int(g, "to", ONNX_FLOAT);
    }
    mean = rr__graph_op(g, "ReduceMean", rr__graph_name(g, "%s.mean", out), in);
    rr__graph_attr_ints(g, "axes", &last, 1);
    dev = rr__graph_op(g, "Sub", rr__graph_name(g, "%s.dev", out), in, mean);
    var = rr__graph_op(g, "Mul", rr__graph_name(g, "%s.dev2", out), dev, dev);
    var = rr__graph_op(g, "ReduceMean", rr__graph_name(g, "%s.var", out), var);
    rr__graph_attr_ints(g, "axes", &last, 1);
    var = rr__graph_op(g, "Add", rr__graph_name(g, "%s.var_eps", out), var, x->eps);
    var = rr__graph_op(g, "Sqrt", rr__graph_name(g, "%s.std", out), var);
    y = rr__graph_op(g, "Div", rr__graph_name(g, "%s.norm", out), dev, var);
    if (wide) {
        y = rr__graph_op(g, "Cast", rr__graph_name(g, "%s.narrow", out), y);
        rr__graph_attr_int(g, "to", x->type);
    }
    y = rr__graph_op(g, "Mul", rr__graph_name(g, "%s.scaled", out), y, gn);
    return rr__graph_op(g, "Add", out, y, bn);
}

static const char *gelu(exporter *x, const char *out, const char *in) {
    rr__graph  *g = x->g;
    const char *y;

    if (g->opset >= 20)
        return rr__graph_op(g, "Gelu", out, in);
    y = rr__graph_op(g, "Div", rr__graph_name(g, "%s.div", out), in, x->sqrt2);
    y = rr__graph_op(g, "Erf", rr__graph_name(g, "%s.erf", out), y);
    y = rr__graph_op(g, "Add", rr__graph_name(g, "%s.one", out), y, x->one);
    y = rr__graph_op(g, "Mul", rr__graph_name(g, "%s.twice", out), in, y);
    return rr__graph_op(g, "Mul", out, y, x->half);
}

/* Positions as transformers counts them: XLM-R numbers the tokens that are not padding from
 * pos_offset; BERT numbers all from 0. */
static const char *positions(exporter *x) {
    rr__graph  *g = x->g;
    const char *p, *keep;
    int64_t     one = 1, zero = 0, pad = x->m->pad_id, before = x->m->pos_offset - 1;

    if (x->m->pos_offset == 0) {
        p = rr__graph_op(g, "Shape", "ids_shape", "input_ids");
        rr__graph_ints(g, "axis_1", &one, 1, 0);
        rr__graph_ints(g, "zero", &zero, 1, 0);
        p = rr__graph_op(g, "Gather", "n_token", p, "axis_1");
        return rr__graph_op(g, "Range", "position_ids", "zero", p, "axis_1");
    }
    rr__graph_ints(g, "pad_id", &pad, 1, 0);
    rr__graph_ints(g, "axis_1", &one, 1, 0);
    rr__graph_ints(g, "position_before", &before, 1, 0);
    p = rr__graph_op(g, "Equal", "is_pad", "input_ids", "pad_id");
    p = rr__graph_op(g, "Not", "is_token", p);
    keep = rr__graph_op(g, "Cast", "is_token_int", p);
    rr__graph_attr_int(g, "to", ONNX_INT64);
    p = rr__graph_op(g, "CumSum", "token_count", keep, "axis_1");
    p = rr__graph_op(g, "Mul", "token_number", p, keep);
    return rr__graph_op(g, "Add", "position_ids", p, "position_before");
}

static const char *embeddings(exporter *x) {
    rr__graph       *g = x->g;
    const rr__model *m = x->m;
    const char      *type, *sum, *pos = positions(x);
    int64_t          zero = 0;

    sum = rr__graph_op(g, "Gather", "emb.token", weight(x, &m->tok_emb, "tok_emb"), "input_ids");
    pos = rr__graph_op(g, "Gather", "emb.position", weight(x, &m->pos_emb, "pos_emb"), pos);
    weight(x, &m->type_emb, "type_emb");
    if (m->n_type > 1)
        type = rr__graph_op(g, "Gather", "emb.type", "type_emb", "token_type_ids");
    else
        type = rr__graph_op(g, "Gather", "emb.type", "type_emb",
                            rr__graph_ints(g, "type_0", &zero, 1, 0));
    sum = rr__graph_op(g, "Add", "emb.token_type", sum, type);
    sum = rr__graph_op(g, "Add", "emb.sum", sum, pos);
    return layer_norm(x, "emb", sum, &m->emb_g, &m->emb_b);
}

/* attention_mask [b, s] to [b, 1, 1, s]: 0 where a token is, the lowest finite value elsewhere. Before
 * opset 16 Where knows no bf16, so that the choice is made in fp32. */
static const char *attention_bias(exporter *x) {
    rr__graph  *g = x->g;
    int64_t     axes[2] = {1, 2};
    const int   wide = x->type == ONNX_BFLOAT16 && g->opset < 16;
    const int   type = wide ? ONNX_FLOAT : x->type;
    const float keep = 0,
                drop = x->type == ONNX_FLOAT16 ? -65504.0f : -3.3895314e38f; /* bf16 max */
    const char *p = rr__graph_op(g, "Cast", "mask_bool", "attention_mask");

    rr__graph_attr_int(g, "to", ONNX_BOOL);
    p = rr__graph_op(g, "Unsqueeze", "mask_4d", p, rr__graph_ints(g, "mask_axes", axes, 2, 1));
    rr__graph_floats(g, "mask_keep", type, &keep, 1, 0);
    rr__graph_floats(g, "mask_drop", type, &drop, 1, 0);
    p = rr__graph_op(g, "Where", wide ? "mask_wide" : "mask_bias", p, "mask_keep", "mask_drop");
    if (wide) {
        p = rr__graph_op(g, "Cast", "mask_bias", p);
        rr__graph_attr_int(g, "to", x->type);
    }
    return p;
}

/* [b, s, d] part of q, k or v to [b, h, s, e] (k: [b, h, e, s]). */
static const char *heads(exporter *x, int l, const char *name, const char *in, int is_key) {
    static const int64_t perm[2][4] = {{0, 2, 1, 3}, {0, 2, 3, 1}};
    rr__graph           *g = x->g;
    const char          *p = rr__graph_name(g, "%d.%s", l, name);
    const char *y = rr__graph_op(g, "Reshape", rr__graph_name(g, "%s_split", p), in, x->qkv_shape);

    y = rr__graph_op(g, "Transpose", rr__graph_name(g, "%s_heads", p), y);
    rr__graph_attr_ints(g, "perm", perm[is_key], 4);
    return y;
}

static const char *attention(exporter *x, int l, const char *in) {
    static const int64_t merge[4] = {0, 2, 1, 3};
    rr__graph           *g = x->g;
    const rr__layer     *w = &x->m->layer[l];
    const rr__tensor    *wqkv[3] = {&w->wq, &w->wk, &w->wv}, *bqkv[3] = {&w->bq, &w->bk, &w->bv};
    const char          *qkv = linear(x, l, "qkv", fmt(x, l, "qkv"), in, wqkv, bqkv, 3);
    const char          *q = fmt(x, l, "q"), *k = fmt(x, l, "k"), *v = fmt(x, l, "v"), *y;

    rr__graph_op(g, "Split", q, qkv, "qkv_parts");
    rr__graph_more_output(g, k);
    rr__graph_more_output(g, v);
    rr__graph_attr_int(g, "axis", 2);
    q = heads(x, l, "q", q, 0);
    k = heads(x, l, "k", k, 1);
    v = heads(x, l, "v", v, 0);
    y = rr__graph_op(g, "MatMul", fmt(x, l, "scores_raw"), q, k);
    y = rr__graph_op(g, "Mul", fmt(x, l, "scores"), y, x->scale);
    y = rr__graph_op(g, "Add", fmt(x, l, "scores_masked"), y, x->mask);
    y = rr__graph_op(g, "Softmax", fmt(x, l, "probs"), y);
    rr__graph_attr_int(g, "axis", -1);
    y = rr__graph_op(g, "MatMul", fmt(x, l, "ctx_heads"), y, v);
    y = rr__graph_op(g, "Transpose", fmt(x, l, "ctx_merge"), y);
    rr__graph_attr_ints(g, "perm", merge, 4);
    return rr__graph_op(g, "Reshape", fmt(x, l, "ctx"), y, x->ctx_shape);
}

static const char *layer(exporter *x, int l, const char *in) {
    rr__graph        *g = x->g;
    const rr__layer  *w = &x->m->layer[l];
    const rr__tensor *wo[1] = {&w->wo}, *bo[1] = {&w->bo}, *w1[1] = {&w->w1}, *b1[1] = {&w->b1},
                     *w2[1] = {&w->w2}, *b2[1] = {&w->b2};
    const char *y = attention(x, l, in);

    y = linear(x, l, "out", fmt(x, l, "attn_out"), y, wo, bo, 1);
    y = rr__graph_op(g, "Add", fmt(x, l, "attn_res"), y, in);
    in = layer_norm(x, fmt(x, l, "ln1"), y, &w->ln1_g, &w->ln1_b);
    y = linear(x, l, "ffn1", fmt(x, l, "ffn_in"), in, w1, b1, 1);
    y = gelu(x, fmt(x, l, "ffn_mid"), y);
    y = linear(x, l, "ffn2", fmt(x, l, "ffn_out"), y, w2, b2, 1);
    y = rr__graph_op(g, "Add", fmt(x, l, "ffn_res"), y, in);
    return layer_norm(x, fmt(x, l, "ln2"), y, &w->ln2_g, &w->ln2_b);
}

/* tanh(x[:, 0] W^T + b), then one logit; the head stays in the base precision. */
static void head(exporter *x, const char *in) {
    rr__graph  *g = x->g;
    int64_t     zero = 0;
    const char *y = rr__graph_op(g, "Gather", "cls", in, rr__graph_ints(g, "first", &zero, 1, 0));

    rr__graph_attr_int(g, "axis", 1);
    y = rr__graph_op(g, "Gemm", "head.dense", y, weight(x, &x->m->head_w, "head.weight"),
                     weight(x, &x->m->head_b, "head.bias"));
    rr__graph_attr_int(g, "transB", 1);
    y = rr__graph_op(g, "Tanh", "head", y);
    y = rr__graph_op(g, "Gemm", x->type == ONNX_FLOAT ? "logits" : "logits_narrow", y,
                     weight(x, &x->m->out_w, "out.weight"), weight(x, &x->m->out_b, "out.bias"));
    rr__graph_attr_int(g, "transB", 1);
    if (x->type != ONNX_FLOAT) {
        rr__graph_op(g, "Cast", "logits", y);
        rr__graph_attr_int(g, "to", ONNX_FLOAT);
    }
}

static void constants(exporter *x) {
    const rr__model *m = x->m;
    rr__graph       *g = x->g;
    int64_t qkv[4] = {0, 0, m->n_head, m->d_model / m->n_head}, ctx[3] = {0, 0, m->d_model};
    int64_t parts[3] = {m->d_model, m->d_model, m->d_model};
    float   eps = m->ln_eps;

    x->scale = constant(x, "attention_scale", 1 / sqrtf((float)(m->d_model / m->n_head)));
    x->qkv_shape = rr__graph_ints(g, "heads_shape", qkv, 4, 1);
    x->ctx_shape = rr__graph_ints(g, "merged_shape", ctx, 3, 1);
    rr__graph_ints(g, "qkv_parts", parts, 3, 1);
    if (g->opset < 17)
        x->eps = rr__graph_floats(g, "eps", ONNX_FLOAT, &eps, 1, 0);
    if (g->opset < 20) {
        x->half = constant(x, "half", 0.5f);
        x->one = constant(x, "one", 1);
        x->sqrt2 = constant(x, "sqrt2", 1.41421356237f);
    }
}

static void interface(exporter *x) {
    static const char *const axes[] = {"batch_size", "sequence_length", NULL};
    static const int64_t     ids[2] = {-1, -1}, logits[2] = {-1, 1};
    rr__graph               *g = x->g;

    rr__graph_input(g, "input_ids", ONNX_INT64, 2, ids, axes);
    rr__graph_input(g, "attention_mask", ONNX_INT64, 2, ids, axes);
    if (x->m->n_type > 1)
        rr__graph_input(g, "token_type_ids", ONNX_INT64, 2, ids, axes);
    rr__graph_output(g, "logits", ONNX_FLOAT, 2, logits, axes);
}

/* Every activation of backend.h as an output, for comparing runtimes layer by layer. */
static void all_outputs(exporter *x) {
    static const char *const axes[] = {"batch_size", "sequence_length", NULL};
    int64_t d = x->m->d_model, f = x->m->d_ff, dims[3] = {-1, -1, d}, head_dims[2] = {-1, d};

    rr__graph_output(x->g, "emb", x->type, 3, dims, axes);
    for (int l = 0; l < x->m->n_layer; l++)
        for (int i = 0; i < RR__N_LAYER_OUTPUT; i++) {
            dims[2] = i == RR__LAYER_QKV ? 3 * d : i == RR__LAYER_FFN_MID ? f : d;
            rr__graph_output(x->g, fmt(x, l, rr__layer_output[i]), x->type, 3, dims, axes);
        }
    rr__graph_output(x->g, "head", x->type, 2, head_dims, axes);
}

static rr_status check_opts(const rr__model *m, const rr__onnx_opts *o, int32_t opset,
                            rr_error *err) {
    if (opset < RR__ONNX_OPSET_MIN || opset > RR__ONNX_OPSET_MAX)
        return rr__fail(err, RR_E_ARG, "opset %d: this exporter writes %d to %d", (int)opset,
                        RR__ONNX_OPSET_MIN, RR__ONNX_OPSET_MAX);
    if (o->quant == RR__ONNX_FP8 && opset < RR__ONNX_OPSET_FP8)
        return rr__fail(err, RR_E_ARG, "fp8 needs opset %d or later, not %d", RR__ONNX_OPSET_FP8,
                        (int)opset);
    if (o->quant != RR__ONNX_FLOAT && !o->n_scale)
        return rr__fail(err, RR_E_ARG, "int8 and fp8 need a calibration file: rerank calibrate");
    if (m->pos_offset != 0 && m->pos_offset != m->pad_id + 1)
        return rr__fail(err, RR_E_UNSUPPORTED, "positions start at %d with pad id %d",
                        (int)m->pos_offset, (int)m->pad_id);
    return RR_OK;
}

rr_status rr__onnx_export(const rr__model *m, const rr__onnx_opts *o, const char *path,
                          rr__onnx_progress_fn progress, void *user, rr_error *err) {
    static const int onnx_type[] = {
        [RR__DT_F32] = ONNX_FLOAT, [RR__DT_F16] = ONNX_FLOAT16, [RR__DT_BF16] = ONNX_BFLOAT16};
    static const char *const quant_name[] = {"float", "int8", "fp8"};
    rr__graph                g;
    exporter                 x = {.g = &g, .m = m, .o = o, .type = onnx_type[o->dtype], .err = err};
    int32_t                  opset = o->opset                   ? o->opset
                                     : o->quant == RR__ONNX_FP8 ? RR__ONNX_OPSET_FP8
                                                                : RR__ONNX_OPSET_DEFAULT;
    const char              *y;
    char                     hash[17];
    rr_status                s = check_opts(m, o, opset, err);

    if (s)
        return s;
    rr__graph_init(&g, opset, "cross_encoder");
    g.model.producer_name = (char *)rr__graph_name(&g, "rerank.c");
    g.model.producer_version = (char *)rr__graph_name(&g, "%s", RR_VERSION);
    rr__graph_meta(&g, "model_name", o->name ? o->name : m->dir);
    rr__graph_meta(&g, "architecture", m->architecture);
    if (o->revision)
        rr__graph_meta(&g, "revision", o->revision);
    rr__model_hash(m, hash);
    rr__graph_meta(&g, "hash", hash);
    rr__graph_meta(&g, "quantization", quant_name[o->quant]);
    rr__graph_meta(&g, "max_length", rr__graph_name(&g, "%d", (int)m->max_length));
    interface(&x);
    constants(&x);
    x.mask = attention_bias(&x);
    y = embeddings(&x);
    for (int l = 0; l < m->n_layer && !g.status && !x.status; l++)
        y = layer(&x, l, y);
    head(&x, y);
    if (o->all_outputs)
        all_outputs(&x);
    s = x.status;
    if (!s)
        s = rr__graph_write(&g, path, o->external, progress, user, err);
    rr__graph_free(&g);
    return s;
}
