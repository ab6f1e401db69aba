/* attention_any.cu - attention by warps, one query at a time: fp32 models, and the last layer,
 * where only the first token of each sequence asks.
 *
 *     out[r, head] = softmax(q[r, head] K[head]^T / sqrt(c)) V[head]
 *
 * A warp takes 32 keys at a time. G lanes share a key, eight values each, so that a key, and later
 * its values, are read as one piece; the softmax (online, base 2, fp32) is the warp's. In the last
 * layer, 1 / len of the work of the others, sixteen warps share a sequence: warp w takes keys
 * 32 w .. 32 w + 31 of every 512, and their sums are joined in the order of w, so the bits depend
 * on the sequence alone. For fp32 it is plain, not fast. c = 8 G is 16, 32 or 64. */
#include "backend/cuda/device.cuh"

enum { FIRST = 16 }; /* warps that share a sequence in the last layer */

/* Softmax over some keys, before the division: the result is out / sum, at scale 2^max. Lane l has
 * values 8 (l % G) .. + 7 of the head. */
struct partial {
    float max, sum, out[8];
};

/* v of the lanes that have the same place in their groups of G: their sum. */
template <int G> __device__ __forceinline__ float sum_of_groups(float v) {
#pragma unroll
    for (int i = 16; i >= G; i >>= 1)
        v += __shfl_xor_sync(~0u, v, i);
    return v;
}

/* One query, this lane's part of it, against keys from, from + 1, ... + 31, then `stride` on. */
template <int G, typename E>
__device__ __forceinline__ partial attend(const float q[8], const E *k, const E *v, int ld,
                                          int from, int stride, int len) {
    const int   at = 8 * ((threadIdx.x & 31) % G), group = (threadIdx.x & 31) / G;
    const float scale = 1.4426950408889634f * rsqrtf(8.f * G);
    partial     r = {-INFINITY, 0, {}};

    for (int j0 = from; j0 < len; j0 += stride) {
        float s[G], top = r.max, sum = 0, shrink;

#pragma unroll
        for (int i = 0; i < G; i++) {
            const int j = j0 + i * (32 / G) + group;
            float     x[8];

            s[i] = 0;
            if (j < len) {
                rr_load8(k + (size_t)j * ld + at, x);
#pragma unroll
                for (int e = 0; e < 8; e++)
                    s[i] += q[e] * x[e];
            }
        }
#pragma unroll
        for (int i = 0; i < G; i++) {
#pragma unroll
            for (int x = 1; x < G; x <<= 1)
                s[i] += __shfl_xor_sync(~0u, s[i], x);
            s[i] = j0 + i * (32 / G) + group < len ? s[i] * scale : -INFINITY;
            top = fmaxf(top, s[i]);
        }
        top = rr_warp_max(top);
        shrink = exp2f(r.max - top);
        r.max = top;
#pragma unroll
        for (int e = 0; e < 8; e++)
            r.out[e] *= shrink;
#pragma unroll
        for (int i = 0; i < G; i++) {
            const int j = j0 + i * (32 / G) + group;
            float     x[8];

            s[i] = exp2f(s[i] - top);
            sum += s[i];
            if (j < len) {
                rr_load8(v + (size_t)j * ld + at, x);
#pragma unroll
                for (int e = 0; e < 8; e++)
                    r.out[e] += s[i] * x[e];
            }
        }
        r.sum = r.sum * shrink + sum_of_groups<G>(sum);
    }
#pragma unroll
    for (int e = 0; e < 8; e++)
        r.out[e] = sum_of_groups<G>(r.out[e]);
    return r;
}

/* Eight values at ctx[at], as its type. */
template <typename E>
__device__ __forceinline__ void store(const rr__cu_attention &p, size_t at, const float v[8]) {
    if (p.out_type == RR__CU_E4M3)
        rr_store8_quantised((uint8_t *)p.ctx + at, RR__CU_E4M3, v, p.out_scale);
    else
        rr_store8((E *)p.ctx + at, v);
}

