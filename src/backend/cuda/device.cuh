/* device.cuh - what every kernel file shares: loads and stores of each type as fp32, saturation,
 * sums over a warp, asynchronous copies. Device code only. */
#ifndef RR_BACKEND_CUDA_DEVICE_CUH
#define RR_BACKEND_CUDA_DEVICE_CUH

#include "backend/cuda/kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

/* ---- launches that overlap ----------------------------------------------------
 * Where the card can (sm_90), a kernel may start while the one before it ends: its blocks take
 * their places and wait in rr_wait_before, which every kernel calls before it touches memory. That
 * hides most of a launch, some 2 us of it, and a pass of a small batch is 170 launches. */
__device__ __forceinline__ void rr_wait_before() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

template <typename... P, typename... A>
static cudaError_t rr_launch(void (*kernel)(P...), dim3 grid, int block, size_t smem,
                             cudaStream_t stream, A... args) {
    cudaLaunchAttribute overlap = {};
    cudaLaunchConfig_t  c = {};
    int                 device = 0, major = 0;

    if (cudaGetDevice(&device) == cudaSuccess)
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    c.gridDim = grid;
    c.blockDim = dim3((unsigned)block);
    c.dynamicSmemBytes = smem;
    c.stream = stream;
    c.attrs = &overlap;
    c.numAttrs = major >= 9;
    return cudaLaunchKernelEx(&c, kernel, P(args)...);
}

/* A value past the range of its type becomes the largest finite one: activations of 6e4 and more
 * exist in real models, and one infinity would make a whole row NaN. NaN stays NaN. */
__device__ __forceinline__ float rr_clamp(float v, float limit) {
    return v > limit ? limit : v < -limit ? -limit : v;
}

__device__ __forceinline__ uint32_t rr_pack(__half2 v) {
    return *reinterpret_cast<uint32_t *>(&v);
}
__device__ __forceinline__ uint32_t rr_pack(__nv_bfloat162 v) {
    return *reinterpret_cast<uint32_t *>(&v);
}

__device__ __forceinline__ uint32_t rr_f16x2(float a, float b) {
    return rr_pack(__floats2half2_rn(rr_clamp(a, 65504.f), rr_clamp(b, 65504.f)));
}
__device__ __forceinline__ uint32_t rr_bf16x2(float a, float b) {
    return rr_pack(__floats2bfloat162_rn(a, b));
}
__device__ __forceinline__ uint32_t rr_e4m3x2(float a, float b) {
    return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
}

/* ---- eight consecutive elements, 16 or 32 bytes, as fp32 -------------------- */

