// shim.hpp - what both halves of the C++ share: failing, TensorRT's log, its libraries.
#ifndef RR_BACKEND_TRT_SHIM_HPP
#define RR_BACKEND_TRT_SHIM_HPP

#include <NvInfer.h>

#include <cstdio>
#include <dlfcn.h>
#include <mutex>
#include <string>
#include <utility>

extern "C" {
#include "backend/trt/trt.h"
}

namespace rr__trt_shim {

inline rr_status fail(rr_error *err, rr_status status, std::string const &text) {
    if (err) {
        err->status = status;
        std::snprintf(err->text, sizeof err->text, "%s", text.c_str());
    }
    return status;
}

// Keeps the first error since it was last asked; TensorRT calls it from its own threads too.
class Logger : public nvinfer1::ILogger {
  public:
    explicit Logger(void (*fn)(void *, int, const char *) = nullptr, void *to = nullptr)
        : log_fn(fn), user(to) {
    }
    void log(Severity severity, nvinfer1::AsciiChar const *text) noexcept override {
        std::lock_guard<std::mutex> hold(lock);
        if (severity <= Severity::kERROR && first_error.empty())
            first_error = text;
        if (log_fn && severity <= Severity::kWARNING)
            log_fn(user, severity <= Severity::kERROR, text);
    }
    std::string take() {
        std::lock_guard<std::mutex> hold(lock);
        return first_error.empty() ? "no reason given" : std::exchange(first_error, "");
    }

  private:
    void (*log_fn)(void *, int, const char *);
    void       *user;
    std::mutex  lock;
    std::string first_error;
};

// The shared objects of one TensorRT flavour; stays open for the life of the process, since
// TensorRT does not support being unloaded.
struct Library {
    void *infer = nullptr, *parser = nullptr;
    char  name[64] = "";
};
template <typename F> F find(void *from, char const *symbol) {
    return reinterpret_cast<F>(dlsym(from, symbol));
}

// dir: see rr__trt_build_opts. Only building needs the parser.
rr_status open_library(char const *dir, bool with_parser, Library *lib, rr_error *err);

} // namespace rr__trt_shim
#endif
