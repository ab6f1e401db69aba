/* check.c - is this file an ONNX model a runtime can take? See rr__onnx_check in onnx.h.
 *
 * Files are hostile: nesting is bounded before protobuf-c (which recurses) sees the bytes, its
 * memory is bounded by its allocator, and every size is checked before it is multiplied. */
#include "onnx/check.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct op_row {
    const char *name;
    int         since, min_in, max_in, min_out, max_out, deprecated;
    const char *attrs;       /* comma separated, ! before required ones */
    uint32_t    in_types[9]; /* bit (1 << element type) for each that the input takes; 0 = any */
} op_row;

static const op_row ops[] = {
#include "onnx/ops_table.h"
};
enum { N_OPS = sizeof ops / sizeof ops[0], MAX_DEPTH = 16 };

void rr__check_say(checker *c, rr__onnx_level level, const char *fmt, ...) {
    char    text[512];
    int     n = 0;
    va_list ap;

    if (c->node)
        n = snprintf(text, sizeof text, "node %zu \"%.80s\" (%.40s): ", c->node_at,
                     c->node->name ? c->node->name : "", c->node->op_type ? c->node->op_type : "");
    va_start(ap, fmt);
    vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
    va_end(ap);
    c->report.n_fault += level == RR__ONNX_FAULT;
    c->report.n_warning += level == RR__ONNX_WARNING;
    if (c->fn)
        c->fn(c->user, level, text);
}

/* ---- names ------------------------------------------------------------- */

static size_t hash(const char *s) {
    uint64_t h = 1469598103934665603u;

    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 1099511628211u;
    return (size_t)(h ^ h >> 29);
}

value *rr__check_find(const checker *c, const char *name) {
    value *v = c->bucket[hash(name) % c->n_bucket];

    while (v && strcmp(v->name, name) != 0)
        v = v->next;
    return v;
}

/* A new value of that name; NULL after reporting that it is defined already (or no memory). */
static value *define(checker *c, const char *name, const char *what) {
    size_t b = hash(name) % c->n_bucket;
    value *v;

    if (rr__check_find(c, name)) {
        rr__check_say(c, RR__ONNX_FAULT, "%s \"%.120s\" is defined a second time", what, name);
        return NULL;
    }
    v = rr__arena_calloc(&c->arena, 1, sizeof *v);
    if (!v)
        return NULL;
    v->name = name;
    v->rank = -1;
    v->next = c->bucket[b];
    c->bucket[b] = v;
    return v;
}

const RrOnnx__Attribute *rr__check_attr(const RrOnnx__Node *node, const char *name) {
    for (size_t i = 0; i < node->n_attribute; i++)
        if (node->attribute[i]->name && strcmp(node->attribute[i]->name, name) == 0)
            return node->attribute[i];
    return NULL;
}

/* ---- inputs, outputs ---------------------------------------------------- */

static void read_type(checker *c, const RrOnnx__ValueInfo *info, value *v, const char *what) {
    const RrOnnx__TensorType *t = info->type ? info->type->tensor_type : NULL;

    if (!t) {
        rr__check_say(c, RR__ONNX_FAULT, "%s \"%.120s\" has no tensor type", what, info->name);
        return;
    }
    v->type = t->has_elem_type ? t->elem_type : 0;
    if (!rr__onnx_type_name(v->type))
        rr__check_say(c, RR__ONNX_FAULT, "%s \"%.120s\" has element type %d, which is none", what,
                      info->name, v->type);
    if (!t->shape)
        return;
    if (t->shape->n_dim > CHECK_MAX_RANK) {
        rr__check_say(c, RR__ONNX_WARNING, "%s \"%.120s\" has %zu dimensions", what, info->name,
                      t->shape->n_dim);
        return;
    }
    v->rank = (int)t->shape->n_dim;
    for (int i = 0; i < v->rank; i++) {
        const RrOnnx__Dim *d = t->shape->dim[i];

        v->dim[i] = (dim){-1, NULL};
        if (d->value_case == RR__ONNX__DIM__VALUE_DIM_VALUE) {
            v->dim[i].value = d->dim_value;
            if (d->dim_value < 0)
                rr__check_say(c, RR__ONNX_FAULT, "%s \"%.120s\": dimension %d is %lld", what,
                              info->name, i, (long long)d->dim_value);
        } else if (d->value_case == RR__ONNX__DIM__VALUE_DIM_PARAM) {
            v->dim[i].param = d->dim_param;
        }
    }
}

