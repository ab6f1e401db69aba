/* rows.cu - everything a row at a time: embedding, LayerNorm, quantisation, gathering, the head.
 *
 *     embed      x[t] = LN(word[tok[t]] + type[type[t]] + position[pos[t]])
 *     layernorm  x[t] = LN(in[t])                 in is the residual sum the GEMM before left
 *     both also write x[t] * inv_smooth / scale[t] as e4m3 or s8, scale[t] = max |x[t]| / 448 or 127
 *     or one for all rows; of an s8 row with a scale of its own the outliers go to its note
 *
 * One warp a row, the row in registers (up to 1,024 values, 32 a lane); mean and variance in fp32,
 * two passes over the registers, so nothing cancels. Wider rows (GELU's) are read three times.
 * Traffic: each byte read once, written once; bound by memory. Shuffles add in a fixed tree: a
 * row's bits depend on the row alone. */
#include "backend/cuda/device.cuh"

enum { FEW = 1024 };                                 /* rows up to which they are spread */
enum { WARPS = 4, CHUNKS = RR__CU_MAX_WIDTH / 256 }; /* chunk: 8 values; a lane has up to CHUNKS */

/* ---- to 8 bits ------------------------------------------------------------- */

/* Takes the outliers of eight values a lane, columns at .. at + 7 of the row, out of v and, if
 * note is not NULL, writes them there; n of them came before. The order is fixed, so a note has
 * the same bits in any batch. All lanes of the warp call it, those past the row's end with
 * zeros. */
__device__ __forceinline__ void take_outliers(float v[8], int at, float limit, int &n,
                                              rr__cu_note *note) {
    const unsigned before = (1u << (threadIdx.x & 31)) - 1;
    float          top = 0;

#pragma unroll
    for (int e = 0; e < 8; e++)
        top = fmaxf(top, fabsf(v[e]));
    if (!__any_sync(~0u, top > limit))
        return;
#pragma unroll
    for (int e = 0; e < 8; e++) {
        const unsigned mask = __ballot_sync(~0u, fabsf(v[e]) > limit);
        const int      i = n + __popc(mask & before);

        if (fabsf(v[e]) > limit && i < RR__CU_OUTLIERS) {
            if (note)
                note->j[i] = at + e, note->x[i] = v[e];
            v[e] = 0;
        }
        n += __popc(mask);
    }
}

/* What lies beyond this is an outlier of a row of d values whose squares a warp's lanes sum up
 * to. */
__device__ __forceinline__ float outlier_limit(float squares, int d) {
    return RR__CU_BEYOND * sqrtf(rr_warp_sum(squares) / d);
}

/* Lanes behind the last outlier end the note. */
__device__ __forceinline__ void end_note(rr__cu_note *note, int n) {
    const int lane = threadIdx.x & 31;

    if (lane >= n && lane < RR__CU_OUTLIERS)
        note->j[lane] = -1;
}

/* The scale of a row whose largest magnitude the lanes know together; written if it is its own. */
__device__ __forceinline__ float row_scale(const rr__cu_quant &to, int row, float top) {
    if (to.scale > 0)
        return to.scale;
    top = fmaxf(rr_warp_max(top), 1e-12f) / rr_largest(to.type);
    if ((threadIdx.x & 31) == 0)
        to.row_scale[row] = top;
    return top;
}

/* The row in v to 8 bits. S8 is a constant, so that fp8 does not carry int8's registers. */
template <int S8>
__device__ __forceinline__ void quantise(const rr__cu_quant &to, int row, int d,
                                         float v[CHUNKS][8]) {
    const int lane = threadIdx.x & 31;
    float     top = 0, scale;

    if (to.inv_smooth) {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            int   at = (i * 32 + lane) * 8;
            float s[8];

            if (at >= d)
                continue;
            rr_load8(to.inv_smooth + at, s);
#pragma unroll
            for (int e = 0; e < 8; e++)
                v[i][e] *= s[e];
        }
    }
    if (S8 && to.note) {
        float squares = 0, limit;
        int   n = 0;

#pragma unroll
        for (int i = 0; i < CHUNKS; i++)
#pragma unroll
            for (int e = 0; e < 8; e++)
                squares += v[i][e] * v[i][e];
        limit = outlier_limit(squares, d);
#pragma unroll
        for (int i = 0; i < CHUNKS; i++)
            take_outliers(v[i], (i * 32 + lane) * 8, limit, n, to.note + row);
        end_note(to.note + row, n);
    }
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
#pragma unroll
        for (int e = 0; e < 8; e++)
            top = fmaxf(top, fabsf(v[i][e]));
    scale = row_scale(to, row, top);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int at = (i * 32 + lane) * 8;

        if (at < d)
            rr_store8_quantised((uint8_t *)to.q + (size_t)row * d + at,
                                S8 ? RR__CU_S8 : RR__CU_E4M3, v[i], 1 / scale);
    }
}

