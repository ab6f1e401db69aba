/* attention_mma.cu - attention over ragged sequences with mma.sync, sm_80 on.
 *
 *     ctx[t, head] = softmax(q[t, head] K[head]^T / sqrt(c)) V[head]      qkv [n, 3d], ctx [n, d]
 *
 * A block takes 64 query rows of one head, 16 a warp, and walks the keys of its sequence 64 at a
 * time: scores in registers, softmax online in base 2 and fp32, probabilities rounded to 16 bits
 * for the second product. K and V tiles are double-buffered in swizzled shared memory. Q is read
 * whole before ctx is written, so ctx may take q's place. FLOPs 4 d sum(len^2); traffic: K and V of
 * a sequence once for each 64 of its queries, from L2. Keys are taken in order from the sequence's
 * own start, so a row's bits do not depend on the batch. */
#include "backend/cuda/device.cuh"

enum { ROWS = RR__CU_TILE_MMA, KEYS = 64 };

/* Byte address of 16-byte chunk c of row r, rows of C 16-bit values: eight rows at one chunk touch
 * all banks once. */
template <int C> __device__ __forceinline__ uint32_t swizzle(int r, int c) {
    constexpr int CHUNKS = C / 8; /* 2, 4 or 8 of them: a row is 32, 64 or 128 bytes */

    return (uint32_t)(r * C * 2 + ((c ^ (r / (8 / CHUNKS))) & (CHUNKS - 1)) * 16);
}

template <rr__cu_type T> __device__ __forceinline__ uint32_t pack2(float a, float b) {
    return T == RR__CU_F16 ? rr_f16x2(a, b) : rr_bf16x2(a, b);
}