/* Inputs that are not initializers: the ones a caller feeds. They should have dynamic axes. */
static void check_inputs(checker *c) {
    const RrOnnx__Graph *g = c->graph;

    for (size_t i = 0; i < g->n_input; i++) {
        const char *name = g->input[i]->name;
        value      *v;
        int         dynamic = 0;

        if (!name || !*name) {
            rr__check_say(c, RR__ONNX_FAULT, "input %zu has no name", i);
            continue;
        }
        if (c->report.ir_version < 4 && rr__check_find(c, name))
            continue; /* before ir_version 4 every initializer was listed as an input too */
        v = define(c, name, "input");
        if (!v)
            continue;
        c->report.n_input++;
        read_type(c, g->input[i], v, "input");
        if (v->rank < 0)
            rr__check_say(c, RR__ONNX_WARNING, "input \"%.120s\" has no shape", name);
        for (int d = 0; d < v->rank; d++)
            dynamic += v->dim[d].value < 0;
        if (v->rank >= 2 && dynamic < 2)
            rr__check_say(c, RR__ONNX_WARNING,
                          "input \"%.120s\" has %d dynamic axes; batch and sequence should both be",
                          name, dynamic);
    }
}

static void check_outputs(checker *c) {
    const RrOnnx__Graph *g = c->graph;

    if (!g->n_output)
        rr__check_say(c, RR__ONNX_FAULT, "the graph has no outputs");
    for (size_t i = 0; i < g->n_output; i++) {
        const char *name = g->output[i]->name ? g->output[i]->name : "";
        value      *v = rr__check_find(c, name), said = {.name = name, .rank = -1};

        c->report.n_output++;
        if (!v) {
            rr__check_say(c, RR__ONNX_FAULT, "output \"%.120s\" is computed by no node", name);
            continue;
        }
        read_type(c, g->output[i], &said, "output");
        if (said.type && v->type && said.type != v->type)
            rr__check_say(c, RR__ONNX_FAULT, "output \"%.120s\" is declared %s and computed as %s",
                          name, rr__onnx_type_name(said.type), rr__onnx_type_name(v->type));
        if (said.rank >= 0 && v->rank >= 0 && said.rank != v->rank)
            rr__check_say(c, RR__ONNX_FAULT,
                          "output \"%.120s\" is declared with %d dimensions and computed with %d",
                          name, said.rank, v->rank);
        for (int d = 0; said.rank == v->rank && d < v->rank; d++)
            if (said.dim[d].value >= 0 && v->dim[d].value >= 0 &&
                said.dim[d].value != v->dim[d].value)
                rr__check_say(c, RR__ONNX_FAULT,
                              "output \"%.120s\": dimension %d is declared %lld and computed %lld",
                              name, d, (long long)said.dim[d].value, (long long)v->dim[d].value);
    }
}

/* ---- initializers ------------------------------------------------------- */

static const char *external_field(const RrOnnx__Tensor *t, const char *key) {
    for (size_t i = 0; i < t->n_external_data; i++)
        if (t->external_data[i]->key && t->external_data[i]->value &&
            strcmp(t->external_data[i]->key, key) == 0)
            return t->external_data[i]->value;
    return NULL;
}

/* A decimal number and nothing else; 0 where the field is left out. */
static int parse_u64(const char *s, uint64_t *out) {
    char              *end;
    unsigned long long v;

    *out = 0;
    if (!s)
        return 1;
    if (*s < '0' || *s > '9')
        return 0;
    v = strtoull(s, &end, 10);
    *out = v;
    return *end == '\0' && v != ULLONG_MAX;
}

