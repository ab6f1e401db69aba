/* plan.h - which products of a calibration stay in the base precision: the mixed plan. */
#ifndef RR_CLI_PLAN_H
#define RR_CLI_PLAN_H

#include "watch.h"

/* Every product's sensitivity: mean |logit change| over the pairs when it alone is quantized, all else
 * in fp32. Loads the backend once for each, with progress. */
rr_status plan_measure(rr__calibration *cal, const rr__model *m, const cli_common *c,
                       const watch_pairs *p, int32_t max_tokens, rr_error *err);

/* Keep the k products with the most squared sensitivity for each multiplication they save. */
void plan_keep(rr__calibration *cal, const rr__model *m, size_t k);

/* Keep a set with which no logit of the pairs is further than tolerance from want[p->n], found by
 * bisection over plan_keep and then thinned until none of it can go. *worst is what remains.
 * RR_E_ARG if even all in the base precision are further. */
rr_status plan_bisect(rr__calibration *cal, const rr__model *m, const cli_common *c,
                      const watch_pairs *p, int32_t max_tokens, const float *want, double tolerance,
                      double *worst, rr_error *err);

/* Keep the fewest products, found by bisection, with which nDCG@10 over the BEIR folders falls by at
 * most drop points (hundredths) of fp32's. Each step it tries is written to path, for the engine to
 * read, and printed; the caller writes what is found. RR_E_ARG if even all in the base precision lose
 * more. */
typedef struct plan_budget {
    const char  *path;
    char *const *dir;
    int          n_dir;
    size_t       queries, candidates; /* of each folder; 0 = all */
    double       drop;
} plan_budget;
rr_status plan_within(rr__calibration *cal, const rr__model *m, const cli_common *c,
                      const plan_budget *b, rr_error *err);

#endif
