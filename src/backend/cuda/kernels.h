/* kernels.h - every device operation of the CUDA backend, as a C function that launches it.
 *
 * Floor 4, the line between host logic (C) and kernels (.cu). A launch takes one plain struct,
 * puts work on a stream and returns the launch's error; it never allocates, never waits, and may
 * be captured in a graph, so whatever differs between two batches of one bucket (lengths, tiles,
 * ids) lies in device memory. Pointers are device pointers, 16-byte aligned; row strides ("ld")
 * count elements and are multiples of 16 bytes.
 *
 * Bits: a row of any result depends on that row's inputs only, not on m, on its place in the batch
 * or on which kernel of a family ran. So every GEMM adds k = 0, 1, 2, ... steps of 32 bytes in
 * this order into one fp32 (int8: int32) accumulator, and no kernel splits k but for
 * RR__CU_SPLIT; outliers (below) are added one by one behind that, in the order of the row's note.
 *
 * Letters: n = n_tok, s = n_seq, d = d_model, f = d_ff, h = n_head, c = d / h
 * (docs/GLOSSARY.md). */
#ifndef RR_BACKEND_CUDA_KERNELS_H
#define RR_BACKEND_CUDA_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum rr__cu_type {
    RR__CU_F32, /* a GEMM over f32 rounds its operands to tf32 */
    RR__CU_F16,
    RR__CU_BF16,
    RR__CU_E4M3, /* sm_89 on */
    RR__CU_S8
} rr__cu_type;

/* Trained encoders have a few values in a row that are ten or fifty times the rest. In int8 they
 * would set the row's scale and be most of all error, so those beyond RR__CU_BEYOND times the
 * row's root mean square, RR__CU_OUTLIERS of them at most, are not in the int8 row: the row's note
 * has them as they are. */
#define RR__CU_OUTLIERS 16
#define RR__CU_BEYOND   4.0f

typedef struct rr__cu_note {
    int32_t j[RR__CU_OUTLIERS]; /* columns; -1 ends the list */
    float   x[RR__CU_OUTLIERS];
} rr__cu_note;

/* ---- GEMM ------------------------------------------------------------------
 *     v[i, j] = w_scale[j] * (a_scale[i] * sum_k a[i, k] w[j, k] + sum_note[i] x w[j, k]) + bias[j]
 *     BIAS      out = v
 *     GELU      out = v / 2 * (1 + erf(v / sqrt 2))
 *     RESIDUAL  out = v + residual[i, j]
 *     d[i, j] = round(out_scale * out)         saturated to the finite range of d's type
 *     SPLIT     d[h, i, j] = v of half h of k, without bias, in f32: the LayerNorm behind adds them
 * FLOPs 2 m n k. n is a multiple of 8, k of 32 bytes; m is any number from 1. */
typedef enum rr__cu_epilogue {
    RR__CU_BIAS,
    RR__CU_GELU,
    RR__CU_RESIDUAL,
    RR__CU_SPLIT /* rr__cu_gemm_sm90 only */
} rr__cu_epilogue;

typedef struct rr__cu_gemm {
    rr__cu_type     type;     /* of a and w                                                     */
    rr__cu_type     out_type; /* of d: a 16-bit type or f32; with GELU and type E4M3 also E4M3  */
    rr__cu_epilogue epilogue;
    int32_t         m, n, k;
    const void     *a;       /* [m, k] stride lda                                              */
    const void     *w;       /* [n, k] packed, as PyTorch stores it                            */
    const float    *bias;    /* [n]                                                            */
    const float    *a_scale; /* [m] of E4M3 and S8, NULL = all 1                               */
    const float    *w_scale; /* [n] of E4M3 and S8, NULL = all 1                               */
    const rr__cu_note *note; /* [m] of S8: what is not in a; NULL = nothing                    */
    const void *residual;    /* [m, n] stride ldd, out_type; may be d itself                   */
    void       *d;           /* [m, n] stride ldd; not a                                       */
    int32_t     lda, ldd;
    float       out_scale; /* 1, or 1/64 before a LayerNorm in fp16, or what fills E4M3     */
    int32_t     backward;  /* rr__cu_gemm_sm90: the last rows first                         */
} rr__cu_gemm;

