/* open.c - find the module that wraps TensorRT. */
#include "backend/trt/trt.h"

#include "base/module.h"

#include <dlfcn.h>

rr_status rr__trt_open(const rr__trt_api **out, rr_error *err) {
    char               why[200];
    void              *h = rr__module_open("librerank-trt.so", why, sizeof why);
    const rr__trt_api *api;

    if (!h)
        return rr__fail(err, RR_E_UNSUPPORTED,
                        "the TensorRT module is not here (%.90s); build it: make tensorrt-headers "
                        "&& make trt, or "
                        "make trt TRT=/path",
                        why);
    api = dlsym(h, "rr__trt");
    if (!api || api->abi != RR__TRT_ABI)
        return rr__fail(err, RR_E_UNSUPPORTED, "librerank-trt.so is of another version");
    *out = api;
    return RR_OK;
}
