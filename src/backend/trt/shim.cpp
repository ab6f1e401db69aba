// shim.cpp - TensorRT's C++ interface behind the table of trt.h; calls only, no policy.
//
// Compiled against the headers of TensorRT 10 or 11. The libraries are opened by name at run time:
// TensorRT of the headers' major version, or TensorRT-RTX 1, whose interfaces are the same.
#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <memory>
#include <string>
#include <vector>

extern "C" {
#include "backend/trt/trt.h"
}

using namespace nvinfer1;

namespace {

rr_status fail(rr_error *err, rr_status status, std::string const &text) {
    if (err) {
        err->status = status;
        std::snprintf(err->text, sizeof err->text, "%s", text.c_str());
    }
    return status;
}

class Logger : public ILogger {
  public:
    Logger(void (*fn)(void *, int, const char *), void *to) : log_fn(fn), user(to) {}
    void log(Severity severity, AsciiChar const *text) noexcept override {
        if (severity <= Severity::kERROR && first_error.empty())
            first_error = text;
        if (log_fn && severity <= Severity::kWARNING)
            log_fn(user, severity <= Severity::kERROR, text);
    }
    std::string first_error;

  private:
    void (*log_fn)(void *, int, const char *);
    void *user;
};

class Progress : public IProgressMonitor {
  public:
    explicit Progress(rr__trt_build_opts const *opts) : o(opts) {}
    void phaseStart(char const *phase, char const *, int32_t n) noexcept override {
        steps = n;
        o->progress(o->user, phase, 0, n);
    }
    bool stepComplete(char const *phase, int32_t step) noexcept override {
        o->progress(o->user, phase, step + 1, steps > step ? steps : step + 1);
        return true;
    }
    void phaseFinish(char const *) noexcept override {}

