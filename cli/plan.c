/* plan.c - see plan.h. Sensitivities come from backend passes over pairs, the budget is held by
 * ranking whole sets through the engine, as `rerank eval` does. */
#include "plan.h"

#include "beir.h"
#include "cli.h"
#include "lines.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- sensitivity ----------------------------------------------------------------------------- */

static rr_status logits_of(const rr__calibration *cal, const rr__model *m, const cli_common *c,
                           const watch_pairs *p, int32_t max_tokens, float *logits, rr_error *err) {
    int32_t  *cu = malloc(((size_t)p->n + 1) * sizeof *cu);
    watch     w = {.model = NULL};
    char      what[64];
    rr_status s = cu ? RR_OK : rr__fail(err, RR_E_NOMEM, "%d pairs", (int)p->n);

    snprintf(what, sizeof what, "%s:%s", c->backend ? c->backend : "cpu",
             rr__quant_format_name(cal->format));
    if (!s)
        s = watch_open(&w, m, what, c, cal, max_tokens, p->n, err);
    for (int32_t i = 0; i < p->n && !s;) {
        const rr__batch b = watch_batch(p, i, max_tokens, cu);

        s = w.backend->score(w.instance, &b, logits + i, err);
        i += b.n_seq;
    }
    watch_close(&w);
    free(cu);
    return s;
}

rr_status plan_measure(rr__calibration *cal, const rr__model *m, const cli_common *c,
                       const watch_pairs *p, int32_t max_tokens, rr_error *err) {
    float    *base = malloc((size_t)p->n * sizeof *base);
    float    *logits = malloc((size_t)p->n * sizeof *logits);
    rr_status s = base && logits ? RR_OK : rr__fail(err, RR_E_NOMEM, "%d pairs", (int)p->n);

    for (size_t i = 0; i < cal->n; i++)
        cal->product[i].keep_float = 1;
    cal->exact = 1; /* else bf16's own rounding, another with each change, hides small effects */
    if (!s)
        s = logits_of(cal, m, c, p, max_tokens, base, err);
    for (size_t i = 0; i < cal->n && !s; i++) {
        double sum = 0;

        cal->product[i].keep_float = 0;
        s = logits_of(cal, m, c, p, max_tokens, logits, err);
        cal->product[i].keep_float = 1;
        for (int32_t k = 0; k < p->n; k++)
            sum += fabs((double)logits[k] - base[k]);
        cal->product[i].sensitivity = sum / p->n;
        cli_progress("sensitivity", i + 1, cal->n, 0);
    }
    cli_progress("sensitivity", 1, 1, 1);
    for (size_t i = 0; i < cal->n; i++)
        cal->product[i].keep_float = 0;
    cal->exact = 0;
    free(base);
    free(logits);
    return s;
}

/* Products are in the order qkv, out, ffn1, ffn2 of each layer. */
static double gain(const rr__calibration *cal, const rr__model *m, size_t i) {
    const double d = m->d_model, f = m->d_ff;
    const double multiplications[] = {3 * d * d, d * d, d * f, f * d};
    const double x = cal->product[i].sensitivity;

    return x * x / multiplications[i % 4];
}

void plan_keep(rr__calibration *cal, const rr__model *m, size_t k) {
    for (size_t i = 0; i < cal->n; i++)
        cal->product[i].keep_float = 0;
    for (; k > 0; k--) {
        size_t worst = cal->n;

        for (size_t i = 0; i < cal->n; i++)
            if (!cal->product[i].keep_float &&
                (worst == cal->n || gain(cal, m, i) > gain(cal, m, worst)))
                worst = i;
        if (worst == cal->n)
            return;
        cal->product[worst].keep_float = 1;
    }
}

/* ---- bisection --------------------------------------------------------------------------------- */

static rr_status distance(const rr__calibration *cal, const rr__model *m, const cli_common *c,
                          const watch_pairs *p, int32_t max_tokens, const float *want,
                          double *worst, rr_error *err) {
    float    *logits = malloc((size_t)p->n * sizeof *logits);
    rr_status s = logits ? logits_of(cal, m, c, p, max_tokens, logits, err)
                         : rr__fail(err, RR_E_NOMEM, "%d pairs", (int)p->n);

    *worst = 0;
    for (int32_t i = 0; i < p->n && !s; i++) {
        const double d = fabs((double)logits[i] - want[i]);

        *worst = d <= *worst ? *worst : isnan(d) ? INFINITY : d;
    }
    free(logits);
    return s;
}

