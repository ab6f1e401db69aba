/* sm90_epilogue.cuh - from the fp32 sums of a Hopper GEMM to what is stored: scales, bias, GELU or
 * residual, rounding. Included by sm90_gemm.cu, whose Shape S says types and tile. */
#ifndef RR_CUDA_SM90_EPILOGUE_CUH
#define RR_CUDA_SM90_EPILOGUE_CUH

#include "kernels.h"
#include "sm90_ptx.cuh"
#include <string.h>
#include <type_traits>

namespace {

enum { STAGE = 1 }; /* named barriers 1 and 2: a warpgroup among itself */

struct Args {
    int          m, n, k, epilogue, ldd;
    const float *bias, *a_scale, *w_scale;
    const void  *residual;
    void        *d;
    float        out_scale;
    int          backward;
};

/* v Phi(v) = max(v, 0) - |v| Phi(-|v|), with log2 Phi(-t) as a polynomial on [0, 5.6]; beyond, the
 * result is 0 or v. In fp32, of degree 5: within 0.18 units of the last place of fp16. */
__device__ __forceinline__ float gelu(float v) {
    float t = fabsf(v), p, e;
    p = fmaf(-3.20501567e-4f, t, 5.82718151e-3f);
    p = fmaf(p, t, -4.82368246e-2f);
    p = fmaf(p, t, -4.6412167e-1f);
    p = fmaf(p, t, -1.14917529f);
    p = fmaf(p, t, -1.00012088f);
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(p));
    return fmaf(-t, e, fmaxf(v, 0.0f));
}

/* Two at once in fp16, for results of fp16 or less: every instruction of the epilogue takes from the
 * products that run beside it, and this is 6 a value for 10. Degree 3 does then: against the exact
 * function of normal v, relative L2 3.3e-4, where rounding v and the result alone makes 3.2e-4. */
__device__ __forceinline__ __half2 gelu2(__half2 v) {
    __half2  t = __habs2(v), p;
    uint32_t e;
    p = __hfma2(__float2half2_rn(-2.39354e-2f), t, __float2half2_rn(-5.02598e-1f));
    p = __hfma2(p, t, __float2half2_rn(-1.124953f));
    p = __hfma2(p, t, __float2half2_rn(-1.004863f));
    asm("ex2.approx.f16x2 %0, %1;" : "=r"(e) : "r"(*(uint32_t *)&p));
    return __hfma2(__hneg2(t), *(__half2 *)&e, __hmax2(v, __float2half2_rn(0.0f)));
}

__device__ __forceinline__ float2 unpack(uint32_t v, __half) {
    __half2 h;
    memcpy(&h, &v, 4);
    return __half22float2(h);
}
__device__ __forceinline__ float2 unpack(uint32_t v, __nv_bfloat16) {
    return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u));
}
__device__ __forceinline__ float2 unpack(uint32_t, __nv_fp8_e4m3) {
    return make_float2(0.0f, 0.0f); /* no residual in fp8 */
}

/* What is the same all down a pair of columns. */
struct Columns {
    float2 bias, scale;
};

/* Two neighbouring sums to what is stored of them. The epilogue is a constant: a branch here would
 * keep the compiler from working on many elements at once. */
template <class S, int EPILOGUE>
__device__ __forceinline__ uint32_t finish(const Columns &c, float a_scale, float out_scale,
                                           float x, float y, uint32_t residual) {
    typedef typename S::Out Out;
    if (sizeof(typename S::In) == 1) {
        x = fmaf(x, a_scale * c.scale.x, c.bias.x);
        y = fmaf(y, a_scale * c.scale.y, c.bias.y);
    } else {
        x += c.bias.x;
        y += c.bias.y;
    }
    if (EPILOGUE == RR__CU_GELU && std::is_same<Out, __half>::value) {
        uint32_t v = pack(x, y, __half());
        __half2  g = gelu2(*(__half2 *)&v);
        return *(uint32_t *)&g;
    } else if (EPILOGUE == RR__CU_GELU && std::is_same<Out, __nv_fp8_e4m3>::value) {
        uint32_t v = pack(x, y, __half());
        return pack(__hmul2(gelu2(*(__half2 *)&v), __float2half2_rn(out_scale)));
    } else if (EPILOGUE == RR__CU_GELU) {
        x = gelu(x);
        y = gelu(y);
    } else if (EPILOGUE == RR__CU_RESIDUAL) {
        float2 r = unpack(residual, Out());
        x += r.x;
        y += r.y;
    }
    return pack(x * out_scale, y * out_scale, Out());
}

