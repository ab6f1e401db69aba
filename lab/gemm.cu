/* gemm.cu - d = epilogue(a w^T): our Hopper variants beside the best of cuBLASLt.
 *
 *   gemm check V     variant V against double precision; prints a hash of the first rows of every
 *                    case: the same for every m here, and the same for every variant
 *   gemm bench       TFLOP/s of every variant and of cuBLASLt's best heuristic, weights rotated so
 *                    that small shapes read them from memory and not from the L2
 * Build: make lab. */
#define RR_LAB
#include "../src/backend/cuda/sm90_gemm.cu"
#include "lab.cuh"
#include <cublasLt.h>
#include <string>

struct Dims {
    int n, k;
};
static const Dims LAYER[] = {{3072, 1024}, {1024, 1024}, {4096, 1024}, {1024, 4096}};

static const char *NAME[] = {"square", "block",  "deep64", "deep32", "wide", "square5", "across",
                             "thin64", "half64", "deep16", "block3", "tall", "tall5"};

__global__ void reference(const void *a, const void *w, int type, rr__cu_gemm g, int row0, int rows,
                          double *out) {
    int j = blockIdx.x * blockDim.x + threadIdx.x, i = row0 + blockIdx.y;
    if (j >= g.n || i >= g.m)
        return;
    double s = 0;
    for (int k = 0; k < g.k; k++) {
        size_t ia = (size_t)i * g.lda + k, iw = (size_t)j * g.k + k;
        double x, y;
        if (type == RR__CU_F16)
            x = (float)((const __half *)a)[ia], y = (float)((const __half *)w)[iw];
        else if (type == RR__CU_BF16)
            x = (float)((const __nv_bfloat16 *)a)[ia], y = (float)((const __nv_bfloat16 *)w)[iw];
        else
            x = (float)((const __nv_fp8_e4m3 *)a)[ia], y = (float)((const __nv_fp8_e4m3 *)w)[iw];
        s += x * y;
    }
    if (g.a_scale)
        s *= (double)g.a_scale[i] * g.w_scale[j];
    s += g.bias[j];
    if (g.epilogue == RR__CU_GELU)
        s = s * 0.5 * erfc(-s * 0.70710678118654752440);
    if (g.epilogue == RR__CU_RESIDUAL) {
        size_t r = (size_t)i * g.ldd + j;
        s += g.out_type == RR__CU_F16 ? (double)(float)((const __half *)g.residual)[r]
                                      : (double)(float)((const __nv_bfloat16 *)g.residual)[r];
    }
    out[(size_t)blockIdx.y * g.n + j] = s * g.out_scale;
}

static int bytes_of(rr__cu_type t) {
    return t == RR__CU_E4M3 ? 1 : 2;
}
static void *random_of(rr__cu_type t, size_t n, uint32_t seed, float spread) {
    if (t == RR__CU_F16)
        return lab_random<__half>(n, seed, spread);
    if (t == RR__CU_BF16)
        return lab_random<__nv_bfloat16>(n, seed, spread);
    return lab_random<__nv_fp8_e4m3>(n, seed, spread);
}
static double value_of(rr__cu_type t, const uint8_t *p, size_t i) {
    if (t == RR__CU_F16)
        return (float)((const __half *)p)[i];
    if (t == RR__CU_BF16)
        return (float)((const __nv_bfloat16 *)p)[i];
    return (float)((const __nv_fp8_e4m3 *)p)[i];
}