/* A tile of queries of one head, every fourth row a warp. */
template <typename E, int G>
__global__ void __launch_bounds__(128) any_kernel(rr__cu_attention p) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, head = blockIdx.y, at = 8 * lane;
    const int c = 8 * G, d = p.n_head * c;

    rr_wait_before();
    const rr__cu_tile tile = p.tile[blockIdx.x];
    if (tile.seq < 0)
        return;
    const int first = p.cu[tile.seq], len = p.cu[tile.seq + 1] - first;
    const int end = min(len, tile.row + RR__CU_TILE_MMA);
    const E  *qkv = (const E *)p.qkv + (size_t)first * 3 * d + head * c;

    for (int row = tile.row + warp; row < end; row += 4) {
        float q[8];

        rr_load8(qkv + (size_t)row * 3 * d + 8 * (lane % G), q);
        partial r = attend<G>(q, qkv + d, qkv + 2 * d, 3 * d, 0, 32, len);
#pragma unroll
        for (int e = 0; e < 8; e++)
            r.out[e] /= r.sum;
        __syncwarp(); /* ctx may lie where q was */
        if (at < c)
            store<E>(p, (size_t)(first + row) * p.ld_ctx + head * c + at, r.out);
    }
}

/* The first token of sequence blockIdx.x, one head; q and ctx are [s, d]. */
template <typename E, int G>
__global__ void __launch_bounds__(32 * FIRST) first_kernel(rr__cu_attention p, const E *query) {
    __shared__ float max[FIRST], sum[FIRST], out[FIRST][8 * G];
    const int        lane = threadIdx.x & 31, warp = threadIdx.x >> 5, head = blockIdx.y;
    const int        c = 8 * G, d = p.n_head * c, at = 8 * threadIdx.x;
    float            q[8];

    const int    first = p.cu[blockIdx.x], len = p.cu[blockIdx.x + 1] - first;
    const size_t place = (size_t)blockIdx.x * d + head * c;
    const E     *qkv = (const E *)p.qkv + (size_t)first * 3 * d + head * c;
    partial      all = {-INFINITY, 0, {}};

    if (len <= 0) /* padding of a graph's bucket */
        return;
    rr_wait_before();
    rr_load8(query + place + 8 * (lane % G), q);
    const partial part =
        attend<G>(q, qkv + d, qkv + 2 * d, 3 * d, warp * 32, 32 * FIRST, len);
    if (lane < G) {
        max[warp] = part.max;
        sum[warp] = part.sum;
        rr_store8(&out[warp][8 * lane], part.out);
    }
    __syncthreads();
    if (at >= c)
        return;
#pragma unroll
    for (int w = 0; w < FIRST; w++)
        all.max = fmaxf(all.max, max[w]);
#pragma unroll
    for (int w = 0; w < FIRST; w++) {
        const float shrink = exp2f(max[w] - all.max);
        float       x[8];

        rr_load8(&out[w][at], x);
        all.sum += sum[w] * shrink;
#pragma unroll
        for (int e = 0; e < 8; e++)
            all.out[e] += x[e] * shrink;
    }
#pragma unroll
    for (int e = 0; e < 8; e++)
        all.out[e] /= all.sum;
    store<E>(p, place + at, all.out);
}

template <typename E, int G>
static cudaError_t any(const rr__cu_attention *a, cudaStream_t stream) {
    return rr_launch(any_kernel<E, G>, dim3((unsigned)a->n_tile, (unsigned)a->n_head), 128, 0,
                     stream, *a);
}

template <typename E, int G>
static cudaError_t of_first(const rr__cu_attention *a, const void *q, cudaStream_t stream) {
    return rr_launch(first_kernel<E, G>, dim3((unsigned)a->n_tile, (unsigned)a->n_head), 32 * FIRST,
                     0, stream, *a, (const E *)q);
}

/* call<E, G> for a's type and width */
#define WITH_WIDTH(call, E, ...)                                                                   \
    (a->head_dim == 16   ? call<E, 2>(__VA_ARGS__)                                                 \
     : a->head_dim == 32 ? call<E, 4>(__VA_ARGS__)                                                 \
                         : call<E, 8>(__VA_ARGS__))
#define WITH_TYPE(call, ...)                                                                       \
    (a->type == RR__CU_F32   ? WITH_WIDTH(call, float, __VA_ARGS__)                                \
     : a->type == RR__CU_F16 ? WITH_WIDTH(call, __half, __VA_ARGS__)                               \
                             : WITH_WIDTH(call, __nv_bfloat16, __VA_ARGS__))

cudaError_t rr__cu_attention_any(const rr__cu_attention *a, cudaStream_t stream) {
    return WITH_TYPE(any, a, stream);
}

cudaError_t rr__cu_attention_first(const rr__cu_attention *a, const void *q, cudaStream_t stream) {
    return WITH_TYPE(of_first, a, q, stream);
}