static void check_external(checker *c, const RrOnnx__Tensor *t, uint64_t bytes, const char *dir) {
    const char *location = external_field(t, "location");
    uint64_t    offset, length;
    char        path[4096];
    struct stat st;

    if (!location || !*location || location[0] == '/' || strstr(location, "..")) {
        rr__check_say(c, RR__ONNX_FAULT,
                      "initializer \"%.120s\": external location \"%.120s\" leaves the directory",
                      t->name, location ? location : "");
        return;
    }
    if (!parse_u64(external_field(t, "offset"), &offset) ||
        !parse_u64(external_field(t, "length"), &length)) {
        rr__check_say(c, RR__ONNX_FAULT, "initializer \"%.120s\": offset or length is no number",
                      t->name);
        return;
    }
    if (length && length != bytes)
        rr__check_say(c, RR__ONNX_FAULT,
                      "initializer \"%.120s\": external length %llu, its shape needs %llu bytes",
                      t->name, (unsigned long long)length, (unsigned long long)bytes);
    if (!dir)
        return;
    if (snprintf(path, sizeof path, "%s/%s", dir, location) >= (int)sizeof path ||
        stat(path, &st) != 0 || !S_ISREG(st.st_mode))
        rr__check_say(c, RR__ONNX_FAULT, "initializer \"%.120s\": no file \"%.120s\"", t->name,
                      location);
    else if (offset > (uint64_t)st.st_size || bytes > (uint64_t)st.st_size - offset)
        rr__check_say(c, RR__ONNX_FAULT,
                      "initializer \"%.120s\": bytes %llu + %llu end past the %lld of \"%.120s\"",
                      t->name, (unsigned long long)offset, (unsigned long long)bytes,
                      (long long)st.st_size, location);
}

/* How many elements the typed repeated fields hold for this element type. */
static size_t typed_count(const RrOnnx__Tensor *t) {
    switch (t->data_type) {
    case ONNX_FLOAT:
        return t->n_float_data;
    case ONNX_DOUBLE:
        return t->n_double_data;
    case ONNX_INT64:
        return t->n_int64_data;
    case ONNX_UINT32:
    case ONNX_UINT64:
        return t->n_uint64_data;
    case ONNX_STRING:
        return t->n_string_data;
    default:
        return t->n_int32_data;
    }
}

static void check_initializer(checker *c, const RrOnnx__Tensor *t, const char *dir) {
    size_t   size = rr__onnx_type_size(t->data_type);
    uint64_t elems = 1;
    value   *v;

    if (!t->name || !*t->name) {
        rr__check_say(c, RR__ONNX_FAULT, "an initializer has no name");
        return;
    }
    v = define(c, t->name, "initializer");
    if (!v)
        return;
    c->report.n_initializer++;
    if (!t->has_data_type || !rr__onnx_type_name(t->data_type)) {
        rr__check_say(c, RR__ONNX_FAULT,
                      "initializer \"%.120s\" has element type %d, which is none", t->name,
                      t->data_type);
        return;
    }
    for (size_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] < 0 || (t->dims[i] && elems > ((uint64_t)1 << 46) / (uint64_t)t->dims[i])) {
            rr__check_say(c, RR__ONNX_FAULT, "initializer \"%.120s\": dimension %zu is %lld",
                          t->name, i, (long long)t->dims[i]);
            return;
        }
        elems *= (uint64_t)t->dims[i];
    }
    v->type = t->data_type;
    if (t->n_dims <= CHECK_MAX_RANK) {
        v->rank = (int)t->n_dims;
        for (int i = 0; i < v->rank; i++)
            v->dim[i] = (dim){t->dims[i], NULL};
    }
    c->report.weight_bytes += elems * size;
    if (t->has_data_location && t->data_location == 1) {
        check_external(c, t, elems * size, dir);
    } else if (t->has_raw_data && size) {
        int packed = t->data_type >= 21; /* 2- and 4-bit types share bytes */

        if (packed ? t->raw_data.len > elems : t->raw_data.len != elems * size)
            rr__check_say(c, RR__ONNX_FAULT,
                          "initializer \"%.120s\" has %zu bytes, its shape and type need %llu",
                          t->name, t->raw_data.len, (unsigned long long)(elems * size));
        else if (t->data_type == ONNX_INT64 && elems <= 64) {
            int64_t *ints = rr__arena_alloc(&c->arena, (size_t)(elems ? elems : 1) * 8);

            if (ints) { /* copied: protobuf bytes need not be aligned */
                memcpy(ints, t->raw_data.data, (size_t)elems * 8);
                v->ints = ints;
                v->n_ints = (size_t)elems;
            }
        }
    } else if (t->data_type < 21 && typed_count(t) != elems) {
        rr__check_say(c, RR__ONNX_FAULT,
                      "initializer \"%.120s\" has %zu elements, its shape needs %llu", t->name,
                      typed_count(t), (unsigned long long)elems);
    } else if (t->data_type == ONNX_INT64) {
        v->ints = t->int64_data;
        v->n_ints = t->n_int64_data;
    }
}

