/* gemm_mma.cu - the GEMM of kernels.h with mma.sync, for every type and every card since sm_80.
 *
 *     d[m, n] = epilogue(a[m, k] w[n, k]^T)          FLOPs 2 m n k
 *
 * One kernel serves five types because the matrix units see bytes: a step is 32 bytes of k, that
 * is 8 tf32, 16 fp16 or bf16, or 32 e4m3 or s8, and the fragments lie the same way in each. Blocks
 * copy 64 bytes of k a stage into swizzled shared memory (cp.async), STAGES deep; the epilogue
 * works on the accumulators. Three tile sizes, picked by how many blocks they give; all add k in
 * the same order, so a row's bits do not depend on the choice. */
#include "backend/cuda/device.cuh"

/* Byte address of 16-byte chunk c (0..3) of row r: two rows share 128 bytes, and chunks are
 * permuted so that eight rows read at one chunk touch all banks once. */
__device__ __forceinline__ uint32_t swizzle(int r, int c) {
    return (uint32_t)(r * 64 + ((c ^ (r >> 1)) & 3) * 16);
}

__device__ __forceinline__ float gelu(float v) {
    return 0.5f * v * (1.f + erff(v * 0.70710678118654752f));
}

/* What a row's note adds to its sums of columns col and col + 1, in the unit of the sums times
 * as. */
__device__ __forceinline__ float2 outliers2(const rr__cu_gemm &g, const rr__cu_note *note,
                                            int col) {
    const int8_t *w = (const int8_t *)g.w + (size_t)col * g.k;
    float2        s = make_float2(0, 0);

    for (int i = 0; i < RR__CU_OUTLIERS && note->j[i] >= 0; i++) {
        float x = note->x[i];
        int   j = note->j[i];

        s.x += x * w[j], s.y += x * w[g.k + j];
    }
    return s;
}

/* d[row, col..col+1] from two sums of one row; note: of the row, if it has outliers, else NULL */
__device__ __forceinline__ void epilogue2(const rr__cu_gemm &g, int row, int col, float s0,
                                          float s1, const rr__cu_note *note) {
    const size_t at = (size_t)row * g.ldd + col;
    float2       b = *reinterpret_cast<const float2 *>(g.bias + col);
    float        v0, v1, as = g.a_scale ? g.a_scale[row] : 1.f;

    if (note) {
        float2 w = *reinterpret_cast<const float2 *>(g.w_scale + col);
        float2 more = outliers2(g, note, col);

        s0 = (s0 * as + more.x) * w.x, s1 = (s1 * as + more.y) * w.y;
    } else if (g.w_scale) {
        float2 w = *reinterpret_cast<const float2 *>(g.w_scale + col);
        s0 *= as * w.x, s1 *= as * w.y;
    }
    v0 = s0 + b.x, v1 = s1 + b.y;
    if (g.epilogue == RR__CU_GELU) {
        v0 = gelu(v0), v1 = gelu(v1);
    } else if (g.epilogue == RR__CU_RESIDUAL) {
        float2 r;

        if (g.out_type == RR__CU_F16)
            r = __half22float2(*reinterpret_cast<const __half2 *>((const __half *)g.residual + at));
        else if (g.out_type == RR__CU_BF16)
            r = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(
                (const __nv_bfloat16 *)g.residual + at));
        else
            r = *reinterpret_cast<const float2 *>((const float *)g.residual + at);
        v0 += r.x, v1 += r.y;
    }
    v0 *= g.out_scale, v1 *= g.out_scale;
    if (g.out_type == RR__CU_F16)
        *reinterpret_cast<uint32_t *>((__half *)g.d + at) = rr_f16x2(v0, v1);
    else if (g.out_type == RR__CU_BF16)
        *reinterpret_cast<uint32_t *>((__nv_bfloat16 *)g.d + at) = rr_bf16x2(v0, v1);
    else if (g.out_type == RR__CU_E4M3)
        *reinterpret_cast<uint16_t *>((uint8_t *)g.d + at) = (uint16_t)rr_e4m3x2(v0, v1);
    else
        *reinterpret_cast<float2 *>((float *)g.d + at) = make_float2(v0, v1);
}