static int check(int variant) {
    static const Dims DIMS[] = {{3072, 1024}, {1024, 4096}, {1152, 384}, {384, 1536}};
    static const int  M[] = {1, 77, 300, 1000, 40000};
    static const struct {
        rr__cu_type in, out;
    } TYPES[] = {{RR__CU_F16, RR__CU_F16},
                 {RR__CU_BF16, RR__CU_BF16},
                 {RR__CU_E4M3, RR__CU_F16},
                 {RR__CU_E4M3, RR__CU_BF16},
                 {RR__CU_E4M3, RR__CU_E4M3}};
    int bad = 0;
    for (auto type : TYPES)
        for (auto dim : DIMS)
            for (int epi = 0; epi < 3; epi++) {
#ifdef RR_LAB_QUICK
                if (type.in == RR__CU_BF16 || type.out == RR__CU_BF16)
                    continue;
#endif
                if (type.out == RR__CU_E4M3 && epi != RR__CU_GELU)
                    continue;
                std::vector<uint8_t> first;
                double               worst = 0;
                int                  same = 1;
                for (int m : M) {
                    if (m == 40000 && dim.n != 1152 && dim.n != 1024)
                        continue;
                    int         fp8 = type.in == RR__CU_E4M3, ldd = dim.n + 64, lda = dim.k + 64;
                    float       spread = fp8 ? 1.0f : 0.05f;
                    rr__cu_gemm g = {};
                    g.type = type.in, g.out_type = type.out, g.epilogue = (rr__cu_epilogue)epi;
                    g.m = m, g.n = dim.n, g.k = dim.k, g.lda = lda, g.ldd = ldd;
                    g.a = random_of(type.in, (size_t)m * lda, 1, 1.0f);
                    g.w = random_of(type.in, (size_t)dim.n * dim.k, 2, spread);
                    g.bias = lab_random<float>(dim.n, 3, 0.5f);
                    g.residual = random_of(type.out, (size_t)m * ldd, 4, 1.0f);
                    if (fp8) {
                        g.a_scale = lab_random<float>(m, 5, 0.1f, 1.0f);
                        g.w_scale = lab_random<float>(dim.n, 6, 0.005f, 0.04f);
                    }
                    g.out_scale = type.out == RR__CU_E4M3 ? 8.0f : epi == RR__CU_GELU ? 1.0f : 0.5f;
                    size_t size = (size_t)(m + 1) * ldd * bytes_of(type.out);
                    g.d = lab_array<uint8_t>(size);
                    CHECK(launch_typed(&g, variant, 0));
                    CHECK(cudaDeviceSynchronize());
                    std::vector<uint8_t> d(size);
                    CHECK(cudaMemcpy(d.data(), g.d, size, cudaMemcpyDeviceToHost));
                    int     rows = std::min(m, 64);
                    double *ref = lab_array<double>((size_t)rows * dim.n), e2 = 0, r2 = 0;
                    std::vector<double> r((size_t)rows * dim.n);
                    for (int row0 : {0, m - rows}) {
                        reference<<<dim3((dim.n + 127) / 128, rows), 128>>>(g.a, g.w, type.in, g,
                                                                            row0, rows, ref);
                        CHECK(cudaMemcpy(r.data(), ref, r.size() * 8, cudaMemcpyDeviceToHost));
                        for (int i = 0; i < rows; i++)
                            for (int j = 0; j < dim.n; j++) {
                                double y =
                                    value_of(type.out, d.data(), (size_t)(row0 + i) * ldd + j);
                                double x = r[(size_t)i * dim.n + j];
                                e2 += (y - x) * (y - x), r2 += x * x;
                                if (!(fabs(y - x) < 1e30))
                                    e2 = NAN;
                            }
                    }
                    double e = sqrt(e2 / r2);
                    if (!(e <= worst))
                        worst = e;
                    /* nothing beyond the last row or column, every row the same bits as before */
                    int b = bytes_of(type.out);
                    for (int i = 0; i <= m && m < 2000; i++)
                        for (int j = i < m ? dim.n * b : 0; j < ldd * b; j++)
                            if (d[(size_t)i * ldd * b + j] != 0xff)
                                same = 0;
                    for (int i = 0; i < m; i++) /* finite everywhere: 0xff.. is NaN in all types */
                        for (int j = 0; j < dim.n; j += 61)
                            if (value_of(type.out, d.data(), (size_t)i * ldd + j) !=
                                value_of(type.out, d.data(), (size_t)i * ldd + j))
                                same = -1;
                    size_t part = std::min(first.size(), d.size() - (size_t)ldd * b);
                    if (memcmp(first.data(), d.data(), part))
                        same = 0;
                    if (first.size() < (size_t)std::min(m, 300) * ldd * b)
                        first.assign(d.begin(), d.begin() + (size_t)std::min(m, 300) * ldd * b);
                    for (const void *p :
                         {(const void *)g.a, (const void *)g.w, (const void *)g.bias,
                          (const void *)g.residual, (const void *)g.d, (const void *)ref,
                          (const void *)g.a_scale, (const void *)g.w_scale})
                        CHECK(cudaFree((void *)p));
                }
                double limit = type.out == RR__CU_F16    ? 2e-3
                               : type.out == RR__CU_BF16 ? 4e-3
                                                         : 4e-2;
                if (!(worst < limit) || same != 1)
                    bad++;
                printf("type %d>%d epi %d n %4d k %4d error %.1e %s hash %08x\n", type.in, type.out,
                       epi, dim.n, dim.k, worst,
                       same == 1 ? "same"
                       : same    ? "NAN"
                                 : "DIFFERS",
                       (unsigned)lab_hash(first.data(), first.size()));
            }
    printf("%s %s\n", NAME[variant], bad ? "BAD" : "ok");
    return bad;
}

