/* instance.h - what module.c loads and instance.c runs on. */
#ifndef RR_BACKEND_TRT_INSTANCE_H
#define RR_BACKEND_TRT_INSTANCE_H

#include "backend/backend.h"
#include "backend/trt/driver.h"
#include "backend/trt/run.h"

#include <stdatomic.h>

typedef struct rr__trt_weights {
    const rr__model    *model;
    rr__backend_opts    opts;
    rr__trt_manifest    manifest;
    rr__trt_here        here;
    const rr__driver   *driver;
    int                 device;
    void               *context; /* CUDA's, the device's primary one */
    rr__trt_engine     *engine;
    rr__trt_engine_info info;
    atomic_int          instances;
} rr__trt_weights;

/* Device bytes that each instance adds. */
uint64_t  rr__trt_instance_bytes(const rr__trt_weights *w);
rr_status rr__trt_instance_open(void *weights, void **out, rr_error *err);
rr_status rr__trt_instance_score(void *instance, const rr__batch *b, float *logits, rr_error *err);
void      rr__trt_instance_close(void *instance);

#endif