/* The row of a thread's i-th pairs of sums, i < 2 MT, in a tile that begins with `row`. */
__device__ __forceinline__ int row_of(int row, int i, int warp, int lane) {
    return row + i / 2 * 64 + warp * 16 + lane / 4 + i % 2 * 8;
}

/* a_scale of a thread's rows, 1 where there is none. */
template <int N>
__device__ __forceinline__ void load_row_scales(float (&to)[N], const Args &g, int row, int warp,
                                                int lane) {
#pragma unroll
    for (int i = 0; i < N; i++) {
        int r = row_of(row, i, warp, lane);
        to[i] = g.a_scale && r < g.m ? __ldg(g.a_scale + r) : 1.0f;
    }
}

/* Rounds and stores one warpgroup's part of a tile through shared memory. Chunk c, 64 rows of 128
 * bytes, lies in buffer c % BUFFERS; with a residual the copy engine has put that there first. */
template <class S> struct Stager {
    static const int   ACROSS = S::BN / S::CHUNK, CHUNKS = S::MT * ACROSS;
    static const int   PER = (S::BN + 127) / 128;
    static const bool  SCALED = sizeof(typename S::In) == 1;
    const CUtensorMap *map_d, *map_r;
    uint32_t           smem, bars, parity; /* buffers; residual barriers; a bit for each buffer */
    float             *columns;            /* shared: bias [BN], then w_scale [BN] if SCALED    */
    int                warpgroup, warp, lane;
    float              bias[PER], scale[PER]; /* of columns thread + 128 i, on their way there */
    float              of_row[2 * S::MT];     /* a_scale of the thread's rows if SCALED */

    __device__ __forceinline__ void fetch(int c, int row, int col) {
        uint32_t buffer = c % S::BUFFERS, bar = bars + 8 * buffer;
        bar_expect(bar, S::CHUNK_BYTES);
        tma_load(smem + buffer * S::CHUNK_BYTES, map_r, bar, col + c % ACROSS * S::CHUNK,
                 row + c / ACROSS * 64);
    }
    /* Before the products: what the epilogue needs comes while they run. */
    __device__ __forceinline__ void begin(const Args &g, int row, int col) {
        const int thread = threadIdx.x & 127;
#pragma unroll
        for (int i = 0; i < PER; i++) {
            int  j = col + thread + 128 * i;
            bool inside = thread + 128 * i < S::BN && j < g.n;
            bias[i] = inside ? __ldg(g.bias + j) : 0.0f;
            if (SCALED)
                scale[i] = inside && g.w_scale ? __ldg(g.w_scale + j) : 1.0f;
        }
        if (SCALED)
            load_row_scales(of_row, g, row, warp, lane);
        if (g.epilogue != RR__CU_RESIDUAL || thread != 0)
            return;
        tma_stores_read<0>();
#pragma unroll
        for (int c = 0; c < S::BUFFERS && c < CHUNKS; c++)
            fetch(c, row, col);
    }
    __device__ __forceinline__ Columns two(int j) const {
        Columns c = {*(const float2 *)(columns + j), make_float2(1.0f, 1.0f)};
        if (SCALED)
            c.scale = *(const float2 *)(columns + S::BN + j);
        return c;
    }
    template <int EPILOGUE>
    __device__ __forceinline__ void store(const Args &g, float (&acc)[S::MT][S::BN / 2], int row,
                                          int col) {
        const int thread = threadIdx.x & 127;
#pragma unroll
        for (int i = 0; i < PER; i++)
            if (thread + 128 * i < S::BN) {
                columns[thread + 128 * i] = bias[i];
                if (SCALED)
                    columns[S::BN + thread + 128 * i] = scale[i];
            }
        sync_some(STAGE + warpgroup, 128);
#pragma unroll
        for (int mt = 0; mt < S::MT; mt++) {
            const float s0 = SCALED ? of_row[2 * mt] : 1.0f;
            const float s1 = SCALED ? of_row[2 * mt + 1] : 1.0f;
#pragma unroll
            for (int cc = 0; cc < ACROSS; cc++) {
                const int c = mt * ACROSS + cc, buffer = c % S::BUFFERS;
                uint32_t  chunk = smem + buffer * S::CHUNK_BYTES;
                if (EPILOGUE == RR__CU_RESIDUAL) {
                    bar_wait(bars + 8 * buffer, parity >> buffer & 1);
                    parity ^= 1u << buffer;
                } else {
                    if (thread == 0)
                        tma_stores_read<S::BUFFERS - 1>();
                    sync_some(STAGE + warpgroup, 128);
                }
                fill<EPILOGUE>(chunk, acc[mt], cc, s0, s1, g.out_scale);
                fence_async();
                sync_some(STAGE + warpgroup, 128);
                if (thread == 0) {
                    tma_store(map_d, chunk, col + cc * S::CHUNK, row + mt * 64);
                    tma_commit();
                    if (EPILOGUE == RR__CU_RESIDUAL && c + S::BUFFERS < CHUNKS) {
                        tma_stores_read<0>();
                        fetch(c + S::BUFFERS, row, col);
                    }
                }
            }
        }
    }
    template <int EPILOGUE>
    __device__ __forceinline__ void fill(uint32_t chunk, const float (&x)[S::BN / 2], int cc,
                                         float s0, float s1, float os) {
        if constexpr (sizeof(typename S::Out) == 2) {
            const int r = warp * 16 + (lane & 15);
#pragma unroll
            for (int j = 0; j < S::CHUNK / 8; j += 2) {
                const int f = (cc * S::CHUNK / 8 + j) * 4, at = cc * S::CHUNK + j * 8;
                uint32_t  v[4] = {}, place = chunk + r * 128 + (((j + (lane >> 4)) ^ (r & 7)) << 4);
                Columns   left = two(at + 2 * (lane & 3)), right = two(at + 8 + 2 * (lane & 3));
                if (EPILOGUE == RR__CU_RESIDUAL)
                    ldmatrix4(place, v);
                v[0] = finish<S, EPILOGUE>(left, s0, os, x[f], x[f + 1], v[0]);
                v[1] = finish<S, EPILOGUE>(left, s1, os, x[f + 2], x[f + 3], v[1]);
                v[2] = finish<S, EPILOGUE>(right, s0, os, x[f + 4], x[f + 5], v[2]);
                v[3] = finish<S, EPILOGUE>(right, s1, os, x[f + 6], x[f + 7], v[3]);
                stmatrix4(place, v);
            }
        } else {
            const int r = warp * 16 + lane / 4;
#pragma unroll
            for (int j = 0; j < S::CHUNK / 8; j++) {
                const int f = (cc * S::CHUNK / 8 + j) * 4, byte = 8 * j + 2 * (lane & 3);
                uint32_t  place = chunk + r * 128 + (((byte >> 4) ^ (r & 7)) << 4) + (byte & 15);
                Columns   c = two(cc * S::CHUNK + byte);
                uint32_t  v0 = finish<S, EPILOGUE>(c, s0, os, x[f], x[f + 1], 0);
                uint32_t  v1 = finish<S, EPILOGUE>(c, s1, os, x[f + 2], x[f + 3], 0);
                asm volatile("st.shared.u16 [%0], %1;" ::"r"(place), "h"((uint16_t)v0) : "memory");
                asm volatile("st.shared.u16 [%0], %1;" ::"r"(place + 1024), "h"((uint16_t)v1)
                             : "memory");
            }
        }
    }
};