/* ---- nodes --------------------------------------------------------------- */

/* The newest version of an operator that the opset has; *any is set if the name exists at all. */
static const op_row *find_op(const char *name, int64_t opset, const op_row **any) {
    const op_row *found = NULL;
    int           lo = 0, hi = N_OPS;

    *any = NULL;
    while (lo < hi) { /* first row of that name */
        int mid = (lo + hi) / 2;

        if (strcmp(ops[mid].name, name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < N_OPS && strcmp(ops[lo].name, name) == 0; lo++) {
        *any = &ops[lo];
        if (ops[lo].since <= opset)
            found = &ops[lo];
    }
    return found;
}

/* Is name in the comma separated list (with or without its !)? */
static int listed(const char *list, const char *name) {
    size_t n = strlen(name);

    while (*list) {
        size_t len = strcspn(list, ",");
        int    bang = *list == '!';

        if (len - (size_t)bang == n && memcmp(list + bang, name, n) == 0)
            return 1;
        list += len + (list[len] == ',');
    }
    return 0;
}

static void check_attributes(checker *c, const RrOnnx__Node *node, const op_row *op) {
    for (size_t i = 0; i < node->n_attribute; i++) {
        const RrOnnx__Attribute *a = node->attribute[i];

        if (!a->name || !*a->name)
            rr__check_say(c, RR__ONNX_FAULT, "an attribute has no name");
        else if (!listed(op->attrs, a->name))
            rr__check_say(c, RR__ONNX_FAULT, "%s-%d has no attribute \"%.60s\"", op->name,
                          op->since, a->name);
        if (a->g || a->n_graphs)
            rr__check_say(c, RR__ONNX_NOTE, "the subgraph in \"%.60s\" was not looked into",
                          a->name ? a->name : "");
    }
    for (const char *p = strchr(op->attrs, '!'); p; p = strchr(p + 1, '!')) {
        char   name[64];
        size_t n = strcspn(p + 1, ",");

        if (n < sizeof name) {
            memcpy(name, p + 1, n);
            name[n] = '\0';
            if (!rr__check_attr(node, name))
                rr__check_say(c, RR__ONNX_FAULT, "%s-%d needs attribute \"%s\"", op->name,
                              op->since, name);
        }
    }
}

static void check_types(checker *c, const RrOnnx__Node *node, value *const *in, const op_row *op) {
    for (size_t i = 0; i < node->n_input && i < sizeof op->in_types / sizeof *op->in_types; i++) {
        const int type = in[i] ? in[i]->type : 0;

        if (op->in_types[i] && rr__onnx_type_name(type) && !(op->in_types[i] >> type & 1))
            rr__check_say(c, RR__ONNX_FAULT, "\"%.120s\" is %s, which %s-%d does not take here",
                          in[i]->name, rr__onnx_type_name(type), op->name, op->since);
    }
}

/* Arity, attributes and types against the opset; 0 when the operator is unknown. */
static int check_operator(checker *c, const RrOnnx__Node *node, value *const *in) {
    const op_row *any, *op = find_op(node->op_type, c->opset, &any);

    if (!any) {
        rr__check_say(c, RR__ONNX_FAULT, "ONNX has no operator of this name");
        return 0;
    }
    if (!op) {
        rr__check_say(c, RR__ONNX_FAULT, "the operator is newer than opset %lld",
                      (long long)c->opset);
        return 0;
    }
    if (op->deprecated)
        rr__check_say(c, RR__ONNX_FAULT, "deprecated since opset %d", op->since);
    if ((int)node->n_input < op->min_in || (op->max_in >= 0 && (int)node->n_input > op->max_in))
        rr__check_say(c, RR__ONNX_FAULT, "%zu inputs; %s-%d takes %d to %d", node->n_input,
                      op->name, op->since, op->min_in, op->max_in);
    if ((int)node->n_output < op->min_out ||
        (op->max_out >= 0 && (int)node->n_output > op->max_out))
        rr__check_say(c, RR__ONNX_FAULT, "%zu outputs; %s-%d gives %d to %d", node->n_output,
                      op->name, op->since, op->min_out, op->max_out);
    check_attributes(c, node, op);
    check_types(c, node, in, op);
    return 1;
}

static void check_node(checker *c, const RrOnnx__Node *node) {
    int     standard = !node->domain || !*node->domain || strcmp(node->domain, "ai.onnx") == 0;
    value **in = rr__arena_calloc(&c->arena, node->n_input + 1, sizeof *in);
    value **out = rr__arena_calloc(&c->arena, node->n_output + 1, sizeof *out);
    int     complete = 1;

    if (!in || !out)
        return;
    if (!node->op_type || !*node->op_type) {
        rr__check_say(c, RR__ONNX_FAULT, "no operator");
        return;
    }
    for (size_t i = 0; i < node->n_input; i++) {
        if (!*node->input[i])
            continue; /* an optional input left out */
        in[i] = rr__check_find(c, node->input[i]);
        if (!in[i]) {
            complete = 0;
            rr__check_say(c, RR__ONNX_FAULT,
                          "input \"%.120s\" is defined by nothing before this node",
                          node->input[i]);
        }
    }
    if (standard)
        complete &= check_operator(c, node, in);
    else
        rr__check_say(c, RR__ONNX_NOTE, "operator of domain \"%.60s\" was not checked",
                      node->domain);
    for (size_t i = 0; i < node->n_output; i++)
        if (*node->output[i])
            out[i] = define(c, node->output[i], "output");
    if (standard && complete)
        rr__check_infer(c, node, in, node->n_input, out, node->n_output);
    for (size_t i = 0; i < node->n_output; i++)
        c->report.n_inferred += out[i] && out[i]->type && out[i]->rank >= 0;
}

/* ---- before and around --------------------------------------------------- */

/* One protobuf field at *p: its number, wire type and (for length-delimited) contents. */
static int wire_field(const uint8_t **p, const uint8_t *end, uint64_t *field, const uint8_t **body,
                      size_t *len) {
    uint64_t v[2] = {0, 0};
    int      n = 0;

    *body = NULL;
    for (; n < 2; n++) {
        int shift = 0;

        do {
            if (*p == end || shift > 63)
                return 0;
            v[n] |= (uint64_t)(**p & 127) << shift;
            shift += 7;
        } while (*(*p)++ & 128);
        if (n == 0 && (v[0] & 7) != 0 && (v[0] & 7) != 2)
            break;
    }
    *field = v[0] >> 3;
    switch (v[0] & 7) {
    case 0:
        return 1;
    case 1:
    case 5: {
        size_t size = (v[0] & 7) == 1 ? 8 : 4;

        if ((size_t)(end - *p) < size)
            return 0;
        *p += size;
        return 1;
    }
    case 2:
        if (v[1] > (uint64_t)(end - *p))
            return 0;
        *body = *p;
        *len = (size_t)v[1];
        *p += v[1];
        return 1;
    default:
        return 0;
    }
}

/* Follow only the fields through which graphs nest (level 0 model, then graph, node, attribute in
 * turn) and refuse more than MAX_DEPTH of them: protobuf-c would recurse as deep as the file asks. */
static int nesting_ok(const uint8_t *p, const uint8_t *end, int level) {
    static const uint64_t into[4][2] = {{7, 7}, {1, 1}, {5, 5}, {6, 11}};
    int                   kind = level == 0 ? 0 : 1 + (level - 1) % 3;
    uint64_t              field;
    const uint8_t        *body;
    size_t                len = 0;

    while (p < end) {
        if (!wire_field(&p, end, &field, &body, &len))
            return 0;
        if (body && (field == into[kind][0] || field == into[kind][1]) &&
            (level >= 3 * MAX_DEPTH || !nesting_ok(body, body + len, level + 1)))
            return 0;
    }
    return 1;
}

/* An allocator that stops when a small file would grow into a large tree. */
typedef struct budget {
    size_t left;
} budget;

static void *budget_alloc(void *data, size_t size) {
    budget *b = data;

    if (size + 32 > b->left)
        return NULL;
    b->left -= size + 32;
    return malloc(size ? size : 1);
}

static void budget_free(void *data, void *p) {
    (void)data;
    free(p);
}

static void check_opsets(checker *c, const RrOnnx__Model *m) {
    if (c->report.ir_version < 3 || c->report.ir_version > 14)
        rr__check_say(c, RR__ONNX_FAULT, "ir_version %lld is none that is known (3 to 14)",
                      (long long)c->report.ir_version);
    for (size_t i = 0; i < m->n_opset_import; i++) {
        const char *domain = m->opset_import[i]->domain;

        if (domain && *domain && strcmp(domain, "ai.onnx") != 0)
            continue;
        if (c->opset)
            rr__check_say(c, RR__ONNX_FAULT, "the default operator set is imported twice");
        c->opset = m->opset_import[i]->version;
    }
    c->report.opset = c->opset;
    if (c->opset < 7 || c->opset > 28)
        rr__check_say(c, RR__ONNX_FAULT, "opset %lld is none that is known (7 to 28)",
                      (long long)c->opset);
}

static rr_status check_model(checker *c, const RrOnnx__Model *m, const char *dir, rr_error *err) {
    const RrOnnx__Graph *g = m->graph;

    c->report.ir_version = m->ir_version;
    snprintf(c->report.producer, sizeof c->report.producer, "%.40s %.20s",
             m->producer_name ? m->producer_name : "",
             m->producer_version ? m->producer_version : "");
    check_opsets(c, m);
    if (!g) {
        rr__check_say(c, RR__ONNX_FAULT, "the model has no graph");
        return RR_OK;
    }
    c->graph = g;
    c->report.n_node = g->n_node;
    c->n_bucket = 2 * (g->n_node + g->n_initializer + g->n_input) + 64;
    c->bucket = rr__arena_calloc(&c->arena, c->n_bucket, sizeof(value *));
    if (!c->bucket)
        return rr__fail(err, RR_E_NOMEM, "%zu nodes", g->n_node);
    for (size_t i = 0; i < g->n_initializer; i++)
        check_initializer(c, g->initializer[i], dir);
    check_inputs(c);
    for (c->node_at = 0; c->node_at < g->n_node; c->node_at++) {
        c->node = g->node[c->node_at];
        check_node(c, c->node);
    }
    c->node = NULL;
    check_outputs(c);
    return RR_OK;
}

rr_status rr__onnx_check(const void *bytes, size_t size, const char *dir, rr__onnx_finding_fn fn,
                         void *user, rr__onnx_report *out, rr_error *err) {
    budget             b = {((size_t)256 << 20) + 4 * size};
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &b};
    checker            c = {.fn = fn, .user = user};
    RrOnnx__Model     *m;
    rr_status          s;

    if (size > INT_MAX)
        return rr__fail(err, RR_E_FORMAT, "%zu bytes; protobuf messages end at 2 GiB", size);
    if (!size || !nesting_ok(bytes, (const uint8_t *)bytes + size, 0))
        return rr__fail(err, RR_E_FORMAT, "not a protobuf message, or graphs nested too deep");
    m = rr__onnx__model__unpack(&allocator, size, bytes);
    if (!m)
        return rr__fail(err, RR_E_FORMAT, "not an ONNX model (protobuf does not parse)");
    s = check_model(&c, m, dir, err);
    if (!s && out)
        *out = c.report;
    rr__arena_free(&c.arena);
    rr__onnx__model__free_unpacked(m, &allocator);
    return s;
}
