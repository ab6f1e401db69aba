/* graph.c - see graph.h. Everything lives in the graph's arena and goes with it. */
#include "onnx/graph.h"

#include "base/half.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void *take(rr__graph *g, size_t size) {
    void *p = g->status ? NULL : rr__arena_alloc(&g->arena, size ? size : 1);

    if (!p)
        g->status = RR_E_NOMEM;
    else
        memset(p, 0, size);
    return p;
}

static char *dup(rr__graph *g, const char *s) {
    size_t n = strlen(s) + 1;
    char  *p = take(g, n);

    if (p)
        memcpy(p, s, n);
    return p;
}

/* Append item to a growing array of pointers. The old array stays in the arena: arrays double, so
 * that is at most as much again. */
static void push(rr__graph *g, void ***array, size_t *n, size_t *cap, void *item) {
    if (*n == *cap) {
        size_t want = *cap ? *cap * 2 : 16;
        void **bigger = take(g, want * sizeof *bigger);

        if (!bigger)
            return;
        if (*n)
            memcpy(bigger, *array, *n * sizeof *bigger);
        *array = bigger;
        *cap = want;
    }
    (*array)[(*n)++] = item;
}

void rr__graph_init(rr__graph *g, int32_t opset, const char *name) {
    RrOnnx__OperatorSet *set;

    memset(g, 0, sizeof *g);
    g->opset = opset;
    rr__onnx__model__init(&g->model);
    rr__onnx__graph__init(&g->graph);
    g->model.graph = &g->graph;
    g->graph.name = dup(g, name);
    g->model.has_ir_version = 1;
    g->model.ir_version = opset <= 14   ? 7
                          : opset <= 18 ? 8
                          : opset <= 20 ? 9
                          : opset <= 22 ? 10
                          : opset <= 23 ? 11
                          : opset <= 24 ? 12
                          : opset <= 27 ? 13
                                        : 14;
    set = take(g, sizeof *set);
    g->model.opset_import = take(g, sizeof *g->model.opset_import);
    if (!set || !g->model.opset_import)
        return;
    rr__onnx__operator_set__init(set);
    set->domain = dup(g, "");
    set->has_version = 1;
    set->version = opset;
    g->model.opset_import[0] = set;
    g->model.n_opset_import = 1;
}

void rr__graph_free(rr__graph *g) {
    rr__arena_free(&g->arena);
}

const char *rr__graph_name(rr__graph *g, const char *fmt, ...) {
    char    text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return dup(g, text);
}

const char *rr__graph_node(rr__graph *g, const char *op, const char *out, ...) {
    RrOnnx__Node *node = take(g, sizeof *node);
    const char   *in;
    va_list       ap;
    size_t        cap_in = 0, cap_out = 0;

    if (!node)
        return "";
    rr__onnx__node__init(node);
    node->op_type = dup(g, op);
    node->name = dup(g, out);
    va_start(ap, out);
    while ((in = va_arg(ap, const char *)))
        push(g, (void ***)&node->input, &node->n_input, &cap_in, dup(g, in));
    va_end(ap);
    push(g, (void ***)&node->output, &node->n_output, &cap_out, dup(g, out));
    push(g, (void ***)&g->graph.node, &g->graph.n_node, &g->cap_node, node);
    return out;
}

const char *rr__graph_more_output(rr__graph *g, const char *name) {
    RrOnnx__Node *node;

    if (g->status)
        return "";
    node = g->graph.node[g->graph.n_node - 1];
    size_t cap = node->n_output; /* force a fresh array: the first one had its own capacity */
    push(g, (void ***)&node->output, &node->n_output, &cap, dup(g, name));
    return name;
}

static RrOnnx__Attribute *attribute(rr__graph *g, const char *name, int type) {
    RrOnnx__Attribute *a = take(g, sizeof *a);
    RrOnnx__Node      *node;

    if (!a)
        return NULL;
    node = g->graph.node[g->graph.n_node - 1];
    size_t cap = node->n_attribute;
    rr__onnx__attribute__init(a);
    a->name = dup(g, name);
    a->has_type = 1;
    a->type = type;
    push(g, (void ***)&node->attribute, &node->n_attribute, &cap, a);
    return a;
}

