/* lab.cuh - what every lab program needs: random device arrays, errors, timing by graph replay.
 * A lab program checks an operation against double precision, then times its versions. */
#ifndef RR_LAB_CUH
#define RR_LAB_CUH

#include <algorithm>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <functional>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        cudaError_t e_ = (x);                                                                      \
        if (e_ != cudaSuccess) {                                                                   \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #x, cudaGetErrorString(e_));    \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* A number in [0, 1) from an index and a seed. */
__host__ __device__ inline float lab_uniform(uint64_t i, uint32_t seed) {
    uint64_t x = (i + 1) * 0x9E3779B97F4A7C15ull ^ ((uint64_t)seed << 32 | seed);
    x ^= x >> 31, x *= 0xBF58476D1CE4E5B9ull, x ^= x >> 27, x *= 0x94D049BB133111EBull,
        x ^= x >> 31;
    return (float)(x >> 40) * (1.0f / 16777216.0f);
}
/* Near normal with mean 0 and this spread: the sum of four uniforms. */
__host__ __device__ inline float lab_normal(uint64_t i, uint32_t seed, float spread) {
    float s = 0.0f;
    for (uint32_t k = 0; k < 4; k++)
        s += lab_uniform(4 * i + k, seed) - 0.5f;
    return s * 1.7320508f * spread;
}
template <class T>
__global__ void lab_fill_kernel(T *p, size_t n, uint32_t seed, float spread, float mean) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x)
        p[i] = T(lab_normal(i, seed, spread) + mean);
}
template <class T> T *lab_array(size_t n) {
    T *p;
    CHECK(cudaMalloc(&p, n * sizeof(T)));
    CHECK(cudaMemset(p, 0xff, n * sizeof(T))); /* NaN: what stays unwritten shows */
    return p;
}
template <class T> T *lab_random(size_t n, uint32_t seed, float spread, float mean = 0.0f) {
    T *p = lab_array<T>(n);
    lab_fill_kernel<<<1024, 256>>>(p, n, seed, spread, mean);
    CHECK(cudaGetLastError());
    return p;
}
inline uint64_t lab_hash(const void *p, size_t n) {
    uint64_t h = 1469598103934665603ull;
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const uint8_t *)p)[i]) * 1099511628211ull;
    return h;
}

typedef std::function<void(int, cudaStream_t)> lab_call;

/* Microseconds of one call of each: calls(i, stream), i rising, are captured in a graph for each
 * candidate, and the graphs replayed in turn, so that all meet the same heat and power limit. */
inline std::vector<double> lab_race(const std::vector<lab_call> &calls, double guess_us) {
    static cudaStream_t stream;
    if (!stream)
        CHECK(cudaStreamCreate(&stream));
    const int                       n = std::max(8, std::min(400, (int)(4000.0 / guess_us)));
    std::vector<cudaGraphExec_t>    run(calls.size());
    std::vector<std::vector<float>> t(calls.size());
    cudaEvent_t                     a, b;
    CHECK(cudaEventCreate(&a));
    CHECK(cudaEventCreate(&b));
    for (size_t c = 0; c < calls.size(); c++) {
        cudaGraph_t graph;
        CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        for (int i = 0; i < n; i++)
            calls[c](i, stream);
        CHECK(cudaStreamEndCapture(stream, &graph));
        CHECK(cudaGraphInstantiate(&run[c], graph, 0));
        CHECK(cudaGraphDestroy(graph));
    }
    for (int round = 0; round < 7; round++)
        for (size_t c = 0; c < calls.size(); c++) {
            float ms;
            CHECK(cudaEventRecord(a, stream));
            CHECK(cudaGraphLaunch(run[c], stream));
            CHECK(cudaEventRecord(b, stream));
            CHECK(cudaEventSynchronize(b));
            CHECK(cudaEventElapsedTime(&ms, a, b));
            if (round > 0)
                t[c].push_back(ms);
        }
    std::vector<double> us;
    for (size_t c = 0; c < calls.size(); c++) {
        std::sort(t[c].begin(), t[c].end());
        us.push_back(t[c][t[c].size() / 2] * 1e3 / n);
        CHECK(cudaGraphExecDestroy(run[c]));
    }
    CHECK(cudaEventDestroy(a));
    CHECK(cudaEventDestroy(b));
    return us;
}

#endif
