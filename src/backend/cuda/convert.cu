/* convert.cu - weights as the file stores them to what the kernels read, once at load.
 *
 *     convert   dst[i] = src[i]                                       f32, f16, bf16 to any of them
 *     quantise  scale[j] = max |w[j, :]| / 448 or 127,  dst[j, :] = w[j, :] / scale[j]
 *               of smoothed weights, w[j, :] / inv_smooth, where there is a smoothing
 *     bound     bound[j] = sqrt(k) ||w[j, :] gamma||_2 + |w[j, :] . beta + b[j]|
 *
 * The bound is the largest magnitude output j of a linear layer behind a LayerNorm can reach: the
 * normalised row has norm sqrt(k), the rest is Cauchy-Schwarz. fp8 has 15 binades, so a scale that
 * is a few of them too careful costs nothing and can never overflow: the scales of what attention
 * and GELU write are known before a token is seen. */
#include "backend/cuda/device.cuh"

__device__ __forceinline__ float load(const void *src, rr__cu_type type, size_t i) {
    return type == RR__CU_F32   ? ((const float *)src)[i]
           : type == RR__CU_F16 ? __half2float(((const __half *)src)[i])
                                : __bfloat162float(((const __nv_bfloat16 *)src)[i]);
}

__global__ void convert_kernel(const void *src, rr__cu_type from, void *dst, rr__cu_type to,
                               size_t n) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        float v = load(src, from, i);

        if (to == RR__CU_F32)
            ((float *)dst)[i] = v;
        else if (to == RR__CU_F16)
            ((__half *)dst)[i] = __float2half_rn(rr_clamp(v, 65504.f));
        else
            ((__nv_bfloat16 *)dst)[i] = __float2bfloat16_rn(v);
    }
}

__device__ float block_sum(float v) {
    __shared__ float part[4];

    v = rr_warp_sum(v);
    if ((threadIdx.x & 31) == 0)
        part[threadIdx.x >> 5] = v;
    __syncthreads();
    v = part[0] + part[1] + part[2] + part[3];
    __syncthreads();
    return v;
}

__global__ void __launch_bounds__(128)
    quantise_kernel(const void *src, rr__cu_type from, int k, const float *inv_smooth, void *dst,
                    rr__cu_type to, float *scale) {
    __shared__ float part[4];
    const size_t     row = (size_t)blockIdx.x * k;
    float            top = 0;
    auto             weight = [&](int i) {
        float v = load(src, from, row + i);

        return inv_smooth ? v / inv_smooth[i] : v;
    };

    for (int i = threadIdx.x; i < k; i += 128)
        top = fmaxf(top, fabsf(weight(i)));
    top = rr_warp_max(top);
    if ((threadIdx.x & 31) == 0)
        part[threadIdx.x >> 5] = top;
    __syncthreads();
    top = fmaxf(fmaxf(part[0], part[1]), fmaxf(part[2], part[3]));
    top = fmaxf(top, 1e-12f) / rr_largest(to);
    if (threadIdx.x == 0)
        scale[blockIdx.x] = top;
    for (int i = threadIdx.x; i < k; i += 128) {
        float v = weight(i) / top;

        if (to == RR__CU_E4M3)
            ((uint8_t *)dst)[row + i] = (uint8_t)rr_e4m3x2(v, 0);
        else
            ((int8_t *)dst)[row + i] = (int8_t)__float2int_rn(rr_clamp(v, 127.f));
    }
}

__global__ void __launch_bounds__(128) bound_kernel(const void *src, rr__cu_type from, int k,
                                                    const float *gamma, const float *beta,
                                                    const float *bias, float *bound) {
    const size_t row = (size_t)blockIdx.x * k;
    float        norm = 0, shift = 0;

    for (int i = threadIdx.x; i < k; i += 128) {
        float w = load(src, from, row + i);

        norm += w * gamma[i] * w * gamma[i];
        shift += w * beta[i];
    }
    norm = block_sum(norm);
    shift = block_sum(shift);
    if (threadIdx.x == 0)
        bound[blockIdx.x] = sqrtf((float)k * norm) + fabsf(shift + bias[blockIdx.x]);
}

cudaError_t rr__cu_convert(const void *src, rr__cu_type from, void *dst, rr__cu_type to, size_t n,
                           cudaStream_t stream) {
    size_t blocks = (n + 1023) / 1024;

    convert_kernel<<<(unsigned)(blocks < 65535 ? blocks : 65535), 256, 0, stream>>>(src, from, dst,
                                                                                   to, n);
    return cudaGetLastError();
}

cudaError_t rr__cu_quantise_weight(const void *src, rr__cu_type from, int32_t rows, int32_t k,
                                   const float *inv_smooth, void *dst, rr__cu_type to, float *scale,
                                   cudaStream_t stream) {
    quantise_kernel<<<rows, 128, 0, stream>>>(src, from, k, inv_smooth, dst, to, scale);
    return cudaGetLastError();
}

cudaError_t rr__cu_bound_rows(const void *src, rr__cu_type from, int32_t rows, int32_t k,
                              const float *gamma, const float *beta, const float *bias,
                              float *bound, cudaStream_t stream) {
    bound_kernel<<<rows, 128, 0, stream>>>(src, from, k, gamma, beta, bias, bound);
    return cudaGetLastError();
}
