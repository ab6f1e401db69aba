/* infer.c - types and shapes through the operators that transformer encoders use.
 *
 * Dimensions are numbers, names or unknown; a rule reports only what cannot be true for any value
 * of the unknown ones. Operators without a rule leave their outputs unknown, which silences
 * everything behind them rather than guessing. */
#include "onnx/check.h"

#include <stdio.h>
#include <string.h>

typedef struct infer {
    checker            *c;
    const RrOnnx__Node *node;
    value *const       *in;
    size_t              n_in;
    value *const       *out;
    size_t              n_out;
} infer;

static const value *input(const infer *f, size_t i) {
    return i < f->n_in ? f->in[i] : NULL;
}

static int64_t attr_int(const infer *f, const char *name, int64_t otherwise) {
    const RrOnnx__Attribute *a = rr__check_attr(f->node, name);

    return a && a->has_i ? a->i : otherwise;
}

static void set(const infer *f, size_t i, int type, int rank, const dim *d) {
    value *v = i < f->n_out ? f->out[i] : NULL;

    if (!v)
        return;
    v->type = type;
    v->rank = rank;
    if (rank > 0)
        memmove(v->dim, d, (size_t)rank * sizeof *d);
}

/* An axis attribute or constant in 0..rank-1; -1 after reporting one that is not. */
static int axis_in(const infer *f, int64_t axis, int rank) {
    if (axis >= -rank && axis < rank)
        return (int)(axis < 0 ? axis + rank : axis);
    rr__check_say(f->c, RR__ONNX_FAULT, "axis %lld of %d dimensions", (long long)axis, rank);
    return -1;
}

static int same_type(const infer *f, const value *a, const value *b) {
    if (!a || !b || !a->type || !b->type || a->type == b->type)
        return 1;
    rr__check_say(f->c, RR__ONNX_FAULT, "\"%.80s\" is %s, \"%.80s\" is %s", a->name,
                  rr__onnx_type_name(a->type), b->name, rr__onnx_type_name(b->type));
    return 0;
}

/* Can the two dimensions be one? Reports if not. */
static int same_dim(const infer *f, dim a, dim b, const char *what) {
    if (a.value < 0 || b.value < 0 || a.value == b.value)
        return 1;
    rr__check_say(f->c, RR__ONNX_FAULT, "%s: %lld against %lld", what, (long long)a.value,
                  (long long)b.value);
    return 0;
}

/* numpy broadcasting of two shapes; -1 when unknown or reported as impossible. */
static int broadcast(const infer *f, int ra, const dim *a, int rb, const dim *b, dim *out) {
    int rank = ra > rb ? ra : rb;

    if (ra < 0 || rb < 0)
        return -1;
    for (int i = 1; i <= rank; i++) {
        dim x = i <= ra ? a[ra - i] : (dim){1, NULL}, y = i <= rb ? b[rb - i] : (dim){1, NULL};

        if (x.value > 1 && y.value > 1 && !same_dim(f, x, y, "shapes do not broadcast"))
            return -1;
        out[rank - i] = x.value == 1 ? y : y.value == 1 ? x : x.value > 1 ? x : y;
    }
    return rank;
}

static void infer_binary(const infer *f) {
    const value *a = input(f, 0), *b = input(f, 1);
    dim          d[CHECK_MAX_RANK];

    if (same_type(f, a, b))
        set(f, 0, a->type, broadcast(f, a->rank, a->dim, b->rank, b->dim, d), d);
}

static void infer_compare(const infer *f) {
    infer_binary(f);
    if (f->out[0])
        f->out[0]->type = ONNX_BOOL;
}

static void infer_where(const infer *f) {
    const value *c = input(f, 0), *a = input(f, 1), *b = input(f, 2);
    dim          d[CHECK_MAX_RANK], all[CHECK_MAX_RANK];
    int          rank;

    if (c->type && c->type != ONNX_BOOL)
        rr__check_say(f->c, RR__ONNX_FAULT, "the condition is %s, not BOOL",
                      rr__onnx_type_name(c->type));
    if (!same_type(f, a, b))
        return;
    rank = broadcast(f, a->rank, a->dim, b->rank, b->dim, d);
    set(f, 0, a->type, broadcast(f, rank, d, c->rank, c->dim, all), all);
}

