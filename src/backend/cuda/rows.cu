/* rows.cu - everything a row at a time: embedding, LayerNorm, quantisation, gathering, the head.
 *
 *     embed      x[t] = LN(word[tok[t]] + type[type[t]] + position[pos[t]])
 *     layernorm  x[t] = LN(in[t])                 in is the residual sum the GEMM before left
 *     both also write x[t] / scale[t] as e4m3 or s8 with scale[t] = max |x[t]| / 448 or 127
 *
 * One warp a row, the row in registers (up to 1,024 values, 32 a lane); mean and variance in fp32,
 * two passes over the registers, so nothing cancels. Traffic: each byte read once, written once;
 * bound by memory. Shuffles add in a fixed tree: a row's bits depend on the row alone. */
#include "backend/cuda/device.cuh"

enum { WARPS = 4, CHUNKS = RR__CU_MAX_WIDTH / 256 }; /* chunk: 8 values; a lane has up to CHUNKS */

/* Normalise the row in v, write it and its quantised form. */
template <typename E>
__device__ __forceinline__ void finish(const rr__cu_norm &p, int row, float v[CHUNKS][8]) {
    const int lane = threadIdx.x & 31;
    float     sum = 0, var = 0, mean, rstd, top = 0;

#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
#pragma unroll
        for (int e = 0; e < 8; e++)
            sum += v[i][e]; /* chunks past the row are zeros */
    mean = rr_warp_sum(sum) / p.d;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
        if ((i * 32 + lane) * 8 < p.d)
#pragma unroll
            for (int e = 0; e < 8; e++)
                var += (v[i][e] - mean) * (v[i][e] - mean);
    rstd = rsqrtf(rr_warp_sum(var) / p.d + p.eps);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int   at = (i * 32 + lane) * 8;
        float g[8], b[8];

        if (at >= p.d)
            continue;
        rr_load8(p.gamma + at, g);
        rr_load8(p.beta + at, b);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            v[i][e] = (v[i][e] - mean) * rstd * g[e] + b[e];
            top = fmaxf(top, fabsf(v[i][e]));
        }
        rr_store8((E *)p.out + (size_t)row * p.d + at, v[i]);
    }
    if (!p.q)
        return;
    top = fmaxf(rr_warp_max(top), 1e-12f) / rr_largest(p.q_type);
    if (lane == 0)
        p.q_scale[row] = top;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int at = (i * 32 + lane) * 8;

        if (at < p.d)
            rr_store8_quantised((uint8_t *)p.q + (size_t)row * p.d + at, p.q_type, v[i], 1 / top);
    }
}

template <typename E> __global__ void __launch_bounds__(32 * WARPS) norm_kernel(rr__cu_norm p) {
    const int row = blockIdx.x * WARPS + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    float     v[CHUNKS][8] = {};

    rr_wait_before();
    if (row >= p.rows)
        return;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int at = (i * 32 + lane) * 8;

        if (at < p.d)
            rr_load8((const E *)p.in + (size_t)row * p.d + at, v[i]);
    }
    finish<E>(p, row, v);
}

template <typename E>
__global__ void __launch_bounds__(32 * WARPS) embed_kernel(rr__cu_norm p, rr__cu_embed e) {
    const int row = blockIdx.x * WARPS + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    float     v[CHUNKS][8] = {};

    rr_wait_before();
    if (row >= p.rows)
        return;
    const int tok = e.tok[row], pos = e.pos[row] & ~RR__CU_TYPE1, type = e.pos[row] < 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int   at = (i * 32 + lane) * 8;
        float w[8], t[8], s[8];

        if (at >= p.d)
            continue;
        rr_load8((const E *)e.word + (size_t)tok * p.d + at, w);
        rr_load8((const E *)e.type + (size_t)type * p.d + at, t);
        rr_load8((const E *)e.position + (size_t)pos * p.d + at, s);
#pragma unroll
        for (int j = 0; j < 8; j++)
            v[i][j] = w[j] + t[j] + s[j];
    }
    finish<E>(p, row, v);
}

template <typename E> static cudaError_t norm(const rr__cu_norm *p, cudaStream_t stream) {
    return rr_launch(norm_kernel<E>, (p->rows + WARPS - 1) / WARPS, 32 * WARPS, 0, stream, *p);
}

cudaError_t rr__cu_layernorm(const rr__cu_norm *p, cudaStream_t stream) {
    return p->type == RR__CU_F32   ? norm<float>(p, stream)
           : p->type == RR__CU_F16 ? norm<__half>(p, stream)
                                   : norm<__nv_bfloat16>(p, stream);
}

cudaError_t rr__cu_embed_layernorm(const rr__cu_norm *p, const rr__cu_embed *e,
                                   cudaStream_t stream) {
    auto *kernel = p->type == RR__CU_F32   ? embed_kernel<float>
                   : p->type == RR__CU_F16 ? embed_kernel<__half>
                                           : embed_kernel<__nv_bfloat16>;

    return rr_launch(kernel, (p->rows + WARPS - 1) / WARPS, 32 * WARPS, 0, stream, *p, *e);
}

