/* onnx.h - a model as ONNX: write it, and check any ONNX file.
 *
 * Floor 4. export.c turns an rr__model into a graph, write.c puts the graph into a file with its
 * weights inside or beside it, check.c reads a file that may be hostile and says what is wrong. */
#ifndef RR_ONNX_ONNX_H
#define RR_ONNX_ONNX_H

#include "model/model.h"

enum {
    RR__ONNX_OPSET_MIN = 13,
    RR__ONNX_OPSET_DEFAULT = 17,
    RR__ONNX_OPSET_FP8 = 19, /* first with float8 types, and the default for fp8 */
    RR__ONNX_OPSET_MAX = 28
};

/* How the inputs of the matrix products are quantized (Q/DQ pairs around them). */
typedef enum rr__onnx_quant { RR__ONNX_FLOAT, RR__ONNX_INT8, RR__ONNX_FP8 } rr__onnx_quant;

/* One matrix product's calibrated input. Products are "0.qkv", "0.out", "0.ffn1", "0.ffn2", ... */
typedef struct rr__onnx_scale {
    const char  *name;
    float        amax;       /* largest magnitude kept; scale = amax / 127 (int8) or / 448 (fp8)  */
    const float *smooth;     /* [in] input is divided, weight rows multiplied by it; NULL = none  */
    int32_t      keep_float; /* 1: leave this product in the base precision                       */
} rr__onnx_scale;

typedef struct rr__onnx_opts {
    int32_t               opset; /* 0 = RR__ONNX_OPSET_DEFAULT                                   */
    rr__dtype             dtype; /* of weights and activations outside Q/DQ                      */
    rr__onnx_quant        quant; /* int8 and fp8 need scales for every product; fp8 opset >= 19  */
    const rr__onnx_scale *scale;
    size_t                n_scale;
    int         external;        /* 1: weights in FILE.data; always so above RR__ONNX_INLINE_MAX */
    int         all_outputs;     /* 1: every named activation becomes an output (for compare)  */
    const char *name, *revision; /* metadata; NULL = from the directory, none               */
} rr__onnx_opts;

#define RR__ONNX_INLINE_MAX ((uint64_t)1800 << 20) /* protobuf messages end at 2 GiB */

/* Write model as path (and path.data). Inputs input_ids, attention_mask (and token_type_ids where
 * the model has several types): int64 [batch_size, sequence_length]; output logits: float
 * [batch_size, 1]. progress (may be NULL) is called with bytes of weights written so far. */
typedef void (*rr__onnx_progress_fn)(void *user, uint64_t done, uint64_t total);
rr_status rr__onnx_export(const rr__model *m, const rr__onnx_opts *o, const char *path,
                          rr__onnx_progress_fn progress, void *user, rr_error *err);

/* What a check found; one call per finding, the worst first is not promised. */
typedef enum rr__onnx_level { RR__ONNX_NOTE, RR__ONNX_WARNING, RR__ONNX_FAULT } rr__onnx_level;
typedef void (*rr__onnx_finding_fn)(void *user, rr__onnx_level level, const char *text);

typedef struct rr__onnx_report {
    int64_t  ir_version, opset;
    size_t   n_node, n_initializer, n_input, n_output;
    uint64_t weight_bytes;
    size_t   n_fault, n_warning, n_inferred; /* tensors whose type and shape were inferred */
    char     producer[64];
} rr__onnx_report;

/* Check bytes as an ONNX model: structure, names, order, operators against the opset, types and
 * shapes, initialisers in bounds, dynamic axes. dir resolves external data; NULL = not looked at.
 * RR_OK with findings when the bytes parse, even if faulty; RR_E_FORMAT when they do not parse. */
rr_status rr__onnx_check(const void *bytes, size_t size, const char *dir, rr__onnx_finding_fn fn,
                         void *user, rr__onnx_report *out, rr_error *err);

#endif