static void infer_unary(const infer *f) {
    set(f, 0, input(f, 0)->type, input(f, 0)->rank, input(f, 0)->dim);
}

static void infer_cast(const infer *f) {
    int to = (int)attr_int(f, "to", 0);

    if (!rr__onnx_type_name(to))
        rr__check_say(f->c, RR__ONNX_FAULT, "casts to element type %d, which is none", to);
    set(f, 0, to, input(f, 0)->rank, input(f, 0)->dim);
}

static void infer_softmax(const infer *f) {
    if (input(f, 0)->rank > 0)
        axis_in(f, attr_int(f, "axis", -1), input(f, 0)->rank);
    infer_unary(f);
}

static void infer_layer_norm(const infer *f) {
    const value *x = input(f, 0);
    dim          d[CHECK_MAX_RANK];

    for (size_t i = 1; i < 3; i++) {
        const value *w = input(f, i);

        same_type(f, x, w);
        if (w && x->rank > 0 && w->rank == 1)
            broadcast(f, 1, &x->dim[x->rank - 1], 1, w->dim, d);
    }
    infer_unary(f);
}

static void infer_quantize(const infer *f) {
    const value *scale = input(f, 1), *zero = input(f, 2);
    int          dequantize = f->node->op_type[0] == 'D', rank = input(f, 0)->rank;

    if (scale->rank == 1 && scale->dim[0].value > 1 && rank > 0) {
        int axis = axis_in(f, attr_int(f, "axis", 1), rank);

        if (axis >= 0)
            same_dim(f, scale->dim[0], input(f, 0)->dim[axis], "scales against the axis");
    }
    if (dequantize)
        same_type(f, input(f, 0), zero);
    set(f, 0, dequantize ? scale->type : zero ? zero->type : ONNX_UINT8, rank, input(f, 0)->dim);
}

static void infer_matmul(const infer *f) {
    const value *a = input(f, 0), *b = input(f, 1);
    dim          d[CHECK_MAX_RANK];
    int          rank;

    if (!same_type(f, a, b) || a->rank < 0 || b->rank < 0)
        return;
    if (a->rank < 2 || b->rank < 2) {
        set(f, 0, a->type, -1, NULL);
        return;
    }
    if (!same_dim(f, a->dim[a->rank - 1], b->dim[b->rank - 2], "inner dimensions"))
        return;
    rank = broadcast(f, a->rank - 2, a->dim, b->rank - 2, b->dim, d);
    if (rank < 0)
        return;
    d[rank] = a->dim[a->rank - 2];
    d[rank + 1] = b->dim[b->rank - 1];
    set(f, 0, a->type, rank + 2, d);
}

static void infer_gemm(const infer *f) {
    const value *a = input(f, 0), *b = input(f, 1), *bias = input(f, 2);
    int          ta = attr_int(f, "transA", 0) != 0, tb = attr_int(f, "transB", 0) != 0;
    dim          d[2], all[CHECK_MAX_RANK];

    if (!same_type(f, a, b) || a->rank != 2 || b->rank != 2) {
        if (a->rank >= 0 && b->rank >= 0 && (a->rank != 2 || b->rank != 2))
            rr__check_say(f->c, RR__ONNX_FAULT, "matrices of %d and %d dimensions", a->rank,
                          b->rank);
        return;
    }
    if (!same_dim(f, a->dim[!ta], b->dim[tb], "inner dimensions"))
        return;
    d[0] = a->dim[ta];
    d[1] = b->dim[!tb];
    if (bias && bias->rank >= 0)
        broadcast(f, 2, d, bias->rank, bias->dim, all);
    set(f, 0, a->type, 2, d);
}