__device__ __forceinline__ void rr_load8(const float *p, float v[8]) {
    float4 a = reinterpret_cast<const float4 *>(p)[0], b = reinterpret_cast<const float4 *>(p)[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
__device__ __forceinline__ void rr_load8(const __half *p, float v[8]) {
    uint4          u = *reinterpret_cast<const uint4 *>(p);
    const __half2 *h = reinterpret_cast<const __half2 *>(&u);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = __half22float2(h[i]);
        v[2 * i] = f.x, v[2 * i + 1] = f.y;
    }
}
__device__ __forceinline__ void rr_load8(const __nv_bfloat16 *p, float v[8]) {
    uint4                 u = *reinterpret_cast<const uint4 *>(p);
    const __nv_bfloat162 *h = reinterpret_cast<const __nv_bfloat162 *>(&u);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = __bfloat1622float2(h[i]);
        v[2 * i] = f.x, v[2 * i + 1] = f.y;
    }
}
__device__ __forceinline__ void rr_store8(float *p, const float v[8]) {
    reinterpret_cast<float4 *>(p)[0] = make_float4(v[0], v[1], v[2], v[3]);
    reinterpret_cast<float4 *>(p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
__device__ __forceinline__ void rr_store8(__half *p, const float v[8]) {
    *reinterpret_cast<uint4 *>(p) = make_uint4(rr_f16x2(v[0], v[1]), rr_f16x2(v[2], v[3]),
                                               rr_f16x2(v[4], v[5]), rr_f16x2(v[6], v[7]));
}
__device__ __forceinline__ void rr_store8(__nv_bfloat16 *p, const float v[8]) {
    *reinterpret_cast<uint4 *>(p) = make_uint4(rr_bf16x2(v[0], v[1]), rr_bf16x2(v[2], v[3]),
                                               rr_bf16x2(v[4], v[5]), rr_bf16x2(v[6], v[7]));
}

/* v * inv as eight bytes of E4M3 or S8 */
__device__ __forceinline__ void rr_store8_quantised(void *p, rr__cu_type type, const float v[8],
                                                    float inv) {
    uint32_t w[2];

#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float *x = v + 4 * i;

        if (type == RR__CU_E4M3) {
            w[i] = rr_e4m3x2(x[0] * inv, x[1] * inv) | rr_e4m3x2(x[2] * inv, x[3] * inv) << 16;
        } else {
            w[i] = 0;
#pragma unroll
            for (int j = 0; j < 4; j++)
                w[i] |= (uint32_t)(__float2int_rn(rr_clamp(x[j] * inv, 127.f)) & 255) << 8 * j;
        }
    }
    *reinterpret_cast<uint2 *>(p) = make_uint2(w[0], w[1]);
}

/* The largest value of a quantised type; a row's scale is its largest magnitude over this. */
__device__ __forceinline__ float rr_largest(rr__cu_type type) {
    return type == RR__CU_E4M3 ? 448.f : 127.f;
}

__device__ __forceinline__ float rr_warp_sum(float v) {
#pragma unroll
    for (int i = 16; i; i >>= 1)
        v += __shfl_xor_sync(~0u, v, i);
    return v;
}
__device__ __forceinline__ float rr_warp_max(float v) {
#pragma unroll
    for (int i = 16; i; i >>= 1)
        v = fmaxf(v, __shfl_xor_sync(~0u, v, i));
    return v;
}

/* ---- global to shared memory, 16 bytes a thread ------------------------------ */

__device__ __forceinline__ uint32_t rr_smem(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}
/* Copies the first `bytes` (0 or 16) and fills the rest with zeros. */
__device__ __forceinline__ void rr_copy16(uint32_t dst, const void *src, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(bytes));
}
__device__ __forceinline__ void rr_copy_commit() {
    asm volatile("cp.async.commit_group;");
}
template <int N> __device__ __forceinline__ void rr_copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N));
}
__device__ __forceinline__ void rr_ldmatrix(uint32_t r[4], uint32_t addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(addr));
}
__device__ __forceinline__ void rr_ldmatrix_trans(uint32_t r[4], uint32_t addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(addr));
}

/* ---- matrix multiply: d += a[16, 32 bytes] b[8, 32 bytes]^T ------------------ */

template <rr__cu_type T> struct rr_acc {
    typedef float type;
};
template <> struct rr_acc<RR__CU_S8> {
    typedef int type;
};

#define RR_MMA(shape, out, in, c)                                                                  \
    asm volatile("mma.sync.aligned." shape ".row.col." out "." in "." in "." out                   \
                 " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                          \
                 : "+" c(d[0]), "+" c(d[1]), "+" c(d[2]), "+" c(d[3])                              \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

__device__ __forceinline__ uint32_t rr_tf32(uint32_t v) {
    uint32_t r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(__uint_as_float(v)));
    return r;
}

template <rr__cu_type T>
__device__ __forceinline__ void rr_mma(typename rr_acc<T>::type d[4], const uint32_t a[4],
                                       const uint32_t b[2]) {
    if constexpr (T == RR__CU_F16)
        RR_MMA("m16n8k16", "f32", "f16", "f");
    else if constexpr (T == RR__CU_BF16)
        RR_MMA("m16n8k16", "f32", "bf16", "f");
    else if constexpr (T == RR__CU_F32)
        RR_MMA("m16n8k8", "f32", "tf32", "f");
    else if constexpr (T == RR__CU_S8)
        RR_MMA("m16n8k32", "s32", "s8", "r");
#if __CUDA_ARCH__ >= 890
    else
        RR_MMA("m16n8k32", "f32", "e4m3", "f");
#endif
}

#endif
