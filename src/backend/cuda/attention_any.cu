/* attention_any.cu - attention by one warp a query: fp32 models, and the last layer's first tokens.
 *
 *     out[r, head] = softmax(q[r, head] K[head]^T / sqrt(c)) V[head]
 *
 * A lane scores one key of 32, the warp shares the softmax (online, base 2, fp32) and then adds p V
 * with a lane for each value of the head. Fast enough where queries are few: in the last layer one
 * of each sequence is needed, which leaves 1 / len of the work; for fp32 it is plain, not fast.
 * Keys are taken in order from the sequence's start. Any c up to 128. */
#include "backend/cuda/device.cuh"

template <typename E> __device__ __forceinline__ float to_float(E v) {
    return (float)v;
}

/* One row: q[c] in shared memory, K and V rows of the sequence ld apart. Lane l returns values
 * l, l + 32, ... of the head. */
template <typename E>
__device__ __forceinline__ void attend(const float *q, const E *k, const E *v, int ld, int len,
                                       int c, float out[4]) {
    const int   lane = threadIdx.x & 31;
    const float scale = 1.4426950408889634f * rsqrtf((float)c);
    float       max = -INFINITY, sum = 0;

    for (int i = 0; i < 4; i++)
        out[i] = 0;
    for (int j0 = 0; j0 < len; j0 += 32) {
        float s = -INFINITY, top, shrink, p;

        if (j0 + lane < len) {
            const E *key = k + (size_t)(j0 + lane) * ld;

            s = 0;
            for (int i = 0; i < c; i += 8) {
                float x[8];

                rr_load8(key + i, x);
#pragma unroll
                for (int e = 0; e < 8; e++)
                    s += q[i + e] * x[e];
            }
            s *= scale;
        }
        top = fmaxf(max, rr_warp_max(s));
        shrink = exp2f(max - top);
        p = exp2f(s - top);
        sum = sum * shrink + rr_warp_sum(p);
        max = top;
#pragma unroll
        for (int i = 0; i < 4; i++)
            out[i] *= shrink;
        for (int j = 0; j < 32 && j0 + j < len; j++) {
            float pj = __shfl_sync(~0u, p, j);

#pragma unroll
            for (int i = 0; i < 4; i++)
                if (lane + 32 * i < c)
                    out[i] += pj * to_float(v[(size_t)(j0 + j) * ld + lane + 32 * i]);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        out[i] /= sum;
}

template <typename E> __device__ __forceinline__ void store(E *p, float v) {
    *p = (E)v;
}
template <> __device__ __forceinline__ void store(__half *p, float v) {
    *p = __float2half_rn(rr_clamp(v, 65504.f));
}

/* `rows` queries a block, one after another by each of its warps. first_only: row 0 of sequence
 * blockIdx.x, q and ctx packed [s, d]; else a tile, q within qkv. */
template <typename E, bool FIRST> __global__ void any_kernel(rr__cu_attention p, const E *q_first) {
    __shared__ float  qs[4][128];
    const int         lane = threadIdx.x & 31, warp = threadIdx.x >> 5, head = blockIdx.y;
    const int         c = p.head_dim, d = p.n_head * c;
    const rr__cu_tile tile = FIRST ? rr__cu_tile{(int)blockIdx.x, 0} : p.tile[blockIdx.x];

    if (tile.seq < 0)
        return;
    const int first = p.cu[tile.seq], len = p.cu[tile.seq + 1] - first;
    const int end = FIRST ? 1 : min(len, tile.row + RR__CU_TILE_MMA);
    const E  *qkv = (const E *)p.qkv + (size_t)first * 3 * d + head * c;

    for (int row = tile.row + warp; row < end && len > 0; row += 4) {
        const E *q = FIRST ? q_first + (size_t)tile.seq * d + head * c : qkv + (size_t)row * 3 * d;
        size_t   at = (size_t)(FIRST ? tile.seq : first + row) * p.ld_ctx + head * c;
        float    out[4];

        for (int i = lane; i < c; i += 32)
            qs[warp][i] = to_float(q[i]);
        __syncwarp();
        attend(qs[warp], qkv + d, qkv + 2 * d, 3 * d, len, c, out);
        for (int i = 0; i < 4; i++)
            if (lane + 32 * i < c) {
                if (p.out_type == RR__CU_E4M3)
                    ((uint8_t *)p.ctx)[at + lane + 32 * i] =
                        (uint8_t)rr_e4m3x2(out[i] * p.out_scale, 0);
                else
                    store((E *)p.ctx + at + lane + 32 * i, out[i] * p.out_scale);
            }
        __syncwarp();
    }
}

cudaError_t rr__cu_attention_any(const rr__cu_attention *a, cudaStream_t stream) {
    dim3 grid((unsigned)a->n_tile, (unsigned)a->n_head);

    if (a->type == RR__CU_F32)
        any_kernel<float, false><<<grid, 128, 0, stream>>>(*a, NULL);
    else if (a->type == RR__CU_F16)
        any_kernel<__half, false><<<grid, 128, 0, stream>>>(*a, NULL);
    else
        any_kernel<__nv_bfloat16, false><<<grid, 128, 0, stream>>>(*a, NULL);
    return cudaGetLastError();
}

cudaError_t rr__cu_attention_first(const rr__cu_attention *a, const void *q, cudaStream_t stream) {
    dim3 grid((unsigned)a->n_tile, (unsigned)a->n_head);

    if (a->type == RR__CU_F32)
        any_kernel<float, true><<<grid, 32, 0, stream>>>(*a, (const float *)q);
    else if (a->type == RR__CU_F16)
        any_kernel<__half, true><<<grid, 32, 0, stream>>>(*a, (const __half *)q);
    else
        any_kernel<__nv_bfloat16, true><<<grid, 32, 0, stream>>>(*a, (const __nv_bfloat16 *)q);
    return cudaGetLastError();
}
