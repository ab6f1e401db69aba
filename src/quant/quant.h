/* quant.h - from activations to scales: what `rerank calibrate` measures and every backend reads.
 *
 * Floor 4. A *product* is one matrix product of the encoder, named by layer and role: "3.qkv",
 * "3.out", "3.ffn1", "3.ffn2". Its input is quantized per tensor with one calibrated threshold amax
 * (values beyond it saturate), its weight per output channel with thresholds read off the weight.
 *
 *     collect.c   histograms and channel ranges of every product's input, fed by observe
 *     threshold.c histogram to amax: max, percentile, entropy (KL), mean square error
 *
 * The result is an rr__calibration (model/calibration.h), which exporters and backends read. */
#ifndef RR_QUANT_QUANT_H
#define RR_QUANT_QUANT_H

#include "model/calibration.h"

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

typedef struct rr__quant_opts {
    rr__quant_format format;
    rr__quant_method method;
    double           percentile; /* 0 = 99.99 */
} rr__quant_opts;

/* Choose thresholds for everything collected. The result is independent of c. */
rr_status rr__calibrate(const rr__collector *c, const rr__quant_opts *o, rr__calibration **out,
                        rr_error *err);

#endif
