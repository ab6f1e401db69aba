/* onnx_export.h - model directory to ONNX file, shared by rerank export and rerank build. */
#ifndef RR_CLI_ONNX_EXPORT_H
#define RR_CLI_ONNX_EXPORT_H

#include "onnx/onnx.h"

/* o.dtype, o.quant and o.scale come from precision and the calibration file (needed by int8 and
 * fp8, else NULL); hash[17] gets the model's hash and may be NULL. */
rr_status cli_onnx_export(const char *dir, const char *path, const char *precision,
                          const char *calibration, rr__onnx_opts o, char *hash, rr_error *err);

#endif
