/* run.h - the calls of shim_run.cpp with which module.c and instance.c run an engine. */
#ifndef RR_BACKEND_TRT_RUN_H
#define RR_BACKEND_TRT_RUN_H

#include "backend/trt/manifest.h"

typedef struct rr__trt_engine  rr__trt_engine;  /* the weights, once a device       */
typedef struct rr__trt_context rr__trt_context; /* one profile of one instance      */

/* What the engine itself says. */
typedef struct rr__trt_engine_info {
    int32_t         n_profile;
    rr__trt_profile profile[RR__TRT_PROFILES];
    int64_t         scratch; /* device bytes a context needs: of the neediest profile */
    int32_t         types;   /* 1: it has token_type_ids                              */
} rr__trt_engine_info;

/* Device memory of a context. ids, mask and types are int64 [rows, len], types NULL
 * where the engine has none; logits is float [rows]. Contexts that never run at once may share all of it. */
typedef struct rr__trt_memory {
    void   *ids, *mask, *types, *logits, *scratch;
    int64_t scratch_bytes;
} rr__trt_memory;

/* Deserialize onto the device that is current. */
rr_status rr__trt_engine_open(const char *lib_dir, const void *plan, size_t bytes,
                              rr__trt_engine **out, rr__trt_engine_info *info, rr_error *err);
void      rr__trt_engine_close(rr__trt_engine *engine);

/* stream: CUstream. */
rr_status rr__trt_context_open(rr__trt_engine *engine, int32_t profile, const rr__trt_memory *m,
                               void *stream, rr__trt_context **out, rr_error *err);
void      rr__trt_context_close(rr__trt_context *context);

/* Enqueue one pass over [rows, len]; returns before it has run. */
rr_status rr__trt_context_run(rr__trt_context *context, int32_t rows, int32_t len, void *stream,
                              rr_error *err);

#endif
