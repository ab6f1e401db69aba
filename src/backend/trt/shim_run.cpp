// shim_run.cpp - running: TensorRT's C++ interface behind run.h; calls only, no policy.
#include "backend/trt/shim.hpp"

#include <algorithm>
#include <memory>

extern "C" {
#include "backend/trt/run.h"
}

using namespace nvinfer1;
using namespace rr__trt_shim;

// Members go in reverse order: the engine before its run time, both before the log.
struct rr__trt_engine {
    Library                      lib;
    Logger                       log;
    std::unique_ptr<IRuntime>    runtime;
    std::unique_ptr<ICudaEngine> engine;
    bool                         types = false;
};

struct rr__trt_context {
    rr__trt_engine                    *of;
    std::unique_ptr<IExecutionContext> context;
};

namespace {

rr_status refuse(rr__trt_engine *e, rr_error *err, rr_status status, char const *what) {
    return fail(err, status,
                std::string("trt: ") + e->lib.name + ": " + what + ": " + e->log.take());
}

bool has(ICudaEngine const &e, char const *name, TensorIOMode mode, DataType type) {
    return e.getTensorIOMode(name) == mode && e.getTensorDataType(name) == type;
}

// The tensors of `rerank export`, and the profiles of `rerank build`.
rr_status inspect(rr__trt_engine *e, rr__trt_engine_info *info, rr_error *err) {
    ICudaEngine const       &c = *e->engine;
    OptProfileSelector const select[] = {OptProfileSelector::kMIN, OptProfileSelector::kOPT,
                                         OptProfileSelector::kMAX};

    e->types = has(c, "token_type_ids", TensorIOMode::kINPUT, DataType::kINT64);
    if (!has(c, "input_ids", TensorIOMode::kINPUT, DataType::kINT64) ||
        !has(c, "attention_mask", TensorIOMode::kINPUT, DataType::kINT64) ||
        !has(c, "logits", TensorIOMode::kOUTPUT, DataType::kFLOAT) ||
        c.getNbIOTensors() != (e->types ? 4 : 3))
        return refuse(e, err, RR_E_FORMAT, "this is no engine of rerank build (its tensors)");
    info->types = e->types;
    info->n_profile = c.getNbOptimizationProfiles();
    if (info->n_profile < 1 || info->n_profile > RR__TRT_PROFILES)
        return refuse(e, err, RR_E_FORMAT, "this is no engine of rerank build (its profiles)");
    for (int32_t p = 0; p < info->n_profile; p++) {
        int32_t *const to[] = {info->profile[p].min, info->profile[p].opt, info->profile[p].max};

        for (int k = 0; k < 3; k++) {
            Dims const d = c.getProfileShape("input_ids", p, select[k]);
            if (d.nbDims != 2)
                return refuse(e, err, RR_E_FORMAT, "input_ids is not [batch, length]");
            to[k][0] = static_cast<int32_t>(d.d[0]);
            to[k][1] = static_cast<int32_t>(d.d[1]);
        }
        info->scratch = std::max(info->scratch, c.getDeviceMemorySizeForProfileV2(p));
    }
    return RR_OK;
}

} // namespace

rr_status rr__trt_engine_open(const char *lib_dir, const void *plan, size_t bytes,
                              rr__trt_engine **out, rr__trt_engine_info *info, rr_error *err) {
    std::unique_ptr<rr__trt_engine> e(new rr__trt_engine);
    rr_status                       s = open_library(lib_dir, false, &e->lib, err);

    if (s)
        return s;
    auto create = find<void *(*)(void *, int32_t)>(e->lib.infer, "createInferRuntime_INTERNAL");
    if (create)
        e->runtime.reset(static_cast<IRuntime *>(create(&e->log, NV_TENSORRT_VERSION)));
    if (!e->runtime)
        return refuse(e.get(), err, RR_E_UNSUPPORTED, "no run time");
    e->engine.reset(e->runtime->deserializeCudaEngine(plan, bytes));
    if (!e->engine)
        return refuse(e.get(), err, RR_E_DEVICE, "the engine does not load");
    *info = rr__trt_engine_info{};
    if ((s = inspect(e.get(), info, err)))
        return s;
    *out = e.release();
    return RR_OK;
}

void rr__trt_engine_close(rr__trt_engine *engine) {
    delete engine;
}

rr_status rr__trt_context_open(rr__trt_engine *engine, int32_t profile, const rr__trt_memory *m,
                               void *stream, rr__trt_context **out, rr_error *err) {
    std::unique_ptr<rr__trt_context> c(new rr__trt_context);

    c->of = engine;
    c->context.reset(
        engine->engine->createExecutionContext(ExecutionContextAllocationStrategy::kUSER_MANAGED));
    if (!c->context)
        return refuse(engine, err, RR_E_DEVICE, "no context");
    IExecutionContext &x = *c->context;
    if (m->scratch_bytes)
        x.setDeviceMemoryV2(m->scratch, m->scratch_bytes);
    if (!x.setOptimizationProfileAsync(profile, static_cast<cudaStream_t>(stream)) ||
        !x.setTensorAddress("input_ids", m->ids) ||
        !x.setTensorAddress("attention_mask", m->mask) ||
        (engine->types && !x.setTensorAddress("token_type_ids", m->types)) ||
        !x.setTensorAddress("logits", m->logits))
        return refuse(engine, err, RR_E_DEVICE, "the context takes no profile or memory");
    *out = c.release();
    return RR_OK;
}

void rr__trt_context_close(rr__trt_context *context) {
    delete context;
}

rr_status rr__trt_context_run(rr__trt_context *context, int32_t rows, int32_t len, void *stream,
                              rr_error *err) {
    IExecutionContext &x = *context->context;
    Dims2 const        shape{rows, len};

    if (!x.setInputShape("input_ids", shape) || !x.setInputShape("attention_mask", shape) ||
        (context->of->types && !x.setInputShape("token_type_ids", shape)))
        return refuse(context->of, err, RR_E_DEVICE, "a shape is refused");
    return x.enqueueV3(static_cast<cudaStream_t>(stream))
               ? RR_OK
               : refuse(context->of, err, RR_E_DEVICE, "the engine does not run");
}