/* The same for narrow tiles, from registers: four bytes (fp8: two) a thread. */
template <class S> struct Direct {
    static const bool SCALED = sizeof(typename S::In) == 1;
    int               warp, lane;
    Columns           two[S::BN / 8];
    uint32_t          old[2 * S::MT][S::BN / 8]; /* the residual */
    float             of_row[2 * S::MT];         /* a_scale if SCALED */

    __device__ __forceinline__ bool inside(const Args &g, int r, int at) const {
        return r < g.m && at < g.n;
    }

    __device__ __forceinline__ void begin(const Args &g, int row, int col) {
        typedef typename S::Out Out;
#pragma unroll
        for (int j = 0; j < S::BN / 8; j++) {
            int at = col + 8 * j + 2 * (lane & 3);
            two[j].bias = make_float2(0.0f, 0.0f);
            two[j].scale = make_float2(1.0f, 1.0f);
            if (at >= g.n)
                continue;
            two[j].bias = __ldg((const float2 *)(g.bias + at));
            if (SCALED && g.w_scale)
                two[j].scale = __ldg((const float2 *)(g.w_scale + at));
        }
        if (SCALED)
            load_row_scales(of_row, g, row, warp, lane);
        if constexpr (sizeof(Out) == 2)
            if (g.epilogue == RR__CU_RESIDUAL)
#pragma unroll
                for (int i = 0; i < 2 * S::MT; i++)
#pragma unroll
                    for (int j = 0; j < S::BN / 8; j++) {
                        int r = row_of(row, i, warp, lane), at = col + 8 * j + 2 * (lane & 3);
                        if (inside(g, r, at))
                            old[i][j] = *(const uint32_t *)((const Out *)g.residual +
                                                            (size_t)r * g.ldd + at);
                    }
    }
    template <int EPILOGUE>
    __device__ __forceinline__ void store(const Args &g, float (&acc)[S::MT][S::BN / 2], int row,
                                          int col) {
        typedef typename S::Out Out;
#pragma unroll
        for (int i = 0; i < 2 * S::MT; i++) {
            int   r = row_of(row, i, warp, lane);
            float s = SCALED ? of_row[i] : 1.0f;
#pragma unroll
            for (int j = 0; j < S::BN / 8; j++) {
                int    at = col + 8 * j + 2 * (lane & 3), f = 4 * j + i % 2 * 2;
                size_t place = (size_t)r * g.ldd + at;
                if (!inside(g, r, at))
                    continue;
                uint32_t v = finish<S, EPILOGUE>(two[j], s, g.out_scale, acc[i / 2][f],
                                                 acc[i / 2][f + 1], old[i][j]);
                if (sizeof(Out) == 2)
                    *(uint32_t *)((Out *)g.d + place) = v;
                else
                    *(uint16_t *)((Out *)g.d + place) = (uint16_t)v;
            }
        }
    }
};