/* Up to so many tiles of 64 x 64, half of Hopper's multiprocessors, k is worth splitting. */
#define RR__CU_SPLIT_TILES 66
#define RR__CU_SPLIT_SIZE  (2 * RR__CU_SPLIT_TILES * 64 * 64)

/* GELU to E4M3 is computed in fp16, where 1 / out_scale between these is exact and loses nothing
 * that 65,504 holds. */
#define RR__CU_GELU_LEAST 0x1p-15f
#define RR__CU_GELU_MOST  0x1p8f

/* mma.sync, sm_80 on, every type and epilogue. */
cudaError_t rr__cu_gemm_mma(const rr__cu_gemm *g, cudaStream_t stream);
/* wgmma and TMA, sm_90a only: F16, BF16, E4M3 where rr__cu_gemm_sm90_fits says 1. */
int rr__cu_gemm_sm90_fits(const rr__cu_gemm *g);
/* Do so few rows want SPLIT, which keeps more of the card busy? d has RR__CU_SPLIT_SIZE values then
 * at most. */
int         rr__cu_gemm_sm90_splits(const rr__cu_gemm *g);
cudaError_t rr__cu_gemm_sm90(const rr__cu_gemm *g, cudaStream_t stream);

/* ---- attention --------------------------------------------------------------
 *     ctx[t, head] = softmax(q[t, head] K[head]^T / sqrt(c)) V[head]      over t's own sequence
 * One block a tile of query rows and head. The host lists the tiles, longest sequence first; a tile
 * with seq < 0 is nothing, so that a graph can have a grid for its whole bucket.
 * FLOPs 4 d sum(len^2). */
typedef struct rr__cu_tile {
    int32_t seq, row; /* rows row .. row + height - 1 of sequence seq, as far as it has them */
} rr__cu_tile;

typedef struct rr__cu_attention {
    rr__cu_type        type;     /* of qkv: F16, BF16 or F32                                    */
    rr__cu_type        out_type; /* of ctx: the same, or E4M3                                   */
    int32_t            n_head, head_dim, n_tile;
    int32_t            n_row; /* rows that may be read at qkv, from cu[s] on of any value     */
    const void        *qkv;   /* [n, 3d] packed: q of all heads, then k, then v             */
    const int32_t     *cu;    /* [s + 1]                                                    */
    const rr__cu_tile *tile;  /* [n_tile]                                                   */
    void              *ctx;   /* [n, d] stride ld_ctx; may be the q part of qkv (in place)  */
    int32_t            ld_ctx;
    float              out_scale; /* ctx is multiplied by this before rounding (E4M3), else 1   */
    int32_t            fast;      /* rr__cu_attention_sm90: the keys of few rows may be split   */
} rr__cu_attention;

#define RR__CU_TILE_MMA  64  /* query rows of a tile of rr__cu_attention_mma  */
#define RR__CU_TILE_SM90 128 /* query rows of a tile of rr__cu_attention_sm90 */

/* mma.sync, sm_80 on, c = 32 or 64, F16 and BF16. */
int         rr__cu_attention_mma_fits(const rr__cu_attention *a);
cudaError_t rr__cu_attention_mma(const rr__cu_attention *a, cudaStream_t stream);
/* wgmma and TMA, sm_90a, c = 64, F16 and BF16. */
int         rr__cu_attention_sm90_fits(const rr__cu_attention *a);
cudaError_t rr__cu_attention_sm90(const rr__cu_attention *a, cudaStream_t stream);
/* One warp a query: F32, any c up to 128; tiles of RR__CU_TILE_MMA rows. */
cudaError_t rr__cu_attention_any(const rr__cu_attention *a, cudaStream_t stream);
/* Only the first token of each sequence asks: q and ctx [s, d]; n_tile = s, tile is not read. */
cudaError_t rr__cu_attention_first(const rr__cu_attention *a, const void *q, cudaStream_t stream);

/* ---- rows: embedding, LayerNorm, quantisation, head (rows.cu) ----------------- */