static void infer_gather(const infer *f) {
    const value *x = input(f, 0), *i = input(f, 1);
    dim          d[2 * CHECK_MAX_RANK];
    int          axis, n = 0;

    if (i->type && i->type != ONNX_INT64 && i->type != ONNX_INT32)
        rr__check_say(f->c, RR__ONNX_FAULT, "indices are %s", rr__onnx_type_name(i->type));
    if (x->rank < 1 || i->rank < 0) {
        set(f, 0, x->type, -1, NULL);
        return;
    }
    axis = axis_in(f, attr_int(f, "axis", 0), x->rank);
    if (axis < 0)
        return;
    for (int k = 0; k < axis; k++)
        d[n++] = x->dim[k];
    for (int k = 0; k < i->rank; k++)
        d[n++] = i->dim[k];
    for (int k = axis + 1; k < x->rank; k++)
        d[n++] = x->dim[k];
    set(f, 0, x->type, n <= CHECK_MAX_RANK ? n : -1, d);
}

static void infer_transpose(const infer *f) {
    const value             *x = input(f, 0);
    const RrOnnx__Attribute *perm = rr__check_attr(f->node, "perm");
    dim                      d[CHECK_MAX_RANK];
    unsigned                 seen = 0;

    if (x->rank < 0) {
        set(f, 0, x->type, -1, NULL);
        return;
    }
    if (perm && perm->n_ints != (size_t)x->rank) {
        rr__check_say(f->c, RR__ONNX_FAULT, "perm has %zu entries for %d dimensions", perm->n_ints,
                      x->rank);
        return;
    }
    for (int i = 0; i < x->rank; i++) {
        int64_t p = perm ? perm->ints[i] : x->rank - 1 - i;

        if (p < 0 || p >= x->rank || seen >> p & 1) {
            rr__check_say(f->c, RR__ONNX_FAULT, "perm is no permutation");
            return;
        }
        seen |= 1u << p;
        d[i] = x->dim[p];
    }
    set(f, 0, x->type, x->rank, d);
}

static void infer_reshape(const infer *f) {
    const value *x = input(f, 0), *shape = input(f, 1);
    dim          d[CHECK_MAX_RANK];
    int          free_dims = 0;

    set(f, 0, x->type, -1, NULL);
    if (!shape->ints || shape->n_ints > CHECK_MAX_RANK)
        return;
    for (size_t i = 0; i < shape->n_ints; i++) {
        int64_t v = shape->ints[i];

        d[i] = (dim){v, NULL};
        if (v == 0 && !attr_int(f, "allowzero", 0)) {
            if (x->rank >= 0 && (int)i >= x->rank) {
                rr__check_say(f->c, RR__ONNX_FAULT, "shape copies dimension %zu of %d", i, x->rank);
                return;
            }
            d[i] = x->rank < 0 ? (dim){-1, NULL} : x->dim[i];
        } else if (v == -1) {
            free_dims++;
        }
        if (v < -1 || free_dims > 1) {
            rr__check_say(f->c, RR__ONNX_FAULT, "shape entry %zu is %lld%s", i, (long long)v,
                          free_dims > 1 ? ", the second -1" : "");
            return;
        }
    }
    set(f, 0, x->type, (int)shape->n_ints, d);
}

static void infer_split(const infer *f) {
    const value *x = input(f, 0), *parts = input(f, 1);
    int          axis;
    int64_t      sum = 0;
    dim          d[CHECK_MAX_RANK];

    if (x->rank < 1)
        return;
    axis = axis_in(f, attr_int(f, "axis", 0), x->rank);
    if (axis < 0)
        return;
    if (parts && parts->ints && parts->n_ints != f->n_out) {
        rr__check_say(f->c, RR__ONNX_FAULT, "%zu parts for %zu outputs", parts->n_ints, f->n_out);
        return;
    }
    memcpy(d, x->dim, sizeof d);
    for (size_t i = 0; i < f->n_out; i++) {
        d[axis] = (dim){parts && parts->ints ? parts->ints[i] : -1, NULL};
        if (d[axis].value > 0 && d[axis].value < INT64_MAX - sum)
            sum += d[axis].value;
        set(f, i, x->type, x->rank, d);
    }
    if (parts && parts->ints)
        same_dim(f, (dim){sum, NULL}, x->dim[axis], "parts against the axis");
}

