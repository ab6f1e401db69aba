/* module.c - the backend table of librerank-trt.so: an engine file, checked against what is here and
 * placed on a device once. */
#include "backend/trt/instance.h"

#include "backend/trt/group.h"
#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const rr__trt_api rr__trt; /* shim.cpp */

/* A library and a card; whether the library takes the card is known when it loads an engine. */
static rr_status probe(rr_error *err) {
    rr__trt_about about;
    rr__trt_here  here;
    rr_status     s = rr__trt.probe(NULL, &about, err);

    return s != RR_OK ? s : rr__driver_look(0, &here, err);
}

static void unload(void *weights) {
    rr__trt_weights *w = weights;

    if (!w)
        return;
    if (w->context)
        w->driver->set_current(w->context);
    rr__trt_engine_close(w->engine);
    if (w->context)
        w->driver->primary_release(w->device);
    free(w);
}

/* Refuse an engine that is not of this model, library or card, or not what was asked for. */
static rr_status check(rr__trt_weights *w, const rr__file *plan, rr_error *err) {
    const char *path = w->opts.plan_path,
               *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    const char   *wanted = rr__precision_name(w->opts.precision);
    rr__trt_about about;
    rr_status     s = rr__trt.probe(NULL, &about, err);

    if (s == RR_OK)
        s = rr__driver_look(w->opts.device, &w->here, err);
    if (s != RR_OK)
        return s;
    memcpy(w->here.library, about.library, sizeof about.library);
    rr__model_hash(w->model, w->here.model_hash);
    rr__bytes_hash(plan->ptr, plan->size, w->here.plan_hash);
    s = rr__trt_fresh(&w->manifest, &w->here, name, err);
    if (s == RR_OK && w->opts.precision != RR__AUTO && strcmp(wanted, w->manifest.precision) != 0)
        s = rr__fail(
            err, RR_E_ARG,
            "%.100s was built at %s, --precision is %s; leave it out, or make another with "
            "rerank build --precision %s",
            name, w->manifest.precision, wanted, wanted);
    return s;
}

static rr_status place(rr__trt_weights *w, const rr__file *plan, rr_error *err) {
    size_t    free_bytes = 0, total = 0;
    uint64_t  need, room;
    rr_status s = rr__driver_open(&w->driver, err);

    if (s == RR_OK)
        s = rr__driver_check(w->driver->device_get(&w->device, w->opts.device), "cuDeviceGet", err);
    if (s == RR_OK)
        s = rr__driver_check(w->driver->primary_retain(&w->context, w->device),
                             "cuDevicePrimaryCtxRetain", err);
    if (s == RR_OK)
        s = rr__driver_check(w->driver->set_current(w->context), "cuCtxSetCurrent", err);
    if (s == RR_OK)
        s = rr__driver_check(w->driver->memory_info(&free_bytes, &total), "cuMemGetInfo", err);
    if (s != RR_OK)
        return s;
    room = w->opts.memory_limit ? w->opts.memory_limit : free_bytes;
    if (plan->size > room)
        return rr__fail(
            err, RR_E_NOMEM, "trt: the engine has %.0f MB, %s %.0f MB", (double)plan->size / 1e6,
            w->opts.memory_limit ? "allowed are" : "free on the device are", (double)room / 1e6);
    s = rr__trt_engine_open(NULL, plan->ptr, plan->size, &w->engine, &w->info, err);
    if (s != RR_OK)
        return s;
    if (w->model->n_type > 1 && !w->info.types)
        return rr__fail(err, RR_E_FORMAT,
                        "trt: the engine has no token_type_ids, the model needs them");
    need = plan->size + rr__trt_instance_bytes(w);
    if (w->opts.memory_limit && need > w->opts.memory_limit)
        return rr__fail(err, RR_E_NOMEM,
                        "trt: weights and one instance take %.0f MB, allowed are %.0f MB",
                        (double)need / 1e6, (double)w->opts.memory_limit / 1e6);
    return RR_OK;
}

static rr_status load(const rr__model *m, const rr__backend_opts *o, void **weights,
                      rr_error *err) {
    rr__file         plan = {NULL, 0};
    rr__trt_weights *w;
    rr_status        s;

    if (!o->plan_path)
        return rr__fail(err, RR_E_ARG,
                        "trt: which engine? --engine FILE (opts.plan_path), made by rerank build");
    w = calloc(1, sizeof *w);
    if (!w)
        return rr__fail(err, RR_E_NOMEM, "trt: out of memory");
    w->model = m;
    w->opts = *o;
    w->opts.calibration = NULL;
    s = rr__file_map(o->plan_path, &plan, err);
    if (s == RR_OK)
        s = rr__trt_manifest_read(o->plan_path, &w->manifest, err);
    if (s == RR_OK)
        s = check(w, &plan, err);
    if (s == RR_OK)
        s = place(w, &plan, err);
    rr__file_unmap(&plan);
    if (s != RR_OK) {
        unload(w);
        return s;
    }
    *weights = w;
    return RR_OK;
}

static void describe(const void *weights, rr__backend_info *out) {
    const rr__trt_weights *w = weights;

    *out = (rr__backend_info){.precision = rr__precision_parse(w->manifest.precision),
                              .weight_bytes = w->manifest.bytes,
                              .instance_bytes = rr__trt_instance_bytes(w),
                              .max_length = rr__trt_longest(w->info.profile, w->info.n_profile)};
    snprintf(out->device, sizeof out->device, "%.40s (device %d), %.32s", w->here.gpu,
             (int)w->opts.device, w->here.library);
}

extern const rr__backend                                 rr__backend_trt;
__attribute__((visibility("default"))) const rr__backend rr__backend_trt = {
    .abi = RR__BACKEND_ABI,
    .name = "trt",
    .padded = 1,
    .drift = 2e-2f, /* TensorRT-RTX goes on compiling better kernels, and those round differently */
    .precisions = 1u << RR__FP32 | 1u << RR__BF16 | 1u << RR__FP16 | 1u << RR__INT8 | 1u << RR__FP8,
    .probe = probe,
    .load = load,
    .open = rr__trt_instance_open,
    .score = rr__trt_instance_score,
    .describe = describe,
    .close = rr__trt_instance_close,
    .unload = unload,
};
