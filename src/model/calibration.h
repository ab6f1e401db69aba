/* calibration.h - how the products of a model's layers are quantized: the file that `rerank calibrate`
 * writes, and that the exporter and the backends read.
 *
 * A *product* is one matrix product of the encoder, named by layer and role: "3.qkv", "3.out",
 * "3.ffn1", "3.ffn2". Its input x is divided by smooth, if there is one, and rounded to multiples of
 * amax / 127 (fp8: amax / 448), values beyond amax saturating; the columns of its weight are
 * multiplied by smooth and each row has its own scale.
 *
 * Of a calibration per token only smooth and keep_float are used where the engine can measure each
 * row's scale as it goes (cpu, cuda); amax is for those that cannot (ONNX's Q/DQ). */
#ifndef RR_MODEL_CALIBRATION_H
#define RR_MODEL_CALIBRATION_H

#include "model/model.h"

typedef enum rr__quant_format { RR__QUANT_INT8, RR__QUANT_FP8 } rr__quant_format;

typedef enum rr__quant_method {
    RR__QUANT_MAX,
    RR__QUANT_PERCENTILE,
    RR__QUANT_ENTROPY,
    RR__QUANT_MSE,
    RR__QUANT_N_METHOD
} rr__quant_method;

/* One product of a calibration. */
typedef struct rr__calibrated {
    char    name[24];
    float   amax, max; /* threshold, and the largest magnitude seen (after smoothing)      */
    int32_t cols;
    int32_t keep_float;
    double  sensitivity; /* mean |logit change| when this product alone is quantized; -1 unknown */
    float  *smooth;      /* [cols] or NULL: input divided, weight columns multiplied        */
} rr__calibrated;

typedef struct rr__calibration {
    rr__quant_format format;
    rr__quant_method method;
    double           percentile;
    double           smooth_alpha; /* 0 = no smoothing */
    int32_t          per_token;    /* a scale a row, measured in each pass */
    int32_t          exact; /* not in the file: the rest in fp32, to measure a product alone */
    int64_t          n_pair, n_token;
    char             model[256], hash[40]; /* directory name and hash of the weights measured */
    size_t           n;
    rr__calibrated  *product; /* [n] in layer order */
    void            *self;    /* memory, private to calibration.c */
} rr__calibration;

/* n products, zeroed; NULL when out of memory. */
rr__calibration *rr__calibration_new(size_t n);
/* Of every product of m: per token, nothing smoothed, nothing kept. NULL when out of memory. */
rr__calibration *rr__calibration_plain(const rr__model *m);
/* A copy of v[n] that lives as long as c; NULL when out of memory. */
float *rr__calibration_floats(rr__calibration *c, const float *v, size_t n);
void   rr__calibration_free(rr__calibration *c);

rr_status rr__calibration_read(const char *path, rr__calibration **out, rr_error *err);
/* The pure parser behind it; name is for messages. */
rr_status rr__calibration_parse(const void *bytes, size_t size, const char *name,
                                rr__calibration **out, rr_error *err);
rr_status rr__calibration_write(const rr__calibration *c, const char *path, rr_error *err);
/* Refuse a calibration that was made from other weights or does not cover this model. */
rr_status rr__calibration_fits(const rr__calibration *c, const rr__model *m, rr_error *err);
/* By name; NULL if there is none. */
const rr__calibrated *rr__calibration_find(const rr__calibration *c, const char *name);

const char      *rr__quant_format_name(rr__quant_format f);
const char      *rr__quant_method_name(rr__quant_method m);
rr__quant_method rr__quant_method_parse(const char *name); /* RR__QUANT_N_METHOD if unknown */

#endif