/* ---- LayerNorm ----------------------------------------------------------------- */

/* The sums of eight values of a row; how the sums of a row's pieces are added is fixed too: a
 * lane's in order of the columns, then the lanes' by a tree. */
__device__ __forceinline__ float sum8(const float v[8]) {
    float sum = 0;

#pragma unroll
    for (int e = 0; e < 8; e++)
        sum += v[e];
    return sum;
}
__device__ __forceinline__ float squares8(const float v[8], float mean) {
    float sum = 0;

#pragma unroll
    for (int e = 0; e < 8; e++)
        sum += (v[e] - mean) * (v[e] - mean);
    return sum;
}
__device__ __forceinline__ void normalise8(float v[8], float mean, float rstd, const float g[8],
                                           const float b[8]) {
#pragma unroll
    for (int e = 0; e < 8; e++)
        v[e] = (v[e] - mean) * rstd * g[e] + b[e];
}

/* Normalise the row in v, write it and its quantised form. Chunks past the row are and stay
 * zeros. */
template <typename E>
__device__ __forceinline__ void finish(const rr__cu_norm &p, int row, float v[CHUNKS][8]) {
    const int lane = threadIdx.x & 31;
    float     sum = 0, var = 0, mean, rstd;

#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
        sum += sum8(v[i]);
    mean = rr_warp_sum(sum) / p.d;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
        if ((i * 32 + lane) * 8 < p.d)
            var += squares8(v[i], mean);
    rstd = rsqrtf(rr_warp_sum(var) / p.d + p.eps);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int   at = (i * 32 + lane) * 8;
        float g[8], b[8];

        if (at >= p.d)
            continue;
        rr_load8(p.gamma + at, g);
        rr_load8(p.beta + at, b);
        normalise8(v[i], mean, rstd, g, b);
        rr_store8((E *)p.out + (size_t)row * p.d + at, v[i]);
    }
}

/* Q: -1, or whether the quantised form is S8 */
template <typename E, int Q>
__global__ void __launch_bounds__(32 * WARPS) norm_kernel(rr__cu_norm p) {
    const int block = p.backward ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
    const int row = block * WARPS + (threadIdx.x >> 5), lane = threadIdx.x & 31;
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
    if (Q >= 0)
        quantise<Q>(p.to, row, p.d, v);
}

/* The same for few rows, whose time is that of waiting: a warp a chunk, so that a row is asked for
 * at once, and what no kernel writes is asked for before the wait. With HALVES the row is in + bias +
 * a product whose k was split; without, it has the bits of norm_kernel's. */