static void infer_unsqueeze(const infer *f) {
    const value *x = input(f, 0), *axes = input(f, 1);
    dim          d[CHECK_MAX_RANK];
    unsigned     one = 0;
    int          rank, from = 0;

    set(f, 0, x->type, -1, NULL);
    if (x->rank < 0 || !axes || !axes->ints || x->rank + (int64_t)axes->n_ints > CHECK_MAX_RANK)
        return;
    rank = x->rank + (int)axes->n_ints;
    for (size_t i = 0; i < axes->n_ints; i++) {
        int axis = axis_in(f, axes->ints[i], rank);

        if (axis < 0 || one >> axis & 1)
            return;
        one |= 1u << axis;
    }
    for (int i = 0; i < rank; i++)
        d[i] = one >> i & 1 ? (dim){1, NULL} : x->dim[from++];
    set(f, 0, x->type, rank, d);
}

static void infer_shape(const infer *f) {
    dim d = {input(f, 0)->rank, NULL};

    set(f, 0, ONNX_INT64, 1, &d);
}

static void infer_range(const infer *f) {
    dim d = {-1, NULL};

    set(f, 0, input(f, 0)->type, 1, &d);
}

static void infer_reduce(const infer *f) {
    const value             *x = input(f, 0);
    const RrOnnx__Attribute *axes = rr__check_attr(f->node, "axes");
    dim                      d[CHECK_MAX_RANK];

    set(f, 0, x->type, -1, NULL);
    if (x->rank < 0 || !axes || attr_int(f, "keepdims", 1) != 1)
        return;
    memcpy(d, x->dim, sizeof d);
    for (size_t i = 0; i < axes->n_ints; i++) {
        int axis = axis_in(f, axes->ints[i], x->rank);

        if (axis < 0)
            return;
        d[axis] = (dim){1, NULL};
    }
    set(f, 0, x->type, x->rank, d);
}

static const struct {
    const char *op;
    size_t      needs; /* inputs that must be there for the rule to run */
    void (*rule)(const infer *);
} rules[] = {
    {"Add", 2, infer_binary},
    {"Sub", 2, infer_binary},
    {"Mul", 2, infer_binary},
    {"Div", 2, infer_binary},
    {"Equal", 2, infer_compare},
    {"Greater", 2, infer_compare},
    {"Less", 2, infer_compare},
    {"Where", 3, infer_where},
    {"Not", 1, infer_unary},
    {"Erf", 1, infer_unary},
    {"Sqrt", 1, infer_unary},
    {"Tanh", 1, infer_unary},
    {"Gelu", 1, infer_unary},
    {"Sigmoid", 1, infer_unary},
    {"Identity", 1, infer_unary},
    {"CumSum", 2, infer_unary},
    {"Cast", 1, infer_cast},
    {"Softmax", 1, infer_softmax},
    {"LayerNormalization", 2, infer_layer_norm},
    {"QuantizeLinear", 2, infer_quantize},
    {"DequantizeLinear", 2, infer_quantize},
    {"MatMul", 2, infer_matmul},
    {"Gemm", 2, infer_gemm},
    {"Gather", 2, infer_gather},
    {"Transpose", 1, infer_transpose},
    {"Reshape", 2, infer_reshape},
    {"Split", 1, infer_split},
    {"Unsqueeze", 2, infer_unsqueeze},
    {"Shape", 1, infer_shape},
    {"Range", 3, infer_range},
    {"ReduceMean", 1, infer_reduce},
};
enum { N_RULES = sizeof rules / sizeof rules[0] };

void rr__check_infer(checker *c, const RrOnnx__Node *node, value *const *in, size_t n_in,
                     value *const *out, size_t n_out) {
    infer f = {c, node, in, n_in, out, n_out};

    for (int i = 0; i < N_RULES; i++) {
        if (strcmp(rules[i].op, node->op_type) != 0)
            continue;
        if (n_in < rules[i].needs || n_out < 1)
            return; /* reported by the arity check */
        for (size_t k = 0; k < rules[i].needs; k++)
            if (!in[k])
                return;
        rules[i].rule(&f);
        return;
    }
}
