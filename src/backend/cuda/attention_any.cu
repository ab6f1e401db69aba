/* attention_any.cu - attention by warps, one query at a time: fp32 models, and the last layer, where
 * only the first token of each sequence asks.
 *
 *     out[r, head] = softmax(q[r, head] K[head]^T / sqrt(c)) V[head]
 *
 * A lane scores one key of 32, the warp shares the softmax (online, base 2, fp32) and then adds p V
 * with a lane for each value of the head. In the last layer that is 1 / len of the work of the
 * others, and four warps share a sequence: warp w takes keys 32 w .. 32 w + 31 of every 128, and
 * their sums are joined in the order of w, so the bits depend on the sequence alone. For fp32 it
 * is plain, not fast. Any c up to 128. */
#include "backend/cuda/device.cuh"

template <typename E> __device__ __forceinline__ float to_float(E v) {
    return (float)v;
}

/* Softmax over some keys, before the division: the result is out / sum, at scale 2^max. */
struct partial {
    float max, sum, out[4]; /* lane l has values l, l + 32, ... of the head */
};

/* One query q[c] in shared memory against keys from, from + 1, ... + 31, then `stride` further. */
template <typename E>
__device__ __forceinline__ partial attend(const float *q, const E *k, const E *v, int ld, int from,
                                          int stride, int len, int c) {
    const int   lane = threadIdx.x & 31;
    const float scale = 1.4426950408889634f * rsqrtf((float)c);
    partial     r = {-INFINITY, 0, {0, 0, 0, 0}};

    for (int j0 = from; j0 < len; j0 += stride) {
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
        top = fmaxf(r.max, rr_warp_max(s));
        shrink = exp2f(r.max - top);
        p = exp2f(s - top);
        r.sum = r.sum * shrink + rr_warp_sum(p);
        r.max = top;
#pragma unroll
        for (int i = 0; i < 4; i++)
            r.out[i] *= shrink;
        const int n = min(32, len - j0);
#pragma unroll 8
        for (int j = 0; j < n; j++) {
            float pj = __shfl_sync(~0u, p, j);

#pragma unroll
            for (int i = 0; i < 4; i++)
                if (lane + 32 * i < c)
                    r.out[i] += pj * to_float(v[(size_t)(j0 + j) * ld + lane + 32 * i]);
        }
    }
    return r;
}

template <typename E> __device__ __forceinline__ void store(E *p, float v) {
    *p = (E)v;
}
template <> __device__ __forceinline__ void store(__half *p, float v) {
    *p = __float2half_rn(rr_clamp(v, 65504.f));
}

/* Lane by lane, value * out_scale at ctx[at], as its type. */
template <typename E>
__device__ __forceinline__ void store_head(const rr__cu_attention &p, size_t at, const float v[4]) {
    const int lane = threadIdx.x & 31;

#pragma unroll
    for (int i = 0; i < 4; i++) {
        size_t to = at + lane + 32 * i;

        if (lane + 32 * i >= p.head_dim)
            break;
        if (p.out_type == RR__CU_E4M3)
            ((uint8_t *)p.ctx)[to] = (uint8_t)rr_e4m3x2(v[i] * p.out_scale, 0);
        else
            store((E *)p.ctx + to, v[i] * p.out_scale);
    }
}

/* A tile of queries of one head, every fourth row a warp. */
template <typename E> __global__ void __launch_bounds__(128) any_kernel(rr__cu_attention p) {
    __shared__ float qs[4][128];
    const int        lane = threadIdx.x & 31, warp = threadIdx.x >> 5, head = blockIdx.y;
    const int        c = p.head_dim, d = p.n_head * c;

    rr_wait_before();
    const rr__cu_tile tile = p.tile[blockIdx.x];
    if (tile.seq < 0)
        return;
    const int first = p.cu[tile.seq], len = p.cu[tile.seq + 1] - first;
    const int end = min(len, tile.row + RR__CU_TILE_MMA);
    const E  *qkv = (const E *)p.qkv + (size_t)first * 3 * d + head * c;

    for (int row = tile.row + warp; row < end; row += 4) {
        for (int i = lane; i < c; i += 32)
            qs[warp][i] = to_float(qkv[(size_t)row * 3 * d + i]);
        __syncwarp();
        partial r = attend(qs[warp], qkv + d, qkv + 2 * d, 3 * d, 0, 32, len, c);
#pragma unroll
        for (int i = 0; i < 4; i++)
            r.out[i] /= r.sum;
        store_head<E>(p, (size_t)(first + row) * p.ld_ctx + head * c, r.out);
        __syncwarp();
    }
}

/* The first token of sequence blockIdx.x, one head; q and ctx are [s, d]. */
template <typename E>
__global__ void __launch_bounds__(128) first_kernel(rr__cu_attention p, const E *q) {
    __shared__ float   qs[128];
    __shared__ partial part[4][32];
    const int          lane = threadIdx.x & 31, warp = threadIdx.x >> 5, head = blockIdx.y;
    const int          c = p.head_dim, d = p.n_head * c;

    rr_wait_before();
    const int    first = p.cu[blockIdx.x], len = p.cu[blockIdx.x + 1] - first;
    const size_t at = (size_t)blockIdx.x * d + head * c;
    const E     *qkv = (const E *)p.qkv + (size_t)first * 3 * d + head * c;
    partial      all = {-INFINITY, 0, {0, 0, 0, 0}};

    if (len <= 0) /* padding of a graph's bucket */
        return;
    if (threadIdx.x < c)
        qs[threadIdx.x] = to_float(q[at + threadIdx.x]);
    __syncthreads();
    part[warp][lane] = attend(qs, qkv + d, qkv + 2 * d, 3 * d, warp * 32, 128, len, c);
    __syncthreads();
    if (warp)
        return;
#pragma unroll
    for (int w = 0; w < 4; w++)
        all.max = fmaxf(all.max, part[w][lane].max);
#pragma unroll
    for (int w = 0; w < 4; w++) {
        float shrink = exp2f(part[w][lane].max - all.max);

        all.sum += part[w][lane].sum * shrink;
#pragma unroll
        for (int i = 0; i < 4; i++)
            all.out[i] += part[w][lane].out[i] * shrink;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        all.out[i] /= all.sum;
    store_head<E>(p, at, all.out);
}

template <typename E> static cudaError_t any(const rr__cu_attention *a, cudaStream_t stream) {
    return rr_launch(any_kernel<E>, dim3((unsigned)a->n_tile, (unsigned)a->n_head), 128, 0, stream,
                     *a);
}

cudaError_t rr__cu_attention_any(const rr__cu_attention *a, cudaStream_t stream) {
    return a->type == RR__CU_F32   ? any<float>(a, stream)
           : a->type == RR__CU_F16 ? any<__half>(a, stream)
                                   : any<__nv_bfloat16>(a, stream);
}

template <typename E>
static cudaError_t of_first(const rr__cu_attention *a, const void *q, cudaStream_t stream) {
    return rr_launch(first_kernel<E>, dim3((unsigned)a->n_tile, (unsigned)a->n_head), 128, 0,
                     stream, *a, (const E *)q);
}

cudaError_t rr__cu_attention_first(const rr__cu_attention *a, const void *q, cudaStream_t stream) {
    return a->type == RR__CU_F32   ? of_first<float>(a, q, stream)
           : a->type == RR__CU_F16 ? of_first<__half>(a, q, stream)
                                   : of_first<__nv_bfloat16>(a, q, stream);
}
