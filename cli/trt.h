/* trt.h - TensorRT engines from the command line: build one, and see that one is right before it runs. */
#ifndef RR_CLI_TRT_H
#define RR_CLI_TRT_H

#include "options.h"

#include "backend/trt/manifest.h"

/* What rerank build was told, or what --rebuild read from the manifest of the stale engine. */
typedef struct trt_build {
    const cli_common *common; /* the model */
    const char       *output, *cache;
    int               verbose;
    rr__trt_manifest  m; /* precision, calibration, opset, target, workspace, profiles: wanted */
} trt_build;

/* Export the model, compile it, write output and output.json; says on stderr what goes on. */
rr_status trt_build_run(trt_build *b, rr_error *err);

/* Before an engine opens: are --engine, --backend, --rebuild and --trt-lib meant for each other? With
 * --rebuild a stale engine is made anew. */
rr_status trt_ready(const cli_common *c, rr_error *err);

/* --trt-lib, for all that follows. */
rr_status trt_lib(const cli_common *c, rr_error *err);

/* Whether the flags choose the trt backend. */
int trt_chosen(const cli_common *c);

#endif
