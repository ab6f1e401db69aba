/* metrics.h - ranking quality of one query, and statistics over queries. */
#ifndef RR_CLI_METRICS_H
#define RR_CLI_METRICS_H

#include <stddef.h>
#include <stdint.h>

typedef struct metrics {
    double ndcg10, mrr10, recall10, recall100;
} metrics;

/* order[n] positions by rank (best first) into grade[n]; ideal[n_ideal] all positive grades,
 * falling. nDCG with gain = grade and discount 1 / log2(rank + 1), as trec_eval's ndcg_cut. */
metrics metrics_of(const int32_t *order, size_t n, const int32_t *grade, const int32_t *ideal,
                   size_t n_ideal);

/* Order by falling score, ties by lower position. order[n] is written. */
void metrics_rank(const float *score, size_t n, int32_t *order);

/* Kendall's tau-b of two score lists over the same n documents. */
double metrics_kendall(const float *a, const float *b, size_t n);

/* 95 % interval of the mean of d[n] by 2,000 bootstrap resamples of a fixed seed. */
void metrics_bootstrap(const double *d, size_t n, double *lo, double *hi);

#endif
