/* graph.h - building an ONNX graph: nodes that read like the formula, weights that stay in their
 * files until they are written.
 *
 * Every builder call returns the name of its output. A failure (memory) sticks in g->status and
 * later calls do nothing, so that export.c needs one test at its end. */
#ifndef RR_ONNX_GRAPH_H
#define RR_ONNX_GRAPH_H

#include "base/arena.h"
#include "onnx/onnx.h"

#include "onnx.pb-c.h"

/* TensorProto.DataType of the specification. */
enum {
    ONNX_FLOAT = 1,
    ONNX_UINT8 = 2,
    ONNX_INT8 = 3,
    ONNX_UINT16 = 4,
    ONNX_INT16 = 5,
    ONNX_INT32 = 6,
    ONNX_INT64 = 7,
    ONNX_STRING = 8,
    ONNX_BOOL = 9,
    ONNX_FLOAT16 = 10,
    ONNX_DOUBLE = 11,
    ONNX_UINT32 = 12,
    ONNX_UINT64 = 13,
    ONNX_BFLOAT16 = 16,
    ONNX_FLOAT8E4M3FN = 17,
    ONNX_N_TYPE = 27
};

/* AttributeProto.AttributeType. */
enum { ONNX_ATTR_FLOAT = 1, ONNX_ATTR_INT = 2, ONNX_ATTR_STRING = 3, ONNX_ATTR_INTS = 7 };

/* A weight not yet turned into bytes: the rows of up to three [out, in] tensors stacked, or a
 * vector, or a table. write.c converts it to the tensor's data_type. */
typedef struct rr__weight {
    RrOnnx__Tensor   *tensor;
    const rr__tensor *src[3];
    int               n_src;
    int               transpose; /* 1: file holds [in, out] for MatMul           */
    const float      *scale;     /* [out] divide by this and round, for int8/fp8 */
    const float      *smooth;    /* [in]  multiply by this first; NULL = none    */
    uint64_t          bytes;
    void             *made; /* converted bytes while an inline file is written */
} rr__weight;

typedef struct rr__graph {
    rr__arena     arena;
    rr_status     status;
    int32_t       opset;
    RrOnnx__Model model;
    RrOnnx__Graph graph;
    size_t        cap_node, cap_init, cap_in, cap_out, cap_meta, cap_weight, n_weight;
    rr__weight   *weight;
} rr__graph;

void rr__graph_init(rr__graph *g, int32_t opset, const char *name);
void rr__graph_free(rr__graph *g);

/* printf into the arena; for names. */
const char *rr__graph_name(rr__graph *g, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Add a node with the inputs named and one output, out. Attributes go to the last node. */
#define rr__graph_op(g, op, out, ...) rr__graph_node(g, op, out, __VA_ARGS__, (const char *)NULL)
const char *rr__graph_node(rr__graph *g, const char *op, const char *out, ...)
    __attribute__((sentinel));
void rr__graph_attr_int(rr__graph *g, const char *name, int64_t value);
void rr__graph_attr_float(rr__graph *g, const char *name, float value);
void rr__graph_attr_ints(rr__graph *g, const char *name, const int64_t *value, size_t n);
/* Give the last node one output more; returns its name. */
const char *rr__graph_more_output(rr__graph *g, const char *name);

/* Small constants, stored inline. rank 0 is a scalar. */
const char *rr__graph_ints(rr__graph *g, const char *name, const int64_t *v, size_t n, int rank);
const char *rr__graph_floats(rr__graph *g, const char *name, int type, const float *v, size_t n,
                             int rank);
/* n zeros of any one-byte type, for zero points; n = 0 is a scalar. */
const char *rr__graph_zeros(rr__graph *g, const char *name, int type, size_t n);

/* Add a weight as initializer `name` with dims [rank]; returns the record to fill src of. */
rr__weight *rr__graph_weight(rr__graph *g, const char *name, int type, int rank,
                             const int64_t *dims);

/* Graph inputs and outputs: dims that are negative are named by param[i]. */
void rr__graph_input(rr__graph *g, const char *name, int type, int rank, const int64_t *dims,
                     const char *const *param);
void rr__graph_output(rr__graph *g, const char *name, int type, int rank, const int64_t *dims,
                      const char *const *param);
void rr__graph_meta(rr__graph *g, const char *key, const char *value);

/* Bytes of one element; 0 for strings and unknown types. 4-bit types count as 1. */
size_t rr__onnx_type_size(int type);
/* "FLOAT16"; "type 99" is not here: NULL if unknown. */
const char *rr__onnx_type_name(int type);

/* write.c: weights to bytes, model to path (and path.data when external). */
rr_status rr__graph_write(rr__graph *g, const char *path, int external,
                          rr__onnx_progress_fn progress, void *user, rr_error *err);

#endif