void rr__graph_attr_int(rr__graph *g, const char *name, int64_t value) {
    RrOnnx__Attribute *a = attribute(g, name, ONNX_ATTR_INT);

    if (a) {
        a->has_i = 1;
        a->i = value;
    }
}

void rr__graph_attr_float(rr__graph *g, const char *name, float value) {
    RrOnnx__Attribute *a = attribute(g, name, ONNX_ATTR_FLOAT);

    if (a) {
        a->has_f = 1;
        a->f = value;
    }
}

void rr__graph_attr_ints(rr__graph *g, const char *name, const int64_t *value, size_t n) {
    RrOnnx__Attribute *a = attribute(g, name, ONNX_ATTR_INTS);

    if (a && (a->ints = take(g, n * sizeof *value))) {
        memcpy(a->ints, value, n * sizeof *value);
        a->n_ints = n;
    }
}

static RrOnnx__Tensor *initializer(rr__graph *g, const char *name, int type, int rank,
                                   const int64_t *dims) {
    RrOnnx__Tensor *t = take(g, sizeof *t);

    if (!t)
        return NULL;
    rr__onnx__tensor__init(t);
    t->name = dup(g, name);
    t->has_data_type = 1;
    t->data_type = type;
    if (rank && (t->dims = take(g, (size_t)rank * sizeof *dims))) {
        memcpy(t->dims, dims, (size_t)rank * sizeof *dims);
        t->n_dims = (size_t)rank;
    }
    push(g, (void ***)&g->graph.initializer, &g->graph.n_initializer, &g->cap_init, t);
    return t;
}

static void raw(rr__graph *g, RrOnnx__Tensor *t, const void *data, size_t size) {
    void *copy = take(g, size);

    if (!copy)
        return;
    memcpy(copy, data, size);
    t->has_raw_data = 1;
    t->raw_data = (ProtobufCBinaryData){size, copy};
}

const char *rr__graph_ints(rr__graph *g, const char *name, const int64_t *v, size_t n, int rank) {
    int64_t         dim = (int64_t)n;
    RrOnnx__Tensor *t = initializer(g, name, ONNX_INT64, rank, &dim);

    if (t)
        raw(g, t, v, n * sizeof *v);
    return name;
}

const char *rr__graph_floats(rr__graph *g, const char *name, int type, const float *v, size_t n,
                             int rank) {
    int64_t         dim = (int64_t)n;
    RrOnnx__Tensor *t = initializer(g, name, type, rank, &dim);
    uint16_t       *half;

    if (!t)
        return name;
    if (type == ONNX_FLOAT) {
        raw(g, t, v, n * sizeof *v);
        return name;
    }
    half = take(g, n * sizeof *half);
    for (size_t i = 0; half && i < n; i++)
        half[i] = type == ONNX_FLOAT16 ? rr__f32_to_f16(v[i]) : rr__f32_to_bf16(v[i]);
    if (half)
        raw(g, t, half, n * sizeof *half);
    return name;
}

const char *rr__graph_zeros(rr__graph *g, const char *name, int type, size_t n) {
    int64_t         dim = (int64_t)n;
    RrOnnx__Tensor *t = initializer(g, name, type, n > 0, &dim);
    void           *zeros = take(g, n ? n : 1);

    if (t && zeros)
        raw(g, t, zeros, n ? n : 1);
    return name;
}

rr__weight *rr__graph_weight(rr__graph *g, const char *name, int type, int rank,
                             const int64_t *dims) {
    static rr__weight nowhere; /* after a failure: written to, never read */
    RrOnnx__Tensor   *t = initializer(g, name, type, rank, dims);
    rr__weight       *w;

    if (t && g->n_weight == g->cap_weight) {
        size_t      want = g->cap_weight ? g->cap_weight * 2 : 64;
        rr__weight *bigger = take(g, want * sizeof *bigger);

        if (bigger && g->n_weight)
            memcpy(bigger, g->weight, g->n_weight * sizeof *bigger);
        if (bigger) {
            g->weight = bigger;
            g->cap_weight = want;
        }
    }
    if (g->status)
        return &nowhere;
    w = &g->weight[g->n_weight++];
    w->tensor = t;
    w->bytes = rr__onnx_type_size(type);
    for (int i = 0; i < rank; i++)
        w->bytes *= (uint64_t)dims[i];
    return w;
}

