/* manifest.h - what an engine file was made from, and whether that is still what is here.
 *
 * `rerank build` writes FILE and FILE.json, the manifest. An engine is never run without it: a file
 * of other weights would answer, and answer wrongly. Parser and check are pure functions. */
#ifndef RR_BACKEND_TRT_MANIFEST_H
#define RR_BACKEND_TRT_MANIFEST_H

#include "backend/trt/trt.h"

enum { RR__TRT_PROFILES = 16, RR__TRT_MANIFEST_VERSION = 2 };

typedef struct rr__trt_manifest {
    char            library[64];       /* "TensorRT-RTX 1.7.1"                                 */
    char            model[1024];       /* folder, for messages                                 */
    char            model_hash[17];    /* rr__model_hash of its weights                        */
    char            plan_hash[17];     /* rr__bytes_hash of the engine file                    */
    char            precision[8];      /* "fp16"                                               */
    char            calibration[1024]; /* file of the 8-bit scales, or ""                      */
    char            gpu[96];           /* card it was built on; "" = built without one         */
    char            driver[32];        /* "580.159.04"; "" = none                              */
    int32_t         headers;           /* TensorRT's, major * 10000 + minor * 100 + patch      */
    int32_t         opset;             /* of the ONNX file between                             */
    int32_t         sm;                /* compute capability of gpu, 90; 0 = none              */
    int32_t         target;            /* --for sm_86: 86; 0 = not asked                       */
    int32_t         cuda;              /* that the driver knew, 13000; 0 = none                */
    uint64_t        bytes, workspace;  /* of the file; --workspace, 0 = TensorRT's own choice  */
    double          seconds;           /* that the build took                                  */
    int32_t         n_profile;
    rr__trt_profile profile[RR__TRT_PROFILES];
} rr__trt_manifest;

/* bytes of FILE.json; name is for messages. Fields that are missing, or make no sense, are an error. */
rr_status rr__trt_manifest_parse(const void *bytes, size_t size, const char *name,
                                 rr__trt_manifest *out, rr_error *err);
/* Of the engine at plan_path: reads plan_path.json. */
rr_status rr__trt_manifest_read(const char *plan_path, rr__trt_manifest *out, rr_error *err);
rr_status rr__trt_manifest_write(const rr__trt_manifest *m, const char *plan_path, rr_error *err);

/* RR_OK if an engine of manifest m may run where h says, else RR_E_ARG with the first difference and
 * the remedy; name is the engine's, for the message. A library or gpu of "" is not known (yet): it, and
 * with the gpu the driver, is not compared. */
rr_status rr__trt_fresh(const rr__trt_manifest *m, const rr__trt_here *h, const char *name,
                        rr_error *err);

/* "sm_86" or "8.6" to 86; 0 if it is neither. */
int32_t rr__trt_sm_parse(const char *text);

#endif
