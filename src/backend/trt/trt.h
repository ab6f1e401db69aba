/* trt.h - building TensorRT engines, through a table in a module loaded at run time.
 *
 * TensorRT has no C API; shim.cpp is the project's only C++ and holds nothing but calls. It is the
 * module librerank-trt.so, built where TensorRT's headers are (make trt TRT=/path) and opened by
 * open.c, so that a program without the module, or without TensorRT, still starts and says why.
 * The library itself (TensorRT 10 or 11, or TensorRT-RTX 1) is opened by the shim. */
#ifndef RR_BACKEND_TRT_TRT_H
#define RR_BACKEND_TRT_TRT_H

#include "base/error.h"

#define RR__TRT_ABI 1

/* One optimization profile: batch and sequence length. */
typedef struct rr__trt_profile {
    int32_t min[2], opt[2], max[2];
} rr__trt_profile;

typedef struct rr__trt_build_opts {
    const char *lib_dir; /* where libnvinfer or libtensorrt_rtx is; NULL = loader's path */
    const rr__trt_profile *profile;
    int32_t                n_profile;
    uint64_t               workspace;    /* bytes; 0 = TensorRT's own choice                  */
    const char            *timing_cache; /* read if there, written back; NULL = none          */
    /* Phases as TensorRT reports them, from its threads; may be NULL. */
    void (*progress)(void *user, const char *phase, int32_t step, int32_t n_step);
    /* Warnings and errors; may be NULL. */
    void (*log)(void *user, int is_error, const char *text);
    void *user;
} rr__trt_build_opts;

/* Filled by the library that built or would run an engine. */
typedef struct rr__trt_about {
    char library[64]; /* "TensorRT-RTX 1.7.1" */
    int  headers;     /* major * 10000 + minor * 100 + patch the shim was compiled with */
} rr__trt_about;

typedef struct rr__trt_api {
    int abi; /* RR__TRT_ABI */
    /* Open the library and say which it is. */
    rr_status (*probe)(const char *lib_dir, rr__trt_about *about, rr_error *err);
    /* Parse onnx_path and write the serialized engine to plan_path. Minutes, not milliseconds. */
    rr_status (*build)(const rr__trt_build_opts *o, const char *onnx_path, const char *plan_path,
                       rr_error *err);
} rr__trt_api;

/* The module's table, or RR_E_UNSUPPORTED with what to do. */
rr_status rr__trt_open(const rr__trt_api **out, rr_error *err);

#endif