/* BM x BN of d a block, WM x WN a warp */
template <rr__cu_type T, int BM, int BN, int WM, int WN, int STAGES>
__global__ void __launch_bounds__(32 * (BM / WM) * (BN / WN)) gemm_kernel(rr__cu_gemm g) {
#if __CUDA_ARCH__ < 890
    if constexpr (T == RR__CU_E4M3)
        return; /* load() refuses fp8 on these cards */
#endif
    constexpr int        THREADS = 32 * (BM / WM) * (BN / WN), MI = WM / 16, NI = WN / 8;
    constexpr int        SIZE = T == RR__CU_F32 ? 4 : T == RR__CU_F16 || T == RR__CU_BF16 ? 2 : 1;
    constexpr int        STAGE_BYTES = (BM + BN) * 64;
    extern __shared__ __align__(128) uint8_t smem[];
    const int            lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int            row0 = blockIdx.y * BM, col0 = blockIdx.x * BN;
    const int            wm = warp % (BM / WM) * WM, wn = warp / (BM / WM) * WN;
    const int            k_bytes = g.k * SIZE, steps = (k_bytes + 63) / 64;
    const uint32_t       base = rr_smem(smem);
    const uint8_t       *a = (const uint8_t *)g.a, *w = (const uint8_t *)g.w;
    typename rr_acc<T>::type acc[MI][NI][4] = {};

    auto load = [&](int step) {
        uint32_t stage = base + step % STAGES * STAGE_BYTES;

#pragma unroll
        for (int i = threadIdx.x; i < (BM + BN) * 4; i += THREADS) {
            int    r = i >> 2, c = i & 3, at = step * 64 + c * 16;
            bool   is_a = r < BM;
            int    line = is_a ? row0 + r : col0 + r - BM;
            bool   in = at < k_bytes && line < (is_a ? g.m : g.n);
            size_t pitch = is_a ? (size_t)g.lda * SIZE : (size_t)k_bytes;

            rr_copy16(stage + swizzle(r, c), (is_a ? a : w) + (in ? line * pitch + at : 0),
                      in ? 16 : 0);
        }
    };
    rr_wait_before();
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps)
            load(s);
        rr_copy_commit();
    }
    for (int step = 0; step < steps; step++) {
        rr_copy_wait<STAGES - 2>();
        __syncthreads();
        if (step + STAGES - 1 < steps)
            load(step + STAGES - 1);
        rr_copy_commit();

        uint32_t stage = base + step % STAGES * STAGE_BYTES;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t fa[MI][4], fb[NI / 2][4];

#pragma unroll
            for (int i = 0; i < MI; i++)
                rr_ldmatrix(fa[i],
                            stage + swizzle(wm + i * 16 + (lane & 15), half * 2 + (lane >> 4)));
#pragma unroll
            for (int i = 0; i < NI / 2; i++)
                rr_ldmatrix(fb[i], stage + swizzle(BM + wn + i * 16 + (lane & 7) +
                                                       (lane >> 4 << 3),
                                                   half * 2 + (lane >> 3 & 1)));
            if constexpr (T == RR__CU_F32) {
#pragma unroll
                for (int i = 0; i < MI * 4; i++)
                    fa[i / 4][i % 4] = rr_tf32(fa[i / 4][i % 4]);
#pragma unroll
                for (int i = 0; i < NI * 2; i++)
                    fb[i / 4][i % 4] = rr_tf32(fb[i / 4][i % 4]);
            }
#pragma unroll
            for (int i = 0; i < MI; i++)
#pragma unroll
                for (int j = 0; j < NI; j++)
                    rr_mma<T>(acc[i][j], fa[i], &fb[j / 2][j % 2 * 2]);
        }
    }
#pragma unroll
    for (int i = 0; i < MI; i++) {
        const int          row = row0 + wm + i * 16 + lane / 4;
        const rr__cu_note *note0 = NULL, *note1 = NULL;

        if (T == RR__CU_S8 && g.note) {
            note0 = row < g.m && g.note[row].j[0] >= 0 ? g.note + row : NULL;
            note1 = row + 8 < g.m && g.note[row + 8].j[0] >= 0 ? g.note + row + 8 : NULL;
        }
#pragma unroll
        for (int j = 0; j < NI; j++) {
            int col = col0 + wn + j * 8 + lane % 4 * 2;

            if (col < g.n && row < g.m)
                epilogue2(g, row, col, (float)acc[i][j][0], (float)acc[i][j][1], note0);
            if (col < g.n && row + 8 < g.m)
                epilogue2(g, row + 8, col, (float)acc[i][j][2], (float)acc[i][j][3], note1);
        }
    }
}

template <rr__cu_type T> static cudaError_t launch(const rr__cu_gemm *g, cudaStream_t stream) {
    enum { FILL = 96 }; /* blocks that keep a large card busy enough */
    auto tiles = [g](int bm, int bn) {
        return dim3((unsigned)((g->n + bn - 1) / bn), (unsigned)((g->m + bm - 1) / bm));
    };
    dim3 big = tiles(128, 128), mid = tiles(64, 64), small = tiles(16, 64);

    if (big.x * big.y >= FILL)
        return rr_launch(gemm_kernel<T, 128, 128, 64, 32, 3>, big, 256, 3 * 256 * 64, stream, *g);
    if (mid.x * mid.y >= FILL)
        return rr_launch(gemm_kernel<T, 64, 64, 32, 32, 5>, mid, 128, 5 * 128 * 64, stream, *g);
    return rr_launch(gemm_kernel<T, 16, 64, 16, 16, 8>, small, 128, 8 * 80 * 64, stream, *g);
}

cudaError_t rr__cu_gemm_mma(const rr__cu_gemm *g, cudaStream_t stream) {
    switch (g->type) {
    case RR__CU_F32: return launch<RR__CU_F32>(g, stream);
    case RR__CU_F16: return launch<RR__CU_F16>(g, stream);
    case RR__CU_BF16: return launch<RR__CU_BF16>(g, stream);
    case RR__CU_E4M3: return launch<RR__CU_E4M3>(g, stream);
    default: return launch<RR__CU_S8>(g, stream);
    }
}
