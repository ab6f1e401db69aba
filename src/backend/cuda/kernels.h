/* kernels.h - every device operation of the CUDA backend, as a C function that launches it.
 *
 * Floor 4, the line between host logic (C) and kernels (.cu). A launch takes one plain struct, puts
 * work on a stream and returns the launch's error; it never allocates, never waits, and may be
 * captured in a graph, so whatever differs between two batches of one bucket (lengths, tiles, ids)
 * lies in device memory. Pointers are device pointers, 16-byte aligned; row strides ("ld") count
 * elements and are multiples of 16 bytes.
 *
 * Bits: a row of any result depends on that row's inputs only, not on m, on its place in the batch
 * or on which kernel of a family ran. So every GEMM adds k = 0, 1, 2, ... steps of 32 bytes in this
 * order into one fp32 (int8: int32) accumulator, and no kernel splits k.
 *
 * Letters: n = n_tok, s = n_seq, d = d_model, f = d_ff, h = n_head, c = d / h (docs/GLOSSARY.md). */
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

/* ---- GEMM ------------------------------------------------------------------
 *     v[i, j] = a_scale[i] * w_scale[j] * sum_k a[i, k] w[j, k] + bias[j]
 *     BIAS      out = v
 *     GELU      out = v / 2 * (1 + erf(v / sqrt 2))
 *     RESIDUAL  out = v + residual[i, j]
 *     d[i, j] = round(out_scale * out)         saturated to the finite range of d's type
 * FLOPs 2 m n k. n is a multiple of 8, k of 32 bytes; m is any number from 1. */
typedef enum rr__cu_epilogue { RR__CU_BIAS, RR__CU_GELU, RR__CU_RESIDUAL } rr__cu_epilogue;

typedef struct rr__cu_gemm {
    rr__cu_type     type;     /* of a and w                                                     */
    rr__cu_type     out_type; /* of d: a 16-bit type or f32; with GELU and type E4M3 also E4M3  */
    rr__cu_epilogue epilogue;
    int32_t         m, n, k;
    const void     *a;        /* [m, k] stride lda                                              */
    const void     *w;        /* [n, k] packed, as PyTorch stores it                            */
    const float    *bias;     /* [n]                                                            */
    const float    *a_scale;  /* [m] of E4M3 and S8, NULL = all 1                               */
    const float    *w_scale;  /* [n] of E4M3 and S8, NULL = all 1                               */
    const void     *residual; /* [m, n] stride ldd, out_type; may be d itself                   */
    void           *d;        /* [m, n] stride ldd; not a                                       */
    int32_t         lda, ldd;
    float           out_scale; /* 1, or 1/64 before a LayerNorm in fp16, or what fills E4M3     */
} rr__cu_gemm;

/* mma.sync, sm_80 on, every type and epilogue. */
cudaError_t rr__cu_gemm_mma(const rr__cu_gemm *g, cudaStream_t stream);
/* wgmma and TMA, sm_90a only: F16, BF16, E4M3 where rr__cu_gemm_sm90_fits says 1. */
int         rr__cu_gemm_sm90_fits(const rr__cu_gemm *g);
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
    const void        *qkv;       /* [n, 3d] packed: q of all heads, then k, then v             */
    const int32_t     *cu;        /* [s + 1]                                                    */
    const rr__cu_tile *tile;      /* [n_tile]                                                   */
    void              *ctx;       /* [n, d] stride ld_ctx; may be the q part of qkv (in place)  */
    int32_t            ld_ctx;
    float              out_scale; /* ctx is multiplied by this before rounding (E4M3), else 1   */
} rr__cu_attention;

#define RR__CU_TILE_MMA  64  /* query rows of a tile of rr__cu_attention_mma  */
#define RR__CU_TILE_SM90 128 /* query rows of a tile of rr__cu_attention_sm90 */

/* mma.sync, sm_80 on, c = 32 or 64, F16 and BF16. */
int         rr__cu_attention_mma_fits(const rr__cu_attention *a);
cudaError_t rr__cu_attention_mma(const rr__cu_attention *a, cudaStream_t stream);
/* wgmma and TMA, sm_90a, c = 64, F16 and BF16. */
int         rr__cu_attention_sm90_fits(const rr__cu_attention *a);
cudaError_t rr__cu_attention_sm90(const rr__cu_attention *a, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
