/* cost.h - how long a device takes for a batch: us = a + b * tokens + c * sum(len^2).
 *
 * a is the price of starting a batch, b the matrix products, c attention. The model is fitted to
 * probe batches when an engine opens and to every batch that runs; what ran lately counts most.
 * On a padded backend tokens is n_seq * max_len and the sum is n_seq * max_len^2. Plain data: the
 * owner locks. */
#ifndef RR_SCHED_COST_H
#define RR_SCHED_COST_H

#include <stdint.h>

/* Weighted normal equations of one set of samples: m theta = r. */
typedef struct rr__cost_sums {
    double m[3][3], r[3];
} rr__cost_sums;

typedef struct rr__cost {
    double        a, b, c;    /* us, us a token, us a token squared; none is negative */
    rr__cost_sums probe, run; /* run forgets, probe does not                          */
    int32_t       n, strange; /* samples seen; outliers in a row                      */
} rr__cost;

/* Before the first sample: a guess, so that everything divides. */
void rr__cost_init(rr__cost *k);

/* A probe batch took us. */
void rr__cost_probe(rr__cost *k, double tokens, double sumsq, double us);

/* A batch of real work took us. One that is far off (the process was stopped, a clock jumped) is
 * ignored, unless it goes on: then the device has changed and the old samples are dropped. */
void rr__cost_observe(rr__cost *k, double tokens, double sumsq, double us);

/* What these tokens add to a batch, without its start. */
static inline double rr__cost_marginal(const rr__cost *k, double tokens, double sumsq) {
    return k->b * tokens + k->c * sumsq;
}

/* A whole batch. */
static inline double rr__cost_batch(const rr__cost *k, double tokens, double sumsq) {
    return k->a + rr__cost_marginal(k, tokens, sumsq);
}

#endif