#define RR__CU_MAX_WIDTH 1024      /* widest d_model a LayerNorm holds in registers  */
#define RR__CU_TYPE1     INT32_MIN /* set in pos[t] where token t has token type 1   */

/* Rows to 8 bits: q = v * inv_smooth / scale. The scale is one for all rows, beyond which values
 * saturate, or each row's own, which its largest value just reaches. */
typedef struct rr__cu_quant {
    rr__cu_type  type;       /* E4M3 or S8                                               */
    void        *q;          /* [rows, cols] packed; NULL: nothing is quantised          */
    const float *inv_smooth; /* [cols], or NULL = all 1                                  */
    float        scale;      /* of all rows, or 0: each row's own, at row_scale          */
    float       *row_scale;  /* [rows]                                                   */
    rr__cu_note *note;       /* [rows] of S8 with a scale a row, else NULL               */
} rr__cu_quant;

typedef struct rr__cu_norm {
    rr__cu_type  type; /* of in and out: F32, F16, BF16                                  */
    int32_t      rows, d;
    float        eps;
    const void  *in;           /* [rows, d]                                              */
    const float *gamma, *beta; /* [d]                                                    */
    void        *out;          /* [rows, d]; may be in                                   */
    const float *halves;       /* [2, rows, d] of a SPLIT, added to in with bias; or NULL */
    const float *bias;         /* [d] beside halves                                      */
    int32_t      backward;     /* the last rows first                                    */
    rr__cu_quant to;           /* out, before it is rounded, in 8 bits                   */
} rr__cu_norm;

typedef struct rr__cu_embed {
    const int32_t *tok;                    /* [rows]                            */
    const int32_t *pos;                    /* [rows] row of the position table  */
    const void    *word, *type, *position; /* [V, d], [T, d], [P, d]            */
} rr__cu_embed;

cudaError_t rr__cu_layernorm(const rr__cu_norm *p, cudaStream_t stream);
/* The same of word + type + position; p->in is not read. */
cudaError_t rr__cu_embed_layernorm(const rr__cu_norm *p, const rr__cu_embed *e,
                                   cudaStream_t stream);
/* in [rows, cols] stride ld, F32, F16 or BF16, as 8 bits; cols is a multiple of 8 */
cudaError_t rr__cu_quantise_rows(rr__cu_type in_type, const void *in, int32_t ld, int32_t rows,
                                 int32_t cols, const rr__cu_quant *to, cudaStream_t stream);
/* to[i, :] = from[cu[i], :], i < rows; rows of `bytes`, a multiple of 4 */
cudaError_t rr__cu_gather_first(const void *from, void *to, const int32_t *cu, int32_t rows,
                                int32_t bytes, cudaStream_t stream);

typedef struct rr__cu_head_args {
    rr__cu_type  type; /* of x                             */
    int32_t      rows, d;
    const void  *x;             /* [rows, d]                        */
    const float *w, *b;         /* [d, d], [d]                      */
    const float *out_w, *out_b; /* [d], [1]                         */
    float       *t;             /* [rows, d] tanh(x w^T + b)        */
    float       *logits;        /* [rows] t . out_w + out_b         */
} rr__cu_head_args;

cudaError_t rr__cu_head(const rr__cu_head_args *p, cudaStream_t stream);

/* ---- at load (convert.cu) ------------------------------------------------------ */

/* dst[i] = src[i] for n values; F32, F16, BF16 */
cudaError_t rr__cu_convert(const void *src, rr__cu_type from, void *dst, rr__cu_type to, size_t n,
                           cudaStream_t stream);
/* dst[j, :] = src[j, :] / inv_smooth / scale[j] as E4M3 or S8; inv_smooth [k] or NULL = all 1 */
cudaError_t rr__cu_quantise_weight(const void *src, rr__cu_type from, int32_t rows, int32_t k,
                                   const float *inv_smooth, void *dst, rr__cu_type to, float *scale,
                                   cudaStream_t stream);
/* bound[j] = the largest |src[j, :] LN(x) + bias[j]| any x can give */
cudaError_t rr__cu_bound_rows(const void *src, rr__cu_type from, int32_t rows, int32_t k,
                              const float *gamma, const float *beta, const float *bias,
                              float *bound, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