static RrOnnx__ValueInfo *value_info(rr__graph *g, const char *name, int type, int rank,
                                     const int64_t *dims, const char *const *param) {
    RrOnnx__ValueInfo  *v = take(g, sizeof *v);
    RrOnnx__Type       *ty = take(g, sizeof *ty);
    RrOnnx__TensorType *tt = take(g, sizeof *tt);
    RrOnnx__Shape      *shape = take(g, sizeof *shape);
    size_t              cap = 0;

    if (g->status)
        return NULL;
    rr__onnx__value_info__init(v);
    rr__onnx__type__init(ty);
    rr__onnx__tensor_type__init(tt);
    rr__onnx__shape__init(shape);
    v->name = dup(g, name);
    v->type = ty;
    ty->tensor_type = tt;
    tt->has_elem_type = 1;
    tt->elem_type = type;
    tt->shape = shape;
    for (int i = 0; i < rank; i++) {
        RrOnnx__Dim *d = take(g, sizeof *d);

        if (!d)
            return NULL;
        rr__onnx__dim__init(d);
        if (dims[i] < 0) {
            d->value_case = RR__ONNX__DIM__VALUE_DIM_PARAM;
            d->dim_param = dup(g, param[i]);
        } else {
            d->value_case = RR__ONNX__DIM__VALUE_DIM_VALUE;
            d->dim_value = dims[i];
        }
        push(g, (void ***)&shape->dim, &shape->n_dim, &cap, d);
    }
    return v;
}

void rr__graph_input(rr__graph *g, const char *name, int type, int rank, const int64_t *dims,
                     const char *const *param) {
    RrOnnx__ValueInfo *v = value_info(g, name, type, rank, dims, param);

    if (v)
        push(g, (void ***)&g->graph.input, &g->graph.n_input, &g->cap_in, v);
}

void rr__graph_output(rr__graph *g, const char *name, int type, int rank, const int64_t *dims,
                      const char *const *param) {
    RrOnnx__ValueInfo *v = value_info(g, name, type, rank, dims, param);

    if (v)
        push(g, (void ***)&g->graph.output, &g->graph.n_output, &g->cap_out, v);
}

void rr__graph_meta(rr__graph *g, const char *key, const char *value) {
    RrOnnx__Pair *p = take(g, sizeof *p);

    if (!p)
        return;
    rr__onnx__pair__init(p);
    p->key = dup(g, key);
    p->value = dup(g, value);
    push(g, (void ***)&g->model.metadata_props, &g->model.n_metadata_props, &g->cap_meta, p);
}

static const struct {
    const char *name;
    size_t      size;
} types[ONNX_N_TYPE] = {
    {NULL, 0},
    {"FLOAT", 4},
    {"UINT8", 1},
    {"INT8", 1},
    {"UINT16", 2},
    {"INT16", 2},
    {"INT32", 4},
    {"INT64", 8},
    {"STRING", 0},
    {"BOOL", 1},
    {"FLOAT16", 2},
    {"DOUBLE", 8},
    {"UINT32", 4},
    {"UINT64", 8},
    {"COMPLEX64", 8},
    {"COMPLEX128", 16},
    {"BFLOAT16", 2},
    {"FLOAT8E4M3FN", 1},
    {"FLOAT8E4M3FNUZ", 1},
    {"FLOAT8E5M2", 1},
    {"FLOAT8E5M2FNUZ", 1},
    {"UINT4", 1},
    {"INT4", 1},
    {"FLOAT4E2M1", 1},
    {"FLOAT8E8M0", 1},
    {"UINT2", 1},
    {"INT2", 1},
};

size_t rr__onnx_type_size(int type) {
    return type > 0 && type < ONNX_N_TYPE ? types[type].size : 0;
}

const char *rr__onnx_type_name(int type) {
    return type > 0 && type < ONNX_N_TYPE ? types[type].name : NULL;
}
