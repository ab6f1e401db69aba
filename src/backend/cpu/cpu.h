/* cpu.h - the cpu backend's weights and instances; weights.c, forward.c and cpu.c share it. */
#ifndef RR_BACKEND_CPU_CPU_H
#define RR_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "base/pool.h"

/* Memory planned in two passes over the same calls: the first counts, the second hands out. */
typedef struct rr__plan {
    char  *base; /* NULL while counting */
    size_t used;
} rr__plan;
void     *rr__plan_take(rr__plan *p, size_t n, size_t size);
rr_status rr__plan_alloc(rr__plan *p, const char *what, rr_error *err); /* after counting */

typedef struct rr__cpu_layer {
    rr__kind   attend; /* kind of the products of attention; bf16: q, k, v and ctx are bf16 too */
    rr__packed q, k, v, o, f1, f2;
    float     *k_mean;                        /* [d] what keys are kept without; NULL = nothing */
    float     *ln1_g, *ln1_b, *ln2_g, *ln2_b; /* [d] */
} rr__cpu_layer;

typedef struct rr__cpu_weights {
    const rr__model   *m;
    rr__backend_opts   opts;
    rr__precision      precision;
    rr__kind           half; /* of attention and all that is not int8 */
    const rr__kernels *kx;
    rr__cpu_layer     *layer;                 /* [n_layer]                      */
    rr__packed         head;                  /* fp32                           */
    float             *emb_g, *emb_b, *out_w; /* [d]            */
    float              out_b;
    rr__plan           plan;
} rr__cpu_weights;

rr_status rr__cpu_load(const rr__model *m, const rr__backend_opts *o, void **weights,
                       rr_error *err);
void      rr__cpu_unload(void *weights);

/* Scratch of one thread. Letters: T = kernels' tile + spare rows, P = max_length rounded up to nr. */
typedef struct rr__cpu_worker {
    uint32_t *a;       /* [T, terms of max(d, f) + 64]  left operand               */
    rr__note *note;    /* [T]                        about its rows                */
    float    *y;       /* [T, d + 32]                sublayer output               */
    float    *mid;     /* [T, f + 32]                after GELU, fp32 or bf16      */
    float    *scores;  /* [mr, P + 16]                                             */
    uint32_t *kp, *vp; /* see rr__head */
    uint32_t *qt, *probs;
} rr__cpu_worker;

/* One pass's activations for observe; all fp32, row-major without gaps. */
typedef struct rr__cpu_seen {
    float *attn_out, *ln1, *ffn_mid, *ffn_out; /* [n_tok, d] but ffn_mid [n_tok, f] */
    float *dense;                              /* [n_tok, max(3d, f)] for showing   */
} rr__cpu_seen;

/* One instance. Letters: n = max_batch_tokens, s = max_batch_seqs. ld = d + 32. */
typedef struct rr__cpu {
    const rr__cpu_weights *w;
    rr__pool              *pool;
    int32_t                threads;
    rr__cpu_worker        *worker; /* [threads] */
    int32_t               *pos;    /* [n]                                        */
    int32_t               *seq;    /* [n]      the sequence of each token        */
    float                 *x;      /* [n, ld]  residual stream                   */
    void                  *qkv;    /* [n, 3d + 32]  fp32, or bf16                */
    void                  *ctx;    /* [n, d + 32]   the same                     */
    float                 *xs;     /* [s, ld]  x of each sequence's first token  */
    void                  *qs;     /* [s, d + 32]  its query in the last layer   */
    float                 *head;   /* [s, d]                                     */
    rr__plan               plan;
    /* of the pass that runs */
    const rr__batch    *b;
    float              *logits;
    int32_t             layer, tile; /* tile: rows of a work item, <= kernels' tile */
    const rr__cpu_seen *seen;        /* NULL but in observe             */
} rr__cpu;

/* Elements between rows of x, of ctx and qs, and of qkv: apart from powers of two, where rows would
 * compete for the same cache sets. */
size_t rr__cpu_ld(int32_t d);

void      rr__cpu_forward(rr__cpu *c, const rr__batch *b, float *logits);
rr_status rr__cpu_observe(void *instance, const rr__batch *b, float *logits, rr__observe_fn fn,
                          void *user, rr_error *err);

#endif