template <typename E, int Q, int HALVES>
__global__ void __launch_bounds__(32 * CHUNKS) spread_kernel(rr__cu_norm p) {
    __shared__ float part[3][CHUNKS][32];
    const int        row = blockIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int        at = threadIdx.x * 8, inside = at < p.d;
    float            v[8] = {}, g[8], b[8], bias[8], s[2][8], mean, rstd, scale;

    if (inside) {
        rr_load8(p.gamma + at, g);
        rr_load8(p.beta + at, b);
        if (HALVES)
            rr_load8(p.bias + at, bias);
    }
    rr_wait_before();
    if (inside) {
        rr_load8((const E *)p.in + (size_t)row * p.d + at, v);
        if (HALVES) {
            rr_load8(p.halves + (size_t)row * p.d + at, s[0]);
            rr_load8(p.halves + ((size_t)p.rows + row) * p.d + at, s[1]);
#pragma unroll
            for (int e = 0; e < 8; e++)
                v[e] += bias[e] + (s[0][e] + s[1][e]);
        }
    }
    auto tell = [&](int i, float x) {
        part[i][warp][lane] = x;
        __syncthreads();
    };
    auto sum = [&](int i) { /* a lane's chunks in order of the columns, as norm_kernel adds them */
        float x = 0;
#pragma unroll
        for (int w = 0; w < CHUNKS; w++)
            x += part[i][w][lane];
        return rr_warp_sum(x);
    };
    tell(0, sum8(v));
    mean = sum(0) / p.d;
    tell(1, inside ? squares8(v, mean) : 0);
    rstd = rsqrtf(sum(1) / p.d + p.eps);
    if (inside) {
        normalise8(v, mean, rstd, g, b);
        rr_store8((E *)p.out + (size_t)row * p.d + at, v);
    }
    if (Q < 0)
        return;
    if (p.to.inv_smooth && inside) {
        rr_load8(p.to.inv_smooth + at, s[0]);
#pragma unroll
        for (int e = 0; e < 8; e++)
            v[e] *= s[0][e];
    }
    scale = p.to.scale;
    if (!(scale > 0)) {
        float top = 0;
#pragma unroll
        for (int e = 0; e < 8; e++)
            top = fmaxf(top, fabsf(v[e]));
        tell(2, top);
#pragma unroll
        for (int w = 0; w < CHUNKS; w++)
            top = fmaxf(top, part[2][w][lane]);
        scale = row_scale(p.to, row, top);
    }
    if (inside)
        rr_store8_quantised((uint8_t *)p.to.q + (size_t)row * p.d + at, RR__CU_E4M3, v, 1 / scale);
}

template <typename E, int Q>
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
    if (Q >= 0)
        quantise<Q>(p.to, row, p.d, v);
}

static int quantised_to(const rr__cu_quant *to) {
    return !to->q ? -1 : to->type == RR__CU_S8;
}

template <typename E, int Q> static cudaError_t spread(const rr__cu_norm *p, cudaStream_t stream) {
    auto *kernel = p->halves ? spread_kernel<E, Q, 1> : spread_kernel<E, Q, 0>;

    return rr_launch(kernel, p->rows, 32 * CHUNKS, 0, stream, *p);
}

template <typename E> static cudaError_t norm(const rr__cu_norm *p, cudaStream_t stream) {
    const int q = quantised_to(&p->to);
    auto     *kernel = q < 0 ? norm_kernel<E, -1> : q ? norm_kernel<E, 1> : norm_kernel<E, 0>;

    if (p->halves || (p->rows <= FEW && q <= 0))
        return q < 0 ? spread<E, -1>(p, stream) : spread<E, 0>(p, stream);
    return rr_launch(kernel, (p->rows + WARPS - 1) / WARPS, 32 * WARPS, 0, stream, *p);
}

template <typename E>
static cudaError_t embed(const rr__cu_norm *p, const rr__cu_embed *e, cudaStream_t stream) {
    const int q = quantised_to(&p->to);
    auto     *kernel = q < 0 ? embed_kernel<E, -1> : q ? embed_kernel<E, 1> : embed_kernel<E, 0>;

    return rr_launch(kernel, (p->rows + WARPS - 1) / WARPS, 32 * WARPS, 0, stream, *p, *e);
}

cudaError_t rr__cu_layernorm(const rr__cu_norm *p, cudaStream_t stream) {
    return p->type == RR__CU_F32   ? norm<float>(p, stream)
           : p->type == RR__CU_F16 ? norm<__half>(p, stream)
                                   : norm<__nv_bfloat16>(p, stream);
}

cudaError_t rr__cu_embed_layernorm(const rr__cu_norm *p, const rr__cu_embed *e,
                                   cudaStream_t stream) {
    return p->type == RR__CU_F32   ? embed<float>(p, e, stream)
           : p->type == RR__CU_F16 ? embed<__half>(p, e, stream)
                                   : embed<__nv_bfloat16>(p, e, stream);
}

/* ---- rows of any width ----------------------------------------------------------- */

