/* model.h - a model directory as one checked, read-only description.
 *
 * Floor 2: knows files, names and shapes; knows no text and no device. Every architecture becomes
 * the same rr__model: what differs between XLM-RoBERTa and BERT (position offset, token types,
 * tensor names) is data here, so that no backend ever asks which one it runs.
 *
 * Letters: d = d_model, f = d_ff, h = n_head, V = vocab_size, P = n_pos, T = n_type. */
#ifndef RR_MODEL_MODEL_H
#define RR_MODEL_MODEL_H

#include "base/error.h"

typedef enum rr__dtype { RR__DT_F32, RR__DT_F16, RR__DT_BF16 } rr__dtype;

/* A tensor inside a mapped file: aligned only as the file aligns it (safetensors: often 8). */
typedef struct rr__tensor {
    const void *data; /* row-major, little-endian */
    rr__dtype   dtype;
    int32_t     rank;
    int64_t     shape[4];
    size_t      bytes;
    const char *name; /* as in the file, for messages */
} rr__tensor;

/* Weights are [out, in] as PyTorch stores them: y = x W^T + b. */
typedef struct rr__layer {
    rr__tensor wq, wk, wv, wo; /* [d, d] */
    rr__tensor bq, bk, bv, bo; /* [d]    */
    rr__tensor ln1_g, ln1_b;   /* [d]    after attention */
    rr__tensor w1;             /* [f, d] */
    rr__tensor b1;             /* [f]    */
    rr__tensor w2;             /* [d, f] */
    rr__tensor b2;             /* [d]    */
    rr__tensor ln2_g, ln2_b;   /* [d]    after the feed-forward */
} rr__layer;

typedef struct rr__model {
    const char *dir, *architecture, *label;
    int32_t     n_layer, d_model, n_head, d_ff, vocab_size;
    int32_t     n_pos;      /* rows of the position table                            */
    int32_t     pos_offset; /* position of a sequence's first token: XLM-R 2, BERT 0 */
    int32_t     n_type;     /* token types in use; 1 = row 0 for every token          */
    int32_t     max_length; /* n_pos - pos_offset                                    */
    int32_t     pad_id;     /* XLM-R: this token has position pad_id and takes none; BERT: -1 */
    float       ln_eps;
    uint64_t    n_param, bytes;

    rr__tensor tok_emb;      /* [V, d] */
    rr__tensor pos_emb;      /* [P, d] */
    rr__tensor type_emb;     /* [T, d] */
    rr__tensor emb_g, emb_b; /* [d]    */
    rr__layer *layer;        /* [n_layer] */
    rr__tensor head_w;       /* [d, d] classifier.dense or pooler.dense, then tanh */
    rr__tensor head_b;       /* [d]    */
    rr__tensor out_w;        /* [1, d] */
    rr__tensor out_b;        /* [1]    */

    void *self; /* maps and arena, private to model.c */
} rr__model;

/* Open DIR/config.json and DIR/model.safetensors (or the shards of model.safetensors.index.json).
 * Checks every name, shape, dtype and offset; reads no weight. */
rr_status rr__model_open(const char *dir, rr__model **out, rr_error *err);
void      rr__model_close(rr__model *model);

/* What a layer computes, by name, in this order: qkv [.., 3d], ctx, attn_out, ln1 [.., d], ffn_mid
 * [.., f] (after GELU), ffn_out, ln2 [.., d]. */
enum { RR__LAYER_QKV = 0, RR__LAYER_FFN_MID = 4, RR__N_LAYER_OUTPUT = 7 };
extern const char *const rr__layer_output[RR__N_LAYER_OUTPUT];

/* Rows of the position table for one sequence of n <= max_length tokens. */
void rr__model_positions(const rr__model *m, const int32_t *tok, int32_t n, int32_t *pos);

/* 64 bits over the configuration's numbers and every byte of every tensor, as 16 hex digits: two
 * models that agree in it are the same. Reads the whole file (about a second for 2 GB). */
void rr__model_hash(const rr__model *m, char out[17]);
/* The same for a file's bytes. */
void rr__bytes_hash(const void *bytes, size_t size, char out[17]);

/* Copy elements [first, first + n) of a tensor to fp32. The range must lie inside. */
void rr__tensor_f32(const rr__tensor *t, size_t first, size_t n, float *out);

/* "F32", "F16", "BF16" and the bytes of one element. */
const char *rr__dtype_name(rr__dtype dtype);
size_t      rr__dtype_size(rr__dtype dtype);

#endif
