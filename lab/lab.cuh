/* lab.cuh - what every lab program needs: random device arrays, errors, timing by graph replay.
 * A lab program checks an operation against double precision, then times its versions. */
#ifndef RR_LAB_CUH
#define RR_LAB_CUH

#include <algorithm>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
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

/* Microseconds of one call of f(i, stream), i rising, from replays of a graph of enough calls. */
template <class F> double lab_time(F f, double guess_us) {
    static cudaStream_t stream;
    if (!stream)
        CHECK(cudaStreamCreate(&stream));
    int             calls = std::max(8, std::min(400, (int)(4000.0 / guess_us)));
    cudaGraph_t     graph;
    cudaGraphExec_t run;
    cudaEvent_t     a, b;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < calls; i++)
        f(i, stream);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&run, graph, 0));
    CHECK(cudaEventCreate(&a));
    CHECK(cudaEventCreate(&b));
    std::vector<float> t;
    for (int i = 0; i < 6; i++) {
        float ms;
        CHECK(cudaEventRecord(a, stream));
        CHECK(cudaGraphLaunch(run, stream));
        CHECK(cudaEventRecord(b, stream));
        CHECK(cudaEventSynchronize(b));
        CHECK(cudaEventElapsedTime(&ms, a, b));
        if (i > 0)
            t.push_back(ms);
    }
    std::sort(t.begin(), t.end());
    CHECK(cudaGraphExecDestroy(run));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaEventDestroy(a));
    CHECK(cudaEventDestroy(b));
    return t[t.size() / 2] * 1e3 / calls;
}

#endif
