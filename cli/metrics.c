/* metrics.c - see metrics.h. */
#include "metrics.h"

#include <math.h>
#include <stdlib.h>

metrics metrics_of(const int32_t *order, size_t n, const int32_t *grade, const int32_t *ideal,
                   size_t n_ideal) {
    metrics m = {0, 0, 0, 0};
    double  dcg = 0, best = 0;
    size_t  hit10 = 0, hit100 = 0;

    for (size_t r = 0; r < n && r < 100; r++) {
        int32_t g = grade[order[r]];

        if (g <= 0)
            continue;
        hit100++;
        if (r >= 10)
            continue;
        hit10++;
        dcg += g / log2((double)r + 2);
        if (m.mrr10 == 0)
            m.mrr10 = 1.0 / (double)(r + 1);
    }
    for (size_t r = 0; r < n_ideal && r < 10; r++)
        best += ideal[r] / log2((double)r + 2);
    m.ndcg10 = best > 0 ? dcg / best : 0;
    m.recall10 = n_ideal ? (double)hit10 / (double)n_ideal : 0;
    m.recall100 = n_ideal ? (double)hit100 / (double)n_ideal : 0;
    return m;
}

typedef struct ranked {
    float   score;
    int32_t at;
} ranked;

static int better(const void *a, const void *b) {
    const ranked *x = a, *y = b;

    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->at < y->at ? -1 : 1;
}

void metrics_rank(const float *score, size_t n, int32_t *order) {
    ranked *r = malloc((n ? n : 1) * sizeof *r);

    for (size_t i = 0; i < n; i++)
        order[i] = (int32_t)i; /* first-stage order, should memory be out */
    if (!r)
        return;
    for (size_t i = 0; i < n; i++)
        r[i] = (ranked){score[i], (int32_t)i};
    qsort(r, n, sizeof *r, better);
    for (size_t i = 0; i < n; i++)
        order[i] = r[i].at;
    free(r);
}

double metrics_kendall(const float *a, const float *b, size_t n) {
    double same = 0, a_pairs = 0, b_pairs = 0;

    for (size_t i = 0; i < n; i++)
        for (size_t j = i + 1; j < n; j++) {
            int x = (a[i] > a[j]) - (a[i] < a[j]), y = (b[i] > b[j]) - (b[i] < b[j]);

            same += x * y;
            a_pairs += x != 0;
            b_pairs += y != 0;
        }
    return a_pairs > 0 && b_pairs > 0 ? same / sqrt(a_pairs * b_pairs) : 1;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

void metrics_bootstrap(const double *d, size_t n, double *lo, double *hi) {
    enum { RESAMPLES = 2000 };
    double  *mean = malloc(RESAMPLES * sizeof *mean);
    uint64_t state = 88172645463325252u;

    *lo = *hi = 0;
    if (!mean || !n) {
        free(mean);
        return;
    }
    for (int r = 0; r < RESAMPLES; r++) {
        double sum = 0;

        for (size_t i = 0; i < n; i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            sum += d[state % n];
        }
        mean[r] = sum / (double)n;
    }
    qsort(mean, RESAMPLES, sizeof *mean, by_value);
    *lo = mean[RESAMPLES / 40];
    *hi = mean[RESAMPLES - 1 - RESAMPLES / 40];
    free(mean);
}