  private:
    rr__trt_build_opts const *o;
    int32_t                   steps = 0;
};

// Both shared objects of one TensorRT flavour; stays open for the life of the process, since
// TensorRT does not support being unloaded.
struct Library {
    void *infer = nullptr, *parser = nullptr;
    char  name[64] = "";
    template <typename F> F find(void *from, char const *symbol) const {
        return reinterpret_cast<F>(dlsym(from, symbol));
    }
};

void *open_so(char const *dir, std::string const &file) {
    std::string path = dir ? std::string(dir) + "/" + file : file;

    return dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
}

rr_status open_library(char const *dir, Library *lib, rr_error *err) {
    std::string const major = std::to_string(NV_TENSORRT_MAJOR);
    struct {
        char const *title;
        std::string infer, parser;
    } const flavour[] = {
        {"TensorRT", "libnvinfer.so." + major, "libnvonnxparser.so." + major},
        {"TensorRT-RTX", "libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"},
    };

    for (auto const &f : flavour) {
        lib->infer = open_so(dir, f.infer);
        if (!lib->infer)
            continue;
        lib->parser = open_so(dir, f.parser);
        if (!lib->parser)
            return fail(err, RR_E_UNSUPPORTED, "found " + f.infer + " but not " + f.parser);
        auto part = [&](char const *symbol) {
            auto fn = lib->find<int32_t (*)()>(lib->infer, symbol);
            return fn ? fn() : 0;
        };
        std::snprintf(lib->name, sizeof lib->name, "%s %d.%d.%d", f.title,
                      part("getInferLibMajorVersion"), part("getInferLibMinorVersion"),
                      part("getInferLibPatchVersion"));
        return RR_OK;
    }
    return fail(err, RR_E_UNSUPPORTED,
                "no libnvinfer.so." + major + " and no libtensorrt_rtx.so.1 " +
                    (dir ? std::string("in ") + dir : std::string("on the loader's path")) +
                    "; pip install tensorrt-rtx-cu13-libs gives one (--trt-lib DIR)");
}

Dims2 shape(int32_t const (&d)[2]) {
    return Dims2{d[0], d[1]};
}

rr_status add_profiles(IBuilder *builder, INetworkDefinition *net, IBuilderConfig *config,
                       rr__trt_build_opts const *o, rr_error *err) {
    for (int32_t p = 0; p < o->n_profile; p++) {
        IOptimizationProfile *profile = builder->createOptimizationProfile();

        for (int32_t i = 0; i < net->getNbInputs(); i++) {
            char const *name = net->getInput(i)->getName();

            profile->setDimensions(name, OptProfileSelector::kMIN, shape(o->profile[p].min));
            profile->setDimensions(name, OptProfileSelector::kOPT, shape(o->profile[p].opt));
            profile->setDimensions(name, OptProfileSelector::kMAX, shape(o->profile[p].max));
        }
        if (!profile->isValid() || config->addOptimizationProfile(profile) < 0)
            return fail(err, RR_E_ARG, "profile " + std::to_string(p) + " is not min <= opt <= max");
    }
    return RR_OK;
}

std::vector<char> read_all(char const *path) {
    std::vector<char> bytes;
    std::FILE        *f = path ? std::fopen(path, "rb") : nullptr;
    char              buffer[1 << 16];

    while (f) {
        size_t n = std::fread(buffer, 1, sizeof buffer, f);
        if (!n)
            break;
        bytes.insert(bytes.end(), buffer, buffer + n);
    }
    if (f)
        std::fclose(f);
    return bytes;
}

rr_status write_all(char const *path, IHostMemory const &memory, rr_error *err) {
    std::string part = std::string(path) + ".part";
    std::FILE  *f = std::fopen(part.c_str(), "wb");
    bool        ok = f && std::fwrite(memory.data(), 1, memory.size(), f) == memory.size();

    ok = f && std::fclose(f) == 0 && ok && std::rename(part.c_str(), path) == 0;
    if (!ok)
        std::remove(part.c_str());
    return ok ? RR_OK : fail(err, RR_E_IO, std::string(path) + ": cannot be written");
}

rr_status parse(Library const &lib, INetworkDefinition *net, Logger *logger, char const *path,
                std::unique_ptr<nvonnxparser::IParser> *keep, rr_error *err) {
    auto create = lib.find<void *(*)(void *, void *, int)>(lib.parser, "createNvOnnxParser_INTERNAL");

    if (!create)
        return fail(err, RR_E_UNSUPPORTED, std::string(lib.name) + " has no ONNX parser");
    keep->reset(static_cast<nvonnxparser::IParser *>(
        create(net, logger, NV_ONNX_PARSER_VERSION)));
    if (!*keep)
        return fail(err, RR_E_UNSUPPORTED, std::string(lib.name) + " refused to make a parser");
    if ((*keep)->parseFromFile(path, static_cast<int>(ILogger::Severity::kWARNING)))
        return RR_OK;
    std::string why = (*keep)->getNbErrors() ? (*keep)->getError(0)->desc() : logger->first_error;
    return fail(err, RR_E_FORMAT, std::string(path) + ": " + lib.name + " says " + why);
}

rr_status build(rr__trt_build_opts const *o, char const *onnx_path, char const *plan_path,
                rr_error *err) {
    Library   lib;
    Logger    logger(o->log, o->user);
    Progress  progress(o);
    rr_status s = open_library(o->lib_dir, &lib, err);

    if (s)
        return s;
    auto create = lib.find<void *(*)(void *, int32_t)>(lib.infer, "createInferBuilder_INTERNAL");
    std::unique_ptr<IBuilder> builder(
        create ? static_cast<IBuilder *>(create(&logger, NV_TENSORRT_VERSION)) : nullptr);
    if (!builder)
        return fail(err, RR_E_UNSUPPORTED, std::string(lib.name) + ": no builder: " + logger.first_error);
    // Strongly typed: precisions are those of the ONNX file, Q/DQ pairs included.
    std::unique_ptr<INetworkDefinition>    net(builder->createNetworkV2(1u << 0));
    std::unique_ptr<IBuilderConfig>        config(builder->createBuilderConfig());
    std::unique_ptr<nvonnxparser::IParser> parser;
    if (!net || !config)
        return fail(err, RR_E_NOMEM, std::string(lib.name) + ": " + logger.first_error);
    if ((s = parse(lib, net.get(), &logger, onnx_path, &parser, err)) ||
        (s = add_profiles(builder.get(), net.get(), config.get(), o, err)))
        return s;
    if (o->workspace)
        config->setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, o->workspace);
    if (o->progress)
        config->setProgressMonitor(&progress);
    std::vector<char>             cached = read_all(o->timing_cache);
    std::unique_ptr<ITimingCache> cache;
    if (o->timing_cache) {
        cache.reset(config->createTimingCache(cached.data(), cached.size()));
        if (cache)
            config->setTimingCache(*cache, false);
    }
    std::unique_ptr<IHostMemory> plan(builder->buildSerializedNetwork(*net, *config));
    if (!plan)
        return fail(err, RR_E_DEVICE, std::string(lib.name) + ": " + logger.first_error);
    if (cache) {
        std::unique_ptr<IHostMemory> bytes(cache->serialize());
        if (bytes && (s = write_all(o->timing_cache, *bytes, err)))
            return s;
    }
    return write_all(plan_path, *plan, err);
}

rr_status probe(char const *lib_dir, rr__trt_about *about, rr_error *err) {
    Library   lib;
    rr_status s = open_library(lib_dir, &lib, err);

    if (!s) {
        std::memcpy(about->library, lib.name, sizeof lib.name);
        about->headers = NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;
    }
    return s;
}

} // namespace

extern "C" __attribute__((visibility("default"))) const rr__trt_api rr__trt;
const rr__trt_api rr__trt = {RR__TRT_ABI, probe, build};