#define LT(x)                                                                                      \
    do {                                                                                           \
        int s_ = (int)(x);                                                                         \
        if (s_)                                                                                    \
            fprintf(stderr, "cuBLASLt %s: %d\n", #x, s_), exit(1);                                 \
    } while (0)

/* cuBLASLt with the fastest of its first eight heuristics; weights(i) are those of call i. */
template <class F> static lab_call cublas(const rr__cu_gemm &g, F weights, double guess) {
    static cublasLtHandle_t lt;
    static void            *space;
    const size_t            room = 64 << 20;
    if (!lt) {
        LT(cublasLtCreate(&lt));
        CHECK(cudaMalloc(&space, room));
    }
    int          fp8 = g.type == RR__CU_E4M3;
    cudaDataType in = fp8 ? CUDA_R_8F_E4M3 : g.type == RR__CU_F16 ? CUDA_R_16F : CUDA_R_16BF;
    cudaDataType out = g.out_type == RR__CU_F16 ? CUDA_R_16F : CUDA_R_16BF;
    cublasLtMatmulDesc_t   op;
    cublasLtMatrixLayout_t a, b, d;
    cublasOperation_t      t = CUBLAS_OP_T;
    int8_t                 fast = 1;
    cublasLtEpilogue_t     epi = CUBLASLT_EPILOGUE_BIAS;
    void                  *bias = lab_random<__half>(g.n, 9, 0.1f);
    LT(cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t));
    LT(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epi, sizeof epi));
    LT(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    if (fp8)
        LT(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, 1));
    LT(cublasLtMatrixLayoutCreate(&a, in, g.k, g.n, g.k));
    LT(cublasLtMatrixLayoutCreate(&b, in, g.k, g.m, g.lda));
    LT(cublasLtMatrixLayoutCreate(&d, out, g.n, g.m, g.ldd));
    cublasLtMatmulPreference_t      pref;
    cublasLtMatmulHeuristicResult_t h[8];
    int                             found = 0;
    LT(cublasLtMatmulPreferenceCreate(&pref));
    LT(cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room,
                                            sizeof room));
    if (cublasLtMatmulAlgoGetHeuristic(lt, op, a, b, d, d, pref, 8, h, &found) || !found)
        fprintf(stderr, "cuBLASLt has nothing for this\n"), exit(1);
    static float          one = 1, zero = 0;
    const void           *x = g.a;
    void                 *y = g.d;
    std::vector<lab_call> calls;
    for (int i = 0; i < found; i++) {
        cublasLtMatmulAlgo_t algo = h[i].algo;
        calls.push_back([=](int c, cudaStream_t s) {
            cublasLtMatmul(lt, op, &one, weights(c), a, x, b, &zero, y, d, y, d, &algo, space, room,
                           s);
        });
    }
    std::vector<double> us = lab_race(calls, guess);
    return calls[std::min_element(us.begin(), us.end()) - us.begin()];
}