rr_status plan_bisect(rr__calibration *cal, const rr__model *m, const cli_common *c,
                      const watch_pairs *p, int32_t max_tokens, const float *want, double tolerance,
                      double *worst, rr_error *err) {
    size_t    low = 0, high = cal->n; /* high is enough, low is not */
    double    d;
    rr_status s = plan_measure(cal, m, c, p, max_tokens, err);

    if (!s)
        s = distance(cal, m, c, p, max_tokens, want, worst, err);
    if (s || *worst <= tolerance)
        return s;
    plan_keep(cal, m, high);
    s = distance(cal, m, c, p, max_tokens, want, worst, err);
    if (!s && *worst > tolerance)
        return rr__fail(err, RR_E_ARG,
                        "with all products in the base precision a logit is still %.3g away, more "
                        "than %.3g",
                        *worst, tolerance);
    while (!s && low + 1 < high) {
        const size_t k = low + (high - low) / 2;

        plan_keep(cal, m, k);
        s = distance(cal, m, c, p, max_tokens, want, &d, err);
        if (d <= tolerance)
            high = k, *worst = d;
        else
            low = k;
    }
    plan_keep(cal, m, high);
    for (size_t i = 0; i < cal->n && !s; i++) { /* rounding errors cancel: some may not be needed */
        if (!cal->product[i].keep_float)
            continue;
        cal->product[i].keep_float = 0;
        s = distance(cal, m, c, p, max_tokens, want, &d, err);
        if (d <= tolerance)
            *worst = d;
        else
            cal->product[i].keep_float = 1;
        cli_progress("thinning", i + 1, cal->n, 0);
    }
    cli_progress("thinning", 1, 1, 1);
    return s;
}

/* ---- budget ---------------------------------------------------------------------------------- */

/* Sum of nDCG@10 over all queries of a set. */
static rr_status sum_ndcg(rr_engine *engine, const beir *set, double *sum, rr_error *err) {
    rr_str   *docs;
    float    *scores;
    size_t    widest = 1, n = 0;
    rr_status s = RR_OK;

    for (size_t i = 0; i < set->n_query; i++) {
        widest = set->query[i].n_doc > widest ? set->query[i].n_doc : widest;
        n += set->query[i].n_doc;
    }
    docs = malloc(widest * sizeof *docs);
    scores = malloc((n + 1) * sizeof *scores);
    if (!docs || !scores)
        s = rr__fail(err, RR_E_NOMEM, "%zu documents", n);
    n = 0;
    for (size_t i = 0; i < set->n_query && !s; i++) {
        const beir_query *q = &set->query[i];

        for (size_t k = 0; k < q->n_doc; k++)
            docs[k] = set->doc[q->doc[k]].text;
        s = rr_score(engine, q->text, docs, q->n_doc, scores + n, err);
        n += q->n_doc;
    }
    if (!s)
        s = beir_ndcg10(set, scores, sum, err);
    free(docs);
    free(scores);
    return s;
}

/* Mean nDCG@10 of all folders' queries; calibration NULL: at fp32. */
static rr_status ranked(const cli_common *c, const plan_budget *b, const char *calibration,
                        const char *precision, double *ndcg, rr_error *err) {
    cli_common side = *c;
    rr_model  *model = NULL;
    rr_engine *engine = NULL;
    size_t     n = 0;
    double     sum = 0, of_set = 0;
    rr_status  s;

    side.backend = c->backend ? c->backend : "cpu";
    side.precision = precision;
    side.calibration = calibration;
    s = cli_open(&side, &model, &engine, err);
    for (int i = 0; i < b->n_dir && !s; i++) {
        beir set;

        s = beir_open(b->dir[i], b->queries, b->candidates, &set, err);
        if (s)
            break;
        s = sum_ndcg(engine, &set, &of_set, err);
        sum += of_set;
        n += set.n_query;
        beir_close(&set);
        cli_progress(precision, (uint64_t)i + 1, (uint64_t)b->n_dir, 0);
    }
    cli_progress(precision, 1, 1, 1);
    if (!s && n == 0)
        s = rr__fail(err, RR_E_ARG, "no query with a relevant document in the evaluation folders");
    *ndcg = n ? sum / (double)n : 0;
    rr_engine_close(engine);
    rr_model_close(model);
    return s;
}

static rr_status attempt(rr__calibration *cal, const rr__model *m, const cli_common *c,
                         const plan_budget *b, size_t k, double base, double *drop, rr_error *err) {
    double    ndcg = 0;
    rr_status s;

    plan_keep(cal, m, k);
    s = rr__calibration_write(cal, b->path, err);
    if (!s)
        s = ranked(c, b, b->path, rr__quant_format_name(cal->format), &ndcg, err);
    *drop = 100 * (base - ndcg);
    if (!s)
        printf("%4zu of %zu kept  nDCG@10 %.4f  drop %+.2f points\n", k, cal->n, ndcg, *drop);
    fflush(stdout);
    return s;
}

rr_status plan_within(rr__calibration *cal, const rr__model *m, const cli_common *c,
                      const plan_budget *b, rr_error *err) {
    double    base = 0, drop = 0;
    size_t    low = 0, high = cal->n; /* the answer is in [low, high] */
    rr_status s = ranked(c, b, NULL, "fp32", &base, err);

    if (s)
        return s;
    printf("fp32              nDCG@10 %.4f\n", base);
    s = attempt(cal, m, c, b, 0, base, &drop, err);
    if (s || drop <= b->drop)
        return s;
    s = attempt(cal, m, c, b, high, base, &drop, err);
    if (!s && drop > b->drop)
        return rr__fail(err, RR_E_ARG,
                        "with all products in the base precision nDCG@10 still falls by %.2f "
                        "points, more than %.2f",
                        drop, b->drop);
    while (!s && low + 1 < high) {
        const size_t k = low + (high - low) / 2;

        s = attempt(cal, m, c, b, k, base, &drop, err);
        if (drop <= b->drop)
            high = k;
        else
            low = k;
    }
    plan_keep(cal, m, high);
    return s;
}
