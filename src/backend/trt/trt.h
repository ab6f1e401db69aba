/* trt.h - building and running TensorRT engines, through tables in a module loaded at run time.
 *
 * TensorRT has no C API; shim.cpp and shim_run.cpp are the project's only C++ and hold nothing but
 * calls. With module.c and instance.c, the backend, they are the module librerank-trt.so, built
 * where TensorRT's headers are (make trt TRT=/path) and opened by open.c, so that a program without
 * the module, or without TensorRT, still starts and says why. The library itself (TensorRT 10 or 11,
 * or TensorRT-RTX 1) is opened by the shim, CUDA's driver by driver.c. What needs neither is linked
 * into the library: manifest.c (is the engine still right?) and group.c (which sequences share a
 * padded batch?). */
#ifndef RR_BACKEND_TRT_TRT_H
#define RR_BACKEND_TRT_TRT_H

#include "base/error.h"

#define RR__TRT_ABI 2

/* One optimization profile: batch and sequence length. */
typedef struct rr__trt_profile {
    int32_t min[2], opt[2], max[2];
} rr__trt_profile;

typedef struct rr__trt_build_opts {
    const char *lib_dir; /* where libnvinfer or libtensorrt_rtx is; NULL = $RERANK_TRT_LIB, or the
                            loader's path */
    const rr__trt_profile *profile;
    int32_t                n_profile;
    int32_t                target;    /* compute capability to build for, 86; 0 = the default  */
    uint64_t               workspace; /* bytes; 0 = TensorRT's own choice                      */
    const void            *cache;     /* kernel timings of an earlier build; may be empty     */
    size_t                 cache_bytes;
    /* What came out, to be written: the timings (NULL: no cache is used), then the engine. */
    rr_status (*keep_cache)(void *user, const void *bytes, size_t n, rr_error *err);
    rr_status (*keep_plan)(void *user, const void *bytes, size_t n, rr_error *err);
    /* A phase within parent ("" = outermost) begins (step 0), has done step of n_step, or has ended
     * (step = n_step); parent is NULL but at the beginning. From TensorRT's threads; may be NULL. */
    void (*progress)(void *user, const char *phase, const char *parent, int32_t step,
                     int32_t n_step);
    /* Warnings and errors; may be NULL. */
    void (*log)(void *user, int is_error, const char *text);
    void *user;
} rr__trt_build_opts;

/* Filled by the library that built or would run an engine. */
typedef struct rr__trt_about {
    char library[64]; /* "TensorRT-RTX 1.7.1" */
    int  headers;     /* major * 10000 + minor * 100 + patch the shim was compiled with */
    int  targets;     /* 1: those headers know how to build for another card            */
} rr__trt_about;

/* What an engine would run with here. */
typedef struct rr__trt_here {
    char    library[64];
    char    model_hash[17], plan_hash[17]; /* of the weights, and of the engine file itself  */
    char    gpu[96], driver[32];           /* "" = none                                       */
    int32_t sm, cuda;                      /* 90, 13000: what the driver knows; 0 = none      */
} rr__trt_here;

typedef struct rr__trt_api {
    int abi; /* RR__TRT_ABI */
    /* Open the library and say which it is. */
    rr_status (*probe)(const char *lib_dir, rr__trt_about *about, rr_error *err);
    /* Parse onnx_path and hand the serialized engine to keep_plan. Minutes, not milliseconds. */
    rr_status (*build)(const rr__trt_build_opts *o, const char *onnx_path, rr_error *err);
} rr__trt_api;

/* The module's table, or RR_E_UNSUPPORTED with what to do. */
rr_status rr__trt_open(const rr__trt_api **out, rr_error *err);

#endif