/* One warp a row; the second and third pass read from L1. */
template <typename E>
__global__ void __launch_bounds__(32 * WARPS)
    quantise_kernel(const E *in, int ld, int rows, int cols, rr__cu_quant to) {
    const int    row = blockIdx.x * WARPS + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    rr__cu_note *note = to.note ? to.note + row : NULL;
    float        limit = INFINITY, top = 0, scale, v[8];
    int          n = 0;

    auto load = [&](int at) { /* every lane comes here, those past the end get zeros */
#pragma unroll
        for (int e = 0; e < 8; e++)
            v[e] = 0;
        if (at >= cols)
            return;
        rr_load8(in + (size_t)row * ld + at, v);
        if (to.inv_smooth) {
            float s[8];

            rr_load8(to.inv_smooth + at, s);
#pragma unroll
            for (int e = 0; e < 8; e++)
                v[e] *= s[e];
        }
    };
    rr_wait_before();
    if (row >= rows)
        return;
    if (note) {
        float squares = 0;

        for (int first = 0; first < cols; first += 256) {
            load(first + lane * 8);
#pragma unroll
            for (int e = 0; e < 8; e++)
                squares += v[e] * v[e];
        }
        limit = outlier_limit(squares, cols);
    }
    for (int first = 0; first < cols && !(to.scale > 0); first += 256) {
        load(first + lane * 8);
        take_outliers(v, first + lane * 8, limit, n, note);
#pragma unroll
        for (int e = 0; e < 8; e++)
            top = fmaxf(top, fabsf(v[e]));
    }
    if (note)
        end_note(note, n);
    scale = row_scale(to, row, top);
    n = 0;
    for (int first = 0; first < cols; first += 256) {
        load(first + lane * 8);
        take_outliers(v, first + lane * 8, limit, n, NULL);
        if (first + lane * 8 < cols)
            rr_store8_quantised((uint8_t *)to.q + (size_t)row * cols + first + lane * 8, to.type, v,
                                1 / scale);
    }
}

template <typename E>
static cudaError_t quantise_rows(const void *in, int32_t ld, int32_t rows, int32_t cols,
                                 const rr__cu_quant *to, cudaStream_t stream) {
    return rr_launch(quantise_kernel<E>, (rows + WARPS - 1) / WARPS, 32 * WARPS, 0, stream,
                     (const E *)in, ld, rows, cols, *to);
}

cudaError_t rr__cu_quantise_rows(rr__cu_type in_type, const void *in, int32_t ld, int32_t rows,
                                 int32_t cols, const rr__cu_quant *to, cudaStream_t stream) {
    return in_type == RR__CU_F32   ? quantise_rows<float>(in, ld, rows, cols, to, stream)
           : in_type == RR__CU_F16 ? quantise_rows<__half>(in, ld, rows, cols, to, stream)
                                   : quantise_rows<__nv_bfloat16>(in, ld, rows, cols, to, stream);
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
__global__ void __launch_bounds__(256)
    head_kernel(const E *x, const float *w, const float *b, float *t, int rows, int d) {
    const int lane = threadIdx.x & 31, col = blockIdx.x * 8 + (threadIdx.x >> 5);
    const int row0 = blockIdx.y * HEAD_ROWS;
    float     sum[HEAD_ROWS] = {}, wk[CHUNKS][8] = {};

#pragma unroll
    for (int i = 0; i < CHUNKS; i++) /* no kernel writes weights: they come before the wait */
        if ((i * 32 + lane) * 8 < d && col < d)
            rr_load8(w + (size_t)col * d + (i * 32 + lane) * 8, wk[i]);
    rr_wait_before();
    if (col >= d)
        return;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const int k = (i * 32 + lane) * 8;

        if (k >= d)
            continue;
#pragma unroll
        for (int r = 0; r < HEAD_ROWS; r++) {
            float xk[8];

            if (row0 + r >= rows)
                break;
            rr_load8(x + (size_t)(row0 + r) * d + k, xk);
#pragma unroll
            for (int e = 0; e < 8; e++)
                sum[r] += wk[i][e] * xk[e];
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
        e = rr_launch(head_kernel<__nv_bfloat16>, grid, 256, 0, stream, (const __nv_bfloat16 *)p->x,
                      p->w, p->b, p->t, p->rows, p->d);
    return e == cudaSuccess ? rr_launch(logit_kernel, p->rows, 32, 0, stream, (const float *)p->t,
                                        p->out_w, p->out_b, p->logits, p->d)
                            : e;
}
