/* threshold.c - from a histogram of magnitudes to the clipping threshold.
 *
 * max         the largest value seen: nothing saturates, one outlier coarsens every step
 * percentile  the value below which that share of all magnitudes lies
 * entropy     the threshold whose quantized distribution keeps most information: least
 *             KL(P || Q), P the histogram with its tail folded into the last bin kept, Q the same
 *             spread over the format's levels. This is the method TensorRT made known.
 * mse         the threshold with the least mean square error, clipping and rounding together */
#include "quant/quant.h"

#include "base/half.h"

#include <math.h>
#include <string.h>

enum { LEVELS = 128 }; /* magnitudes an int8 or e4m3 value can take, near enough for both */

static void widen(rr__hist *h) {
    for (int i = 0; i < RR__QUANT_BINS / 2; i++)
        h->bin[i] = h->bin[2 * i] + h->bin[2 * i + 1];
    memset(h->bin + RR__QUANT_BINS / 2, 0, sizeof h->bin / 2);
    h->width *= 2;
}

void rr__hist_add(rr__hist *h, const float *x, size_t n) {
    float max = 0, per_width;

    for (size_t i = 0; i < n; i++)
        max = fmaxf(max, fabsf(x[i]));
    if (max > h->max)
        h->max = max;
    if (h->width == 0) /* leave room: the first values are rarely the largest */
        h->width = max > 0 ? 2 * max / RR__QUANT_BINS : 1e-6f;
    while (max >= h->width * RR__QUANT_BINS)
        widen(h);
    per_width = 1 / h->width;
    for (size_t i = 0; i < n; i++) {
        int32_t b = (int32_t)(fabsf(x[i]) * per_width);

        h->bin[b < RR__QUANT_BINS ? b : RR__QUANT_BINS - 1]++;
    }
    h->count += n;
}

/* A magnitude as the format keeps it with threshold amax. */
static double quantized(double v, rr__quant_format format, double amax) {
    if (v >= amax)
        return amax;
    if (format == RR__QUANT_FP8)
        return rr__e4m3_to_f32(rr__f32_to_e4m3((float)(v * (448 / amax)))) * (amax / 448);
    return nearbyint(v * (127 / amax)) * (amax / 127);
}

double rr__hist_error(const rr__hist *h, rr__quant_format format, float amax) {
    double sum = 0;

    if (!h->count || !(amax > 0))
        return 0;
    for (int i = 0; i < RR__QUANT_BINS; i++) {
        double v = (i + 0.5) * h->width, d = v - quantized(v, format, amax);

        /* Inside a bin values are spread evenly; that adds the same width^2 / 12 everywhere. */
        sum += (double)h->bin[i] * d * d;
    }
    return sum / (double)h->count;
}

static int last_bin(const rr__hist *h) {
    int i = RR__QUANT_BINS - 1;

    while (i > 0 && !h->bin[i])
        i--;
    return i;
}

static float percentile_of(const rr__hist *h, double percentile) {
    double want = (double)h->count * percentile / 100, sum = 0;

    for (int i = 0; i < RR__QUANT_BINS; i++) {
        sum += (double)h->bin[i];
        if (sum >= want)
            return fminf((float)(i + 1) * h->width, h->max);
    }
    return h->max;
}

/* KL(P || Q) when bins [0, n) are kept: P has the tail added to its last bin, Q is P's kept part
 * averaged over each of LEVELS groups, among the bins that are not empty. */
static double divergence(const rr__hist *h, int n) {
    double tail = 0, total = 0, q_total = 0, kl = 0;

    for (int i = n; i < RR__QUANT_BINS; i++)
        tail += (double)h->bin[i];
    for (int i = 0; i < n; i++)
        q_total += (double)h->bin[i];
    total = q_total + tail;
    if (q_total == 0)
        return INFINITY;
    for (int level = 0; level < LEVELS; level++) {
        int from = (int)((int64_t)level * n / LEVELS),
            to = (int)((int64_t)(level + 1) * n / LEVELS);
        double sum = 0, filled = 0;

        for (int i = from; i < to; i++) {
            sum += (double)h->bin[i];
            filled += h->bin[i] > 0;
        }
        for (int i = from; i < to; i++) {
            double p = ((double)h->bin[i] + (i == n - 1 ? tail : 0)) / total, q;

            if (p == 0)
                continue;
            q = h->bin[i] ? sum / filled / q_total : 1e-12; /* the tail fell on an empty bin */
            kl += p * log(p / q);
        }
    }
    return kl;
}

static float entropy_of(const rr__hist *h) {
    int    last = last_bin(h), best = last + 1;
    double least = INFINITY;

    for (int n = LEVELS; n <= last + 1; n += 8) {
        double kl = divergence(h, n);

        if (kl < least) {
            least = kl;
            best = n;
        }
    }
    return fminf((float)best * h->width, h->max);
}

static float mse_of(const rr__hist *h, rr__quant_format format) {
    float  best = h->max;
    double least = INFINITY;

    for (int i = 200; i >= 10; i--) { /* 5 % to 100 % of the range in steps of 0.5 % */
        float  amax = h->max * (float)i / 200;
        double e = rr__hist_error(h, format, amax);

        if (e < least) {
            least = e;
            best = amax;
        }
    }
    return best;
}

float rr__hist_threshold(const rr__hist *h, rr__quant_format format, rr__quant_method method,
                         double percentile) {
    if (!h->count)
        return 0;
    switch (method) {
    case RR__QUANT_PERCENTILE:
        return percentile_of(h, percentile);
    case RR__QUANT_ENTROPY:
        return entropy_of(h);
    case RR__QUANT_MSE:
        return mse_of(h, format);
    case RR__QUANT_MAX:
    case RR__QUANT_N_METHOD:
        break;
    }
    return h->max;
}