static void bench(int fp8) {
    static const int M[] = {128, 512, 4096, 17996, 51200};
    const int        most = 51200, copies = 24;
    rr__cu_type      type = fp8 ? RR__CU_E4M3 : RR__CU_F16;
    void            *a = random_of(type, (size_t)most * 4096, 1, 1.0f);
    uint8_t *w = (uint8_t *)random_of(type, (size_t)copies * 4096 * 1024, 2, fp8 ? 1.0f : 0.05f);
    void    *d = lab_random<__half>((size_t)most * 4096, 3, 1.0f);
    void    *r = lab_random<__half>((size_t)most * 4096, 4, 1.0f);
    float   *bias = lab_random<float>(4096, 5, 0.5f), *as = lab_random<float>(most, 6, 0.1f, 1);
    float   *ws = lab_random<float>(4096, 7, 0.005f, 0.04f);
    printf("%s, %s\n", fp8 ? "fp8" : "fp16", "microseconds below m = 1000, TFLOP/s above");
    for (int m : M)
        for (auto dim : LAYER) {
            double      fl = 2e-6 * m * dim.n * dim.k;
            size_t      stride = (size_t)dim.n * dim.k * bytes_of(type);
            int         sets = (int)((size_t)copies * 4096 * 1024 * bytes_of(type) / stride);
            rr__cu_gemm g = {};
            g.type = type, g.out_type = RR__CU_F16, g.m = m, g.n = dim.n, g.k = dim.k;
            g.lda = dim.k, g.ldd = dim.n, g.a = a, g.w = w, g.bias = bias, g.d = d, g.residual = r;
            if (fp8)
                g.a_scale = as, g.w_scale = ws;
            g.out_scale = 1.0f;
            auto   weights = [=](int i) { return (const void *)(w + (size_t)(i % sets) * stride); };
            double guess = std::max(4.0, fl / (fp8 ? 1000 : 550));
            std::vector<lab_call>    calls;
            std::vector<std::string> names;
            calls.push_back(cublas(g, weights, guess));
            names.push_back("cublas");
            auto add = [&](int variant, rr__cu_epilogue epi) {
                static const char *const EPI[] = {"", "+gelu", "+res"};
                rr__cu_gemm              x = g;
                x.epilogue = epi;
                x.out_type = epi == RR__CU_GELU && fp8 ? RR__CU_E4M3 : RR__CU_F16;
                calls.push_back([=](int i, cudaStream_t s) mutable {
                    x.w = weights(i);
                    CHECK(launch_typed(&x, variant, s));
                });
                names.push_back(std::string(NAME[variant]) + EPI[epi]);
            };
            if (m > 1000) {
                for (int v : {SQUARE, TALL, TALL5})
                    for (int e = 0; e < 3; e++)
                        add(v, (rr__cu_epilogue)e);
                add(WIDE, RR__CU_BIAS);
                add(ACROSS, RR__CU_BIAS);
            } else {
                for (int v = 0; v < N_VARIANT; v++)
                    if (v != WIDE)
                        add(v, RR__CU_BIAS);
            }
            std::vector<double> us = lab_race(calls, guess);
            printf("%5d %4d %4d ", m, dim.n, dim.k);
            for (size_t i = 0; i < us.size(); i++)
                printf(m < 1000 ? " %s %.2f" : " %s %.0f", names[i].c_str(),
                       m < 1000 ? us[i] : fl / us[i]);
            printf("\n");
        }
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    cudaDeviceProp p;
    CHECK(cudaGetDeviceProperties(&p, 0));
    if (argc == 3 && !strcmp(argv[1], "check"))
        return check(atoi(argv[2]));
    if (argc >= 2 && !strcmp(argv[1], "bench")) {
        printf("%s, %d multiprocessors\n", p.name, p.multiProcessorCount);
        if (argc < 3 || !strcmp(argv[2], "fp16"))
            bench(0);
        if (argc < 3 || !strcmp(argv[2], "fp8"))
            bench(1);
        return 0;
    }
    fprintf(stderr, "gemm check VARIANT | gemm bench [fp16|fp8]\n");
    return 2;
}
