/* driver.h - the CUDA driver's functions that the trt backend calls, found at run time.
 *
 * The driver (libcuda.so.1) comes with every card's system, the CUDA run time does not; so nothing of
 * CUDA is linked or needed to build. Names and values are those of NVIDIA's driver API. */
#ifndef RR_BACKEND_TRT_DRIVER_H
#define RR_BACKEND_TRT_DRIVER_H

#include "backend/trt/trt.h"

#include <stdint.h>

typedef uint64_t rr__devptr;

typedef struct rr__driver {
    int (*init)(unsigned flags);
    int (*version)(int *v);
    int (*error_text)(int status, const char **text);
    int (*device_count)(int *n);
    int (*device_get)(int *device, int ordinal);
    int (*device_name)(char *name, int size, int device);
    int (*device_attribute)(int *value, int attribute, int device);
    int (*primary_retain)(void **context, int device);
    int (*primary_release)(int device);
    int (*set_current)(void *context);
    int (*memory_info)(size_t *free_bytes, size_t *total);
    int (*alloc)(rr__devptr *p, size_t size);
    int (*release)(rr__devptr p);
    int (*host_alloc)(void **p, size_t size, unsigned flags);
    int (*host_free)(void *p);
    int (*to_device)(rr__devptr to, const void *from, size_t size, void *stream);
    int (*to_host)(void *to, rr__devptr from, size_t size, void *stream);
    int (*stream_create)(void **stream, unsigned flags);
    int (*stream_destroy)(void *stream);
    int (*stream_wait)(void *stream);
    int (*event_create)(void **event, unsigned flags);
    int (*event_destroy)(void *event);
    int (*event_record)(void *event, void *stream);
    int (*event_wait)(void *event);
} rr__driver;

/* Opened and initialized once; RR_E_UNSUPPORTED with the reason where there is no driver or card. */
rr_status rr__driver_open(const rr__driver **out, rr_error *err);

/* gpu, sm, cuda and driver of h, of the card with that ordinal. */
rr_status rr__driver_look(int32_t ordinal, rr__trt_here *h, rr_error *err);

/* RR_OK, or an error that names what was called: RR_E_NOMEM where memory ran out, else RR_E_DEVICE. */
rr_status rr__driver_check(int status, const char *what, rr_error *err);

#endif
