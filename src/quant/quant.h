/* quant.h - from activations to scales: what `rerank calibrate` measures and every backend reads.
 *
 * Floor 4. A *product* is one matrix product of the encoder, named by layer and role: "3.qkv",
 * "3.out", "3.ffn1", "3.ffn2". Its input is quantized per tensor with one calibrated threshold amax
 * (values beyond it saturate), its weight per output channel with thresholds read off the weight.
 *
 *     collect.c   histograms and channel ranges of every product's input, fed by observe
 *     threshold.c histogram to amax: max, percentile, entropy (KL), mean square error
 *     file.c      the calibration file: readable JSON, read back with every number checked */
#ifndef RR_QUANT_QUANT_H
#define RR_QUANT_QUANT_H

#include "model/model.h"

typedef enum rr__quant_format { RR__QUANT_INT8, RR__QUANT_FP8 } rr__quant_format;

typedef enum rr__quant_method {
    RR__QUANT_MAX,
    RR__QUANT_PERCENTILE,
    RR__QUANT_ENTROPY,
    RR__QUANT_MSE,
    RR__QUANT_N_METHOD
} rr__quant_method;

enum { RR__QUANT_BINS = 4096 };

/* Distribution of |x| of one product's input. Bin i counts [i, i + 1) * width; width doubles, and
 * neighbours merge, when a value falls beyond the last bin. */
typedef struct rr__hist {
    uint64_t count;
    float    width, max;
    uint64_t bin[RR__QUANT_BINS];
} rr__hist;

void rr__hist_add(rr__hist *h, const float *x, size_t n);

/* The threshold a method chooses for a format; percentile in percent (99.99). 0 if h is empty. */
float rr__hist_threshold(const rr__hist *h, rr__quant_format format, rr__quant_method method,
                         double percentile);

/* Mean square error of the values of h quantized with that threshold. */
double rr__hist_error(const rr__hist *h, rr__quant_format format, float amax);

/* What was seen at one product's input. */
typedef struct rr__product_stats {
    char     name[24];
    int32_t  cols;
    rr__hist hist;
    float   *channel_amax; /* [cols] before smoothing               */
    float   *smooth;       /* [cols] or NULL                        */
    float   *inv_smooth;   /* [cols] what add multiplies by, or NULL */
} rr__product_stats;

typedef struct rr__collector rr__collector;

rr_status rr__collector_open(const rr__model *m, rr__collector **out, rr_error *err);
void      rr__collector_close(rr__collector *c);
/* One named activation as backends show it ([rows, cols] fp32); names that feed no product are
 * ignored. RR_E_ARG when cols are not what the model has, RR_E_FORMAT on NaN or infinity. */
rr_status rr__collector_add(rr__collector *c, const char *name, int32_t rows, int32_t cols,
                            const float *data, rr_error *err);
/* SmoothQuant with exponent alpha: from the channel ranges seen so far choose
 * s_j = amax(x_j)^alpha / amax(w_j)^(1 - alpha), forget the histograms, and divide what is added
 * from now on by s: show it the same pairs a second time. */
rr_status rr__collector_smooth(rr__collector *c, const rr__model *m, double alpha, rr_error *err);
/* Products in layer order: qkv, out, ffn1, ffn2 of layer 0, then 1, ... */
const rr__product_stats *rr__collector_at(const rr__collector *c, size_t i);
size_t                   rr__collector_n(const rr__collector *c);

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
    int64_t          n_pair, n_token;
    char             model[256], hash[40]; /* directory name and hash of the weights measured */
    size_t           n;
    rr__calibrated  *product; /* [n] in layer order */
    void            *self;    /* memory, private to file.c and collect.c */
} rr__calibration;

typedef struct rr__quant_opts {
    rr__quant_format format;
    rr__quant_method method;
    double           percentile; /* 0 = 99.99 */
} rr__quant_opts;

/* Choose thresholds for everything collected. The result is independent of c. */
rr_status rr__calibrate(const rr__collector *c, const rr__quant_opts *o, rr__calibration **out,
                        rr_error *err);
void      rr__calibration_free(rr__calibration *c);

rr_status rr__calibration_read(const char *path, rr__calibration **out, rr_error *err);
/* The pure parser behind it; name is for messages. */
rr_status rr__calibration_parse(const void *bytes, size_t size, const char *name,
                                rr__calibration **out, rr_error *err);
rr_status rr__calibration_write(const rr__calibration *c, const char *path, rr_error *err);
/* Refuse a calibration that does not cover this model: products, columns, ranges. */
rr_status rr__calibration_fits(const rr__calibration *c, const rr__model *m, rr_error *err);
/* By name; NULL if there is none. */
const rr__calibrated *rr__calibration_find(const rr__calibration *c, const char *name);

const char      *rr__quant_format_name(rr__quant_format f);
const char      *rr__quant_method_name(rr__quant_method m);
rr__quant_method rr__quant_method_parse(const char *name); /* RR__QUANT_N_METHOD if unknown */

#endif