template <rr__cu_type T, int C>
__global__ void __launch_bounds__(128) attention_kernel(rr__cu_attention p) {
    constexpr int       BYTES = C * 2, CHUNKS = C / 8, TILE = KEYS * BYTES;
    __shared__ __align__(128) uint8_t smem[4 * TILE]; /* K and V, two stages */
    const int           lane = threadIdx.x & 31, warp = threadIdx.x >> 5, head = blockIdx.y;
    const int           d = p.n_head * C;
    const float         scale = 1.4426950408889634f * rsqrtf((float)C);
    const uint32_t      base = rr_smem(smem);

    rr_wait_before();
    const rr__cu_tile tile = p.tile[blockIdx.x];
    if (tile.seq < 0)
        return;
    const int       first = p.cu[tile.seq], len = p.cu[tile.seq + 1] - first;
    const int       n_tile = (len + KEYS - 1) / KEYS;
    const uint16_t *q = (const uint16_t *)p.qkv + (size_t)first * 3 * d + head * C;

    /* rows row.. of part (0 q, 1 k, 2 v) to shared memory, zeros beyond the sequence */
    auto load = [&](uint32_t to, int part, int row) {
        for (int i = threadIdx.x; i < KEYS * CHUNKS; i += 128) {
            int  r = i / CHUNKS, c = i % CHUNKS;
            bool in = row + r < len;

            rr_copy16(to + swizzle<C>(r, c),
                      q + (size_t)(in ? row + r : 0) * 3 * d + part * d + c * 8, in ? 16 : 0);
        }
    };
    uint32_t fq[C / 16][4];
    float    o[C / 8][4] = {}, max[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

    load(base, 0, tile.row);
    rr_copy_commit();
    rr_copy_wait<0>();
    __syncthreads();
#pragma unroll
    for (int k = 0; k < C / 16; k++)
        rr_ldmatrix(fq[k], base + swizzle<C>(warp * 16 + (lane & 15), 2 * k + (lane >> 4)));
    __syncthreads();
    load(base, 1, 0);
    load(base + TILE, 2, 0);
    rr_copy_commit();

    for (int t = 0; t < n_tile; t++) {
        uint32_t stage = base + (t & 1) * 2 * TILE;
        float    s[KEYS / 8][4] = {}, top[2] = {max[0], max[1]};

        if (t + 1 < n_tile) {
            uint32_t next = base + (~t & 1) * 2 * TILE;

            load(next, 1, (t + 1) * KEYS);
            load(next + TILE, 2, (t + 1) * KEYS);
        }
        rr_copy_commit();
        rr_copy_wait<1>();
        __syncthreads();
#pragma unroll
        for (int k = 0; k < C / 16; k++)
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++) {
                uint32_t b[4];

                rr_ldmatrix(b, stage + swizzle<C>(j * 16 + (lane & 7) + (lane >> 4 << 3),
                                                  2 * k + (lane >> 3 & 1)));
                rr_mma<T>(s[2 * j], fq[k], b);
                rr_mma<T>(s[2 * j + 1], fq[k], b + 2);
            }
        if (t == n_tile - 1) /* keys past the end of the sequence */
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (t * KEYS + j * 8 + lane % 4 * 2 + (i & 1) >= len)
                        s[j][i] = -INFINITY;
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                top[i >> 1] = fmaxf(top[i >> 1], s[j][i]);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            top[i] = fmaxf(top[i], __shfl_xor_sync(~0u, top[i], 1));
            top[i] = fmaxf(top[i], __shfl_xor_sync(~0u, top[i], 2));
            float shrink = exp2f((max[i] - top[i]) * scale);

            max[i] = top[i];
            sum[i] *= shrink;
#pragma unroll
            for (int j = 0; j < C / 8; j++)
                o[j][2 * i] *= shrink, o[j][2 * i + 1] *= shrink;
        }
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[j][i] = exp2f(s[j][i] * scale - max[i >> 1] * scale);
                sum[i >> 1] += s[j][i];
            }
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            uint32_t pr[4] = {
                pack2<T>(s[2 * k][0], s[2 * k][1]), pack2<T>(s[2 * k][2], s[2 * k][3]),
                pack2<T>(s[2 * k + 1][0], s[2 * k + 1][1]),
                pack2<T>(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
            for (int j = 0; j < C / 16; j++) {
                uint32_t b[4];

                rr_ldmatrix_trans(b, stage + TILE + swizzle<C>(k * 16 + (lane & 15),
                                                               2 * j + (lane >> 4)));
                rr_mma<T>(o[2 * j], pr, b);
                rr_mma<T>(o[2 * j + 1], pr, b + 2);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int   row = tile.row + warp * 16 + lane / 4 + i * 8;
        float inv;

        sum[i] += __shfl_xor_sync(~0u, sum[i], 1);
        sum[i] += __shfl_xor_sync(~0u, sum[i], 2);
        inv = p.out_scale / sum[i];
        if (row >= len)
            continue;
#pragma unroll
        for (int j = 0; j < C / 8; j++) {
            size_t at = (size_t)(first + row) * p.ld_ctx + head * C + j * 8 + lane % 4 * 2;
            float  a = o[j][2 * i] * inv, b = o[j][2 * i + 1] * inv;

            if (p.out_type == RR__CU_E4M3)
                *(uint16_t *)((uint8_t *)p.ctx + at) = (uint16_t)rr_e4m3x2(a, b);
            else
                *(uint32_t *)((uint16_t *)p.ctx + at) = pack2<T>(a, b);
        }
    }
}

int rr__cu_attention_mma_fits(const rr__cu_attention *a) {
    return (a->type == RR__CU_F16 || a->type == RR__CU_BF16) &&
           (a->head_dim == 16 || a->head_dim == 32 || a->head_dim == 64);
}

template <rr__cu_type T>
static cudaError_t launch(const rr__cu_attention *a, cudaStream_t stream) {
    auto *kernel = a->head_dim == 64   ? attention_kernel<T, 64>
                   : a->head_dim == 32 ? attention_kernel<T, 32>
                                       : attention_kernel<T, 16>;

    return rr_launch(kernel, dim3((unsigned)a->n_tile, (unsigned)a->n_head), 128, 0, stream, *a);
}

cudaError_t rr__cu_attention_mma(const rr__cu_attention *a, cudaStream_t stream) {
    return a->type == RR__CU_F16 ? launch<RR__CU_F16>(a, stream) : launch<RR__CU_BF16>(a, stream);
}
