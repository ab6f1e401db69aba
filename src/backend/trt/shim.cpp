// shim.cpp - building: TensorRT's C++ interface behind the table of trt.h; calls only, no policy.
//
// Compiled against the headers of TensorRT 10 or 11, or of TensorRT-RTX 1. The libraries are opened
// by name at run time: TensorRT of the headers' major version, or TensorRT-RTX 1, whose interfaces
// are the same.
#include "backend/trt/shim.hpp"

#include <NvOnnxParser.h>

#include <cstdlib>
#include <cstring>
#include <memory>

using namespace nvinfer1;
using namespace rr__trt_shim;

namespace {

class Progress : public IProgressMonitor {
  public:
    explicit Progress(rr__trt_build_opts const *opts) : o(opts) {
    }
    void phaseStart(char const *phase, char const *parent, int32_t n) noexcept override {
        o->progress(o->user, phase, parent ? parent : "", 0, n);
    }
    bool stepComplete(char const *phase, int32_t step) noexcept override {
        o->progress(o->user, phase, nullptr, step + 1, INT32_MAX);
        return true;
    }
    void phaseFinish(char const *phase) noexcept override {
        o->progress(o->user, phase, nullptr, INT32_MAX, INT32_MAX);
    }

  private:
    rr__trt_build_opts const *o;
};

} // namespace

rr_status rr__trt_shim::open_library(char const *dir, bool with_parser, Library *lib,
                                     rr_error *err) {
    std::string const major = std::to_string(NV_TENSORRT_MAJOR);
    struct {
        char const *title;
        std::string infer, parser;
    } const flavour[] = {
#ifndef TRT_MAJOR_RTX
        {"TensorRT", "libnvinfer.so." + major, "libnvonnxparser.so." + major},
#endif
        {"TensorRT-RTX", "libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"},
    };

    if (!dir)
        dir = std::getenv("RERANK_TRT_LIB");
    std::string const at = dir && *dir ? dir + std::string("/") : "";
    for (auto const &f : flavour) {
        lib->infer = dlopen((at + f.infer).c_str(), RTLD_NOW | RTLD_GLOBAL);
        if (!lib->infer)
            continue;
        lib->parser =
            with_parser ? dlopen((at + f.parser).c_str(), RTLD_NOW | RTLD_GLOBAL) : nullptr;
        if (with_parser && !lib->parser)
            return fail(err, RR_E_UNSUPPORTED, "found " + f.infer + " but not " + f.parser);
        auto part = [&](char const *symbol) {
            auto fn = find<int32_t (*)()>(lib->infer, symbol);
            return fn ? fn() : 0;
        };
        std::snprintf(lib->name, sizeof lib->name, "%s %d.%d.%d", f.title,
                      part("getInferLibMajorVersion"), part("getInferLibMinorVersion"),
                      part("getInferLibPatchVersion"));
        return RR_OK;
    }
    return fail(err, RR_E_UNSUPPORTED,
                "no " + flavour[0].infer + " and no libtensorrt_rtx.so.1 " +
                    (at.empty() ? "on the loader's path" : "in " + at) +
                    "; pip install tensorrt-rtx-cu13-libs gives one (--trt-lib DIR)");
}

