/* module.c - the backend table of librerank-cuda.so, and which cards it runs on. */
#include "backend/cuda/cuda.h"

#include <stdio.h>
#include <string.h>

rr_status rr__cu_fail(rr_error *err, cudaError_t e, const char *call, const char *file, int line) {
    rr_status status = e == cudaErrorMemoryAllocation ? RR_E_NOMEM : RR_E_DEVICE;
    int       name = (int)strcspn(call, "(");

    return rr__fail(err, status, "%s:%d: %.*s: %s (%s)", file, line, name, call,
                    cudaGetErrorString(e), cudaGetErrorName(e));
}

enum { OLDEST = 80 }; /* mma.sync on bf16, cp.async */

rr_status rr__cu_device(int32_t ordinal, int32_t *sm, char name[64], rr_error *err) {
    struct cudaDeviceProp p;
    int                   n = 0, driver = 0;
    cudaError_t           e = cudaGetDeviceCount(&n);

    if (e == cudaErrorInsufficientDriver) {
        cudaDriverGetVersion(&driver); /* 0 where there is none */
        return driver ? rr__fail(err, RR_E_UNSUPPORTED,
                                 "cuda: the driver knows CUDA %d.%d, this build needs %d.%d",
                                 driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                                 CUDART_VERSION % 1000 / 10)
                      : rr__fail(err, RR_E_UNSUPPORTED, "cuda: no NVIDIA driver is installed");
    }
    if (e == cudaErrorNoDevice)
        return rr__fail(err, RR_E_UNSUPPORTED, "cuda: the driver sees no NVIDIA GPU");
    RR__CU_TRY(e, err);
    if (ordinal < 0 || ordinal >= n)
        return rr__fail(err, RR_E_ARG, "cuda: there is no device %d; this machine has %d",
                        (int)ordinal, n);
    RR__CU_TRY(cudaGetDeviceProperties(&p, ordinal), err);
    if (p.major * 10 + p.minor < OLDEST)
        return rr__fail(err, RR_E_UNSUPPORTED,
                        "cuda: device %d, %.63s, has compute capability %d.%d; 8.0 (Ampere) or "
                        "newer is needed",
                        (int)ordinal, p.name, p.major, p.minor);
    if (sm)
        *sm = p.major * 10 + p.minor;
    if (name)
        snprintf(name, 64, "%.63s", p.name);
    return RR_OK;
}

/* One card that will do is enough; load then asks for the one that is wanted. */
static rr_status probe(rr_error *err) {
    rr_status s = rr__cu_device(0, NULL, NULL, err);
    int       n = 0;

    if (s == RR_OK || cudaGetDeviceCount(&n) != cudaSuccess)
        return s;
    for (int i = 1; i < n; i++)
        if (rr__cu_device(i, NULL, NULL, NULL) == RR_OK)
            return RR_OK;
    return s;
}

static void describe(const void *weights, rr__backend_info *out) {
    const rr__cu_weights *w = weights;

    *out = (rr__backend_info){.precision = w->precision,
                              .weight_bytes = w->bytes,
                              .instance_bytes = rr__cu_instance_bytes(w)};
    snprintf(out->device, sizeof out->device, "%s (device %d)", w->device_name,
             (int)w->opts.device);
}

extern const rr__backend                                 rr__backend_cuda;
__attribute__((visibility("default"))) const rr__backend rr__backend_cuda = {
    .abi = RR__BACKEND_ABI,
    .name = "cuda",
    .precisions = 1u << RR__FP32 | 1u << RR__BF16 | 1u << RR__FP16 | 1u << RR__INT8 | 1u << RR__FP8,
    .calibrated = 1u << RR__INT8 | 1u << RR__FP8,
    .probe = probe,
    .load = rr__cu_load,
    .open = rr__cu_open,
    .score = rr__cu_score,
    .start = rr__cu_start,
    .finish = rr__cu_finish,
    .observe = rr__cu_observe,
    .describe = describe,
    .close = rr__cu_close,
    .unload = rr__cu_unload,
};