/* q[r] = in[r] / scale[r], one block a row of any width; the second pass reads from L1 */
template <typename E>
__global__ void __launch_bounds__(128) quantise_kernel(const E *in, int ld, int cols,
                                                       rr__cu_type type, uint8_t *q, float *scale) {
    __shared__ float tops[4];
    const E         *row = in + (size_t)blockIdx.x * ld;
    float            v[8], top = 0;

    rr_wait_before();
    for (int at = threadIdx.x * 8; at < cols; at += 128 * 8) {
        rr_load8(row + at, v);
#pragma unroll
        for (int e = 0; e < 8; e++)
            top = fmaxf(top, fabsf(v[e]));
    }
    top = rr_warp_max(top);
    if ((threadIdx.x & 31) == 0)
        tops[threadIdx.x >> 5] = top;
    __syncthreads();
    top = fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
    top = fmaxf(top, 1e-12f) / rr_largest(type);
    if (threadIdx.x == 0)
        scale[blockIdx.x] = top;
    for (int at = threadIdx.x * 8; at < cols; at += 128 * 8) {
        rr_load8(row + at, v);
        rr_store8_quantised(q + (size_t)blockIdx.x * cols + at, type, v, 1 / top);
    }
}

cudaError_t rr__cu_quantise_rows(rr__cu_type in_type, const void *in, int32_t ld, int32_t rows,
                                 int32_t cols, rr__cu_type type, void *q, float *scale,
                                 cudaStream_t stream) {
    if (in_type == RR__CU_F16)
        return rr_launch(quantise_kernel<__half>, rows, 128, 0, stream, (const __half *)in, ld,
                         cols, type, (uint8_t *)q, scale);
    return rr_launch(quantise_kernel<__nv_bfloat16>, rows, 128, 0, stream,
                     (const __nv_bfloat16 *)in, ld, cols, type, (uint8_t *)q, scale);
}

/* to[i] = from[cu[i]], rows of `bytes` (a multiple of 4) */
__global__ void gather_kernel(const uint32_t *from, uint32_t *to, const int32_t *cu, int words) {
    rr_wait_before();
    const uint32_t *src = from + (size_t)cu[blockIdx.x] * words;

    for (int i = threadIdx.x; i < words; i += blockDim.x)
        to[(size_t)blockIdx.x * words + i] = src[i];
}

cudaError_t rr__cu_gather_first(const void *from, void *to, const int32_t *cu, int32_t rows,
                                int32_t bytes, cudaStream_t stream) {
    return rr_launch(gather_kernel, rows, 128, 0, stream, (const uint32_t *)from, (uint32_t *)to,
                     cu, bytes / 4);
}

/* ---- head, fp32: t = tanh(x Wh^T + bh), logit = t . wo + bo ------------------- */

enum { HEAD_ROWS = 8 }; /* rows that share one read of a weight row */

template <typename E>
__global__ void __launch_bounds__(256) head_kernel(const E *x, const float *w, const float *b,
                                                   float *t, int rows, int d) {
    const int lane = threadIdx.x & 31, col = blockIdx.x * 8 + (threadIdx.x >> 5);
    const int row0 = blockIdx.y * HEAD_ROWS;
    float     sum[HEAD_ROWS] = {};

    rr_wait_before();
    if (col >= d)
        return;
    for (int k = lane * 8; k < d; k += 256) {
        float wk[8], xk[8];

        rr_load8(w + (size_t)col * d + k, wk);
#pragma unroll
        for (int r = 0; r < HEAD_ROWS; r++) {
            if (row0 + r >= rows)
                break;
            rr_load8(x + (size_t)(row0 + r) * d + k, xk);
#pragma unroll
            for (int e = 0; e < 8; e++)
                sum[r] += wk[e] * xk[e];
        }
    }
#pragma unroll
    for (int r = 0; r < HEAD_ROWS; r++) {
        float v = rr_warp_sum(sum[r]);

        if (lane == 0 && row0 + r < rows)
            t[(size_t)(row0 + r) * d + col] = tanhf(v + b[col]);
    }
}

__global__ void logit_kernel(const float *t, const float *w, const float *b, float *logits, int d) {
    float sum = 0;

    rr_wait_before();
    for (int k = threadIdx.x; k < d; k += 32)
        sum += t[(size_t)blockIdx.x * d + k] * w[k];
    sum = rr_warp_sum(sum);
    if (threadIdx.x == 0)
        logits[blockIdx.x] = sum + b[0];
}

cudaError_t rr__cu_head(const rr__cu_head_args *p, cudaStream_t stream) {
    dim3 grid((unsigned)(p->d + 7) / 8, (unsigned)(p->rows + HEAD_ROWS - 1) / HEAD_ROWS);

    cudaError_t e;

    if (p->type == RR__CU_F32)
        e = rr_launch(head_kernel<float>, grid, 256, 0, stream, (const float *)p->x, p->w, p->b,
                      p->t, p->rows, p->d);
    else if (p->type == RR__CU_F16)
        e = rr_launch(head_kernel<__half>, grid, 256, 0, stream, (const __half *)p->x, p->w, p->b,
                      p->t, p->rows, p->d);
    else
        e = rr_launch(head_kernel<__nv_bfloat16>, grid, 256, 0, stream,
                      (const __nv_bfloat16 *)p->x, p->w, p->b, p->t, p->rows, p->d);
    return e == cudaSuccess ? rr_launch(logit_kernel, p->rows, 32, 0, stream, (const float *)p->t,
                                        p->out_w, p->out_b, p->logits, p->d)
                            : e;
}
