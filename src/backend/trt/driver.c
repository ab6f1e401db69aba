/* driver.c - see driver.h. */
#include "backend/trt/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum {
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    CAPABILITY_MAJOR = 75, /* CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR */
    CAPABILITY_MINOR = 76
};

static const struct {
    const char *symbol;
    size_t      offset;
} table[] = {
    {"cuInit", offsetof(rr__driver, init)},
    {"cuDriverGetVersion", offsetof(rr__driver, version)},
    {"cuGetErrorString", offsetof(rr__driver, error_text)},
    {"cuDeviceGetCount", offsetof(rr__driver, device_count)},
    {"cuDeviceGet", offsetof(rr__driver, device_get)},
    {"cuDeviceGetName", offsetof(rr__driver, device_name)},
    {"cuDeviceGetAttribute", offsetof(rr__driver, device_attribute)},
    {"cuDevicePrimaryCtxRetain", offsetof(rr__driver, primary_retain)},
    {"cuDevicePrimaryCtxRelease_v2", offsetof(rr__driver, primary_release)},
    {"cuCtxSetCurrent", offsetof(rr__driver, set_current)},
    {"cuMemGetInfo_v2", offsetof(rr__driver, memory_info)},
    {"cuMemAlloc_v2", offsetof(rr__driver, alloc)},
    {"cuMemFree_v2", offsetof(rr__driver, release)},
    {"cuMemHostAlloc", offsetof(rr__driver, host_alloc)},
    {"cuMemFreeHost", offsetof(rr__driver, host_free)},
    {"cuMemcpyHtoDAsync_v2", offsetof(rr__driver, to_device)},
    {"cuMemcpyDtoHAsync_v2", offsetof(rr__driver, to_host)},
    {"cuStreamCreate", offsetof(rr__driver, stream_create)},
    {"cuStreamDestroy_v2", offsetof(rr__driver, stream_destroy)},
    {"cuStreamSynchronize", offsetof(rr__driver, stream_wait)},
    {"cuEventCreate", offsetof(rr__driver, event_create)},
    {"cuEventDestroy_v2", offsetof(rr__driver, event_destroy)},
    {"cuEventRecord", offsetof(rr__driver, event_record)},
    {"cuEventSynchronize", offsetof(rr__driver, event_wait)},
};

static rr__driver     driver;
static rr_error       failure = {RR_OK, ""};
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const char *text_of(int status) {
    const char *text = NULL;

    if (driver.error_text)
        driver.error_text(status, &text);
    return text ? text : "unknown error";
}

static void open_driver(void) {
    void *so = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    int   n = 0, status;

    if (!so) {
        rr__fail(&failure, RR_E_UNSUPPORTED, "trt: no NVIDIA driver is installed (libcuda.so.1)");
        return;
    }
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        void *fn = dlsym(so, table[i].symbol);

        if (!fn) {
            rr__fail(&failure, RR_E_UNSUPPORTED, "trt: the NVIDIA driver lacks %s; update it",
                     table[i].symbol);
            return;
        }
        memcpy((char *)&driver + table[i].offset, &fn, sizeof fn);
    }
    status = driver.init(0);
    if (status == 0)
        status = driver.device_count(&n);
    if (status == NO_DEVICE || (status == 0 && n == 0))
        rr__fail(&failure, RR_E_UNSUPPORTED, "trt: the driver sees no NVIDIA GPU");
    else if (status)
        rr__fail(&failure, RR_E_UNSUPPORTED, "trt: the NVIDIA driver says: %.160s",
                 text_of(status));
}

rr_status rr__driver_open(const rr__driver **out, rr_error *err) {
    pthread_once(&once, open_driver);
    if (failure.status != RR_OK)
        return rr__fail(err, failure.status, "%s", failure.text);
    *out = &driver;
    return RR_OK;
}

rr_status rr__driver_check(int status, const char *what, rr_error *err) {
    return status == 0 ? RR_OK
                       : rr__fail(err, status == OUT_OF_MEMORY ? RR_E_NOMEM : RR_E_DEVICE,
                                  "trt: %s: %.160s", what, text_of(status));
}

/* The driver's own version, "580.159.04", which only NVML tells. */
static void release(char *out, size_t size) {
    void *so = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    int (*init)(void) = NULL, (*shut)(void) = NULL, (*get)(char *, unsigned) = NULL;
    void *fn[3];

    *out = '\0';
    if (!so)
        return;
    fn[0] = dlsym(so, "nvmlInit_v2");
    fn[1] = dlsym(so, "nvmlShutdown");
    fn[2] = dlsym(so, "nvmlSystemGetDriverVersion");
    memcpy(&init, &fn[0], sizeof init);
    memcpy(&shut, &fn[1], sizeof shut);
    memcpy(&get, &fn[2], sizeof get);
    if (init && shut && get && init() == 0) {
        if (get(out, (unsigned)size) != 0)
            *out = '\0';
        shut();
    }
    dlclose(so);
}

rr_status rr__driver_look(int32_t ordinal, rr__trt_here *h, rr_error *err) {
    const rr__driver *d;
    int               device = 0, n = 0, major = 0, minor = 0, version = 0;
    rr_status         s = rr__driver_open(&d, err);

    if (s != RR_OK)
        return s;
    s = rr__driver_check(d->device_count(&n), "cuDeviceGetCount", err);
    if (s == RR_OK && (ordinal < 0 || ordinal >= n))
        s = rr__fail(err, RR_E_ARG, "trt: there is no device %d; this machine has %d", (int)ordinal,
                     n);
    if (s == RR_OK)
        s = rr__driver_check(d->device_get(&device, ordinal), "cuDeviceGet", err);
    if (s == RR_OK)
        s = rr__driver_check(d->device_name(h->gpu, (int)sizeof h->gpu, device), "cuDeviceGetName",
                             err);
    if (s == RR_OK)
        s = rr__driver_check(d->device_attribute(&major, CAPABILITY_MAJOR, device),
                             "cuDeviceGetAttribute", err);
    if (s == RR_OK)
        s = rr__driver_check(d->device_attribute(&minor, CAPABILITY_MINOR, device),
                             "cuDeviceGetAttribute", err);
    if (s == RR_OK)
        s = rr__driver_check(d->version(&version), "cuDriverGetVersion", err);
    h->sm = 10 * major + minor;
    h->cuda = version;
    release(h->driver, sizeof h->driver);
    return s;
}
