/* check.h - shared by the parts of the ONNX checker: check.c (structure) and infer.c (types). */
#ifndef RR_ONNX_CHECK_H
#define RR_ONNX_CHECK_H

#include "onnx/graph.h"

enum { CHECK_MAX_RANK = 8 };

/* A dimension: a number, a name, or unknown. */
typedef struct dim {
    int64_t     value; /* -1 when symbolic or unknown */
    const char *param; /* NULL when unknown           */
} dim;

/* What is known of a named value. */
typedef struct value {
    const char    *name;
    int            type; /* 0 = unknown  */
    int            rank; /* -1 = unknown */
    dim            dim[CHECK_MAX_RANK];
    const int64_t *ints; /* contents of a small int64 initializer, for Reshape and the like */
    size_t         n_ints;
    struct value  *next; /* in its hash bucket */
} value;

typedef struct checker {
    rr__arena            arena;
    rr__onnx_finding_fn  fn;
    void                *user;
    rr__onnx_report      report;
    int64_t              opset;
    value              **bucket;
    size_t               n_bucket;
    const RrOnnx__Graph *graph;
    const RrOnnx__Node  *node; /* being checked, for messages */
    size_t               node_at;
} checker;

/* Report a finding; inside a node the text starts with its place, name and operator. */
void rr__check_say(checker *c, rr__onnx_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The value of a name, or NULL. */
value *rr__check_find(const checker *c, const char *name);

const RrOnnx__Attribute *rr__check_attr(const RrOnnx__Node *node, const char *name);

/* Infer types and shapes of the node's outputs from its inputs; in[i] is NULL where an optional
 * input is left out. Reports what cannot be. Unknown operators leave their outputs unknown. */
void rr__check_infer(checker *c, const RrOnnx__Node *node, value *const *in, size_t n_in,
                     value *const *out, size_t n_out);

#endif