/* Sums as they are, of half of k. */
template <class S> struct Sums {
    static const bool SCALED = sizeof(typename S::In) == 1;
    int               warp, lane;
    float2            scale[S::BN / 8]; /* w_scale, a_scale if SCALED */
    float             of_row[2 * S::MT];

    __device__ __forceinline__ void begin(const Args &g, int row, int col) {
        if constexpr (SCALED) {
#pragma unroll
            for (int j = 0; j < S::BN / 8; j++) {
                int at = col + 8 * j + 2 * (lane & 3);
                scale[j] = g.w_scale && at < g.n ? __ldg((const float2 *)(g.w_scale + at))
                                                 : make_float2(1.0f, 1.0f);
            }
            load_row_scales(of_row, g, row, warp, lane);
        }
    }
    __device__ __forceinline__ void store(const Args &g, float (&acc)[S::MT][S::BN / 2], int row,
                                          int col, int part) {
#pragma unroll
        for (int i = 0; i < 2 * S::MT; i++) {
            const int r = row_of(row, i, warp, lane);
            float    *to = (float *)g.d + ((size_t)part * g.m + r) * g.n;
            if (r >= g.m)
                continue;
#pragma unroll
            for (int j = 0; j < S::BN / 8; j++) {
                const int at = col + 8 * j + 2 * (lane & 3), f = 4 * j + i % 2 * 2;
                float2    v = make_float2(acc[i / 2][f], acc[i / 2][f + 1]);
                if (at >= g.n)
                    continue;
                if (SCALED)
                    v = make_float2(v.x * (of_row[i] * scale[j].x), v.y * (of_row[i] * scale[j].y));
                *(float2 *)(to + at) = v;
            }
        }
    }
};

} // namespace

#endif