namespace {

rr_status add_profiles(IBuilder *builder, INetworkDefinition *net, IBuilderConfig *config,
                       rr__trt_build_opts const *o, rr_error *err) {
    for (int32_t p = 0; p < o->n_profile; p++) {
        IOptimizationProfile *profile = builder->createOptimizationProfile();

        for (int32_t i = 0; i < net->getNbInputs(); i++) {
            auto set = [&](OptProfileSelector select, int32_t const *d) {
                profile->setDimensions(net->getInput(i)->getName(), select, Dims2{d[0], d[1]});
            };
            set(OptProfileSelector::kMIN, o->profile[p].min);
            set(OptProfileSelector::kOPT, o->profile[p].opt);
            set(OptProfileSelector::kMAX, o->profile[p].max);
        }
        if (!profile->isValid() || config->addOptimizationProfile(profile) < 0)
            return fail(err, RR_E_ARG,
                        "profile " + std::to_string(p) + " is not min <= opt <= max");
    }
    return RR_OK;
}

rr_status parse(Library const &lib, INetworkDefinition *net, Logger *logger, char const *path,
                std::unique_ptr<nvonnxparser::IParser> *keep, rr_error *err) {
    auto create = find<void *(*)(void *, void *, int)>(lib.parser, "createNvOnnxParser_INTERNAL");

    if (create)
        keep->reset(
            static_cast<nvonnxparser::IParser *>(create(net, logger, NV_ONNX_PARSER_VERSION)));
    if (!*keep)
        return fail(err, RR_E_UNSUPPORTED, std::string(lib.name) + " has no ONNX parser for us");
    if ((*keep)->parseFromFile(path, static_cast<int>(ILogger::Severity::kWARNING)))
        return RR_OK;
    return fail(err, RR_E_FORMAT,
                std::string(path) + ": " + lib.name + " says " +
                    ((*keep)->getNbErrors() ? (*keep)->getError(0)->desc() : logger->take()));
}

// The headers of TensorRT-RTX's own SDK have setComputeCapability, TensorRT's have not.
template <typename Config>
auto set_target(Config *config, int32_t sm) -> decltype(config->setNbComputeCapabilities(1)) {
    using Capability = decltype(config->getComputeCapability(0));

    return !sm || (config->setNbComputeCapabilities(1) &&
                   config->setComputeCapability(static_cast<Capability>(sm), 0));
}
bool set_target(void *, int32_t sm) {
    return !sm;
}
template <typename C> constexpr auto has_target(int) -> decltype(&C::setNbComputeCapabilities, 1) {
    return 1;
}
template <typename C> constexpr int has_target(long) {
    return 0;
}

rr_status build(rr__trt_build_opts const *o, char const *onnx_path, rr_error *err) {
    Library   lib;
    Logger    logger(o->log, o->user);
    Progress  progress(o);
    rr_status s = open_library(o->lib_dir, true, &lib, err);

    if (s)
        return s;
    auto create = find<void *(*)(void *, int32_t)>(lib.infer, "createInferBuilder_INTERNAL");
    std::unique_ptr<IBuilder> builder(
        create ? static_cast<IBuilder *>(create(&logger, NV_TENSORRT_VERSION)) : nullptr);
    if (!builder)
        return fail(err, RR_E_UNSUPPORTED,
                    std::string(lib.name) + ": no builder: " + logger.take());
    // Strongly typed: precisions are those of the ONNX file, Q/DQ pairs included.
    std::unique_ptr<INetworkDefinition>    net(builder->createNetworkV2(
           1u << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED)));
    std::unique_ptr<IBuilderConfig>        config(builder->createBuilderConfig());
    std::unique_ptr<nvonnxparser::IParser> parser;
    if (!net || !config)
        return fail(err, RR_E_NOMEM, std::string(lib.name) + ": " + logger.take());
    if ((s = parse(lib, net.get(), &logger, onnx_path, &parser, err)) ||
        (s = add_profiles(builder.get(), net.get(), config.get(), o, err)))
        return s;
    if (!set_target(config.get(), o->target))
        return fail(err, RR_E_UNSUPPORTED,
                    lib.name + (" cannot build for sm_" + std::to_string(o->target)));
    if (o->workspace)
        config->setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, o->workspace);
    if (o->progress)
        config->setProgressMonitor(&progress);
    std::unique_ptr<ITimingCache> cache;
    if (o->keep_cache) {
        cache.reset(config->createTimingCache(o->cache, o->cache_bytes));
        if (cache)
            config->setTimingCache(*cache, false);
    }
    std::unique_ptr<IHostMemory> plan(builder->buildSerializedNetwork(*net, *config));
    if (!plan)
        return fail(err, RR_E_DEVICE, std::string(lib.name) + ": " + logger.take());
    if (cache) {
        std::unique_ptr<IHostMemory> bytes(cache->serialize());
        if (bytes && (s = o->keep_cache(o->user, bytes->data(), bytes->size(), err)))
            return s;
    }
    return o->keep_plan(o->user, plan->data(), plan->size(), err);
}

rr_status probe(char const *lib_dir, rr__trt_about *about, rr_error *err) {
    Library   lib;
    rr_status s = open_library(lib_dir, false, &lib, err);

    if (!s) {
        std::memcpy(about->library, lib.name, sizeof lib.name);
        about->targets = has_target<IBuilderConfig>(0);
        about->headers = NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;
    }
    return s;
}

} // namespace

extern "C" __attribute__((visibility("default"))) const rr__trt_api rr__trt;
const rr__trt_api rr__trt = {RR__TRT_ABI, probe, build};
