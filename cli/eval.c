/* eval.c - rerank eval: nDCG@10 and friends on BEIR folders, against the first-stage order and, with
 * --compare, against a second precision or backend. */
#include "beir.h"
#include "cli.h"
#include "lines.h"
#include "metrics.h"
#include "options.h"

#include "base/json_out.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char summary[] =
    "Reranks the candidates of every query of each DIR (corpus.jsonl, queries.jsonl, qrels.tsv,\n"
    "candidates.tsv) and prints nDCG@10, MRR@10 and recall beside those of the given order.";

static const char epilog[] =
    "--compare takes a precision (int8), a backend (ref) or both (cpu:int8); it adds the "
    "difference\n"
    "of nDCG@10 with a 95 % bootstrap interval, the queries whose best document or set of ten "
    "best\n"
    "changed, and Kendall's tau. Exit status: 0 done, 1 failed, 2 wrong usage.\n";

enum { IN_FLIGHT = 8 };

typedef struct side {
    rr_model  *model;
    rr_engine *engine;
    char       label[32];
} side;

typedef struct eval {
    int64_t     queries, candidates, top;
    const char *compare, *per_query;
    int         json;
    cli_common  common;
    side        a, b; /* b.engine NULL without --compare */
    FILE       *detail;
    uint64_t    done, total;
} eval;

/* Sums over the queries of one set. */
typedef struct tally {
    metrics first, a, b;
    double  tau, *diff;
    size_t  n, top1, top10, docs;
} tally;

static rr_status open_side(side *s, const cli_common *c, rr_error *err) {
    cli_common     common = cli_side(*c);
    rr_engine_info info;
    rr_status      status = cli_open(&common, &s->model, &s->engine, err);

    if (!status) {
        rr_engine_describe(s->engine, &info);
        snprintf(s->label, sizeof s->label, "%s:%s", info.backend, info.precision);
    }
    return status;
}

/* "int8", "ref" or "cpu:int8" over the common flags. */
static rr_status open_second(eval *e, rr_error *err) {
    static const char *const backends[] = {"ref", "cpu", "cuda", "trt"};
    char                     text[64];
    cli_common               c = e->common;
    char                    *colon;
    int                      is_backend = 0;

    snprintf(text, sizeof text, "%s", e->compare);
    colon = strchr(text, ':');
    for (int i = 0; i < 4; i++)
        is_backend |= strcmp(text, backends[i]) == 0;
    if (colon) {
        *colon = '\0';
        c.backend = text;
        c.precision = colon + 1;
    } else if (is_backend) {
        c.backend = text;
        c.precision = NULL;
    } else {
        c.precision = text;
    }
    return open_side(&e->b, &c, err);
}

static rr_status submit(const eval *e, const side *s, const beir *b, const beir_query *q,
                        rr_job **job, rr_error *err) {
    rr_submit_opts o = {.max_query = (int32_t)e->common.max_query};
    rr_str        *docs = malloc(q->n_doc * sizeof *docs);
    rr_status      status;

    if (!docs)
        return rr__fail(err, RR_E_NOMEM, "%zu documents", q->n_doc);
    for (size_t i = 0; i < q->n_doc; i++)
        docs[i] = b->doc[q->doc[i]].text;
    status = rr_submit(s->engine, q->text, docs, q->n_doc, &o, NULL, NULL, job, err);
    free(docs);
    return status;
}

static void add(metrics *sum, metrics m) {
    sum->ndcg10 += m.ndcg10;
    sum->mrr10 += m.mrr10;
    sum->recall10 += m.recall10;
    sum->recall100 += m.recall100;
}

static int same_top(const int32_t *x, const int32_t *y, size_t n, size_t k) {
    k = k < n ? k : n;
    for (size_t i = 0; i < k; i++) {
        size_t j = 0;

        while (j < k && y[j] != x[i])
            j++;
        if (j == k)
            return 0;
    }
    return 1;
}

static const char *base_name(const char *dir) {
    const char *slash = strrchr(dir, '/');

    return slash && slash[1] ? slash + 1 : dir;
}

/* What --compare says of one query. */
typedef struct contrast {
    metrics b;
    double  tau;
    int     top1, top10; /* did the best, the set of ten best, change? */
} contrast;

static void put_query(eval *e, const char *set, const beir *b, const beir_query *q, metrics m,
                      const contrast *c, const int32_t *order, const float *score) {
    rr__json_out o = {0};

    rr__out_object(&o);
    rr__out_key(&o, "set");
    rr__out_cstr(&o, set);
    rr__out_key(&o, "query");
    rr__out_str(&o, q->id);
    rr__out_key(&o, "ndcg10");
    rr__out_f64(&o, m.ndcg10);
    rr__out_key(&o, "mrr10");
    rr__out_f64(&o, m.mrr10);
    if (c) {
        rr__out_key(&o, "compared");
        rr__out_object(&o);
        rr__out_key(&o, "ndcg10");
        rr__out_f64(&o, c->b.ndcg10);
        rr__out_key(&o, "mrr10");
        rr__out_f64(&o, c->b.mrr10);
        rr__out_key(&o, "kendall_tau");
        rr__out_f64(&o, c->tau);
        rr__out_key(&o, "top1_flip");
        rr__out_bool(&o, c->top1);
        rr__out_key(&o, "top10_flip");
        rr__out_bool(&o, c->top10);
        rr__out_end_object(&o);
    }
    rr__out_key(&o, "top");
    rr__out_array(&o);
    for (size_t i = 0; i < q->n_doc && i < (size_t)e->top; i++) {
        rr__out_object(&o);
        rr__out_key(&o, "id");
        rr__out_str(&o, b->doc[q->doc[order[i]]].id);
        rr__out_key(&o, "score");
        rr__out_f32(&o, score[order[i]]);
        rr__out_key(&o, "grade");
        rr__out_i64(&o, q->grade[order[i]]);
        rr__out_end_object(&o);
    }
    rr__out_end_array(&o);
    rr__out_end_object(&o);
    cli_put_json(e->detail, &o);
    rr__out_free(&o);
}

/* Wait for one query's jobs and add what they say. order is scratch of 2 x n_doc. */
static rr_status finish(eval *e, const char *set, const beir *b, const beir_query *q,
                        rr_job *job[2], int32_t *order, tally *t, rr_error *err) {
    int32_t     *order_b = order + q->n_doc;
    const float *score, *score_b;
    metrics      m;
    contrast     c;
    rr_status    s = rr_wait(job[0], err);

    if (!s && job[1])
        s = rr_wait(job[1], err);
    if (s)
        return s;
    for (size_t i = 0; i < q->n_doc; i++)
        order[i] = (int32_t)i;
    add(&t->first, metrics_of(order, q->n_doc, q->grade, q->ideal, q->n_ideal));
    score = rr_job_scores(job[0], NULL);
    metrics_rank(score, q->n_doc, order);
    m = metrics_of(order, q->n_doc, q->grade, q->ideal, q->n_ideal);
    add(&t->a, m);
    if (job[1]) {
        score_b = rr_job_scores(job[1], NULL);
        metrics_rank(score_b, q->n_doc, order_b);
        c.b = metrics_of(order_b, q->n_doc, q->grade, q->ideal, q->n_ideal);
        c.tau = metrics_kendall(score, score_b, q->n_doc);
        c.top1 = order[0] != order_b[0];
        c.top10 = !same_top(order, order_b, q->n_doc, 10);
        add(&t->b, c.b);
        t->diff[t->n] = c.b.ndcg10 - m.ndcg10;
        t->tau += c.tau;
        t->top1 += (size_t)c.top1;
        t->top10 += (size_t)c.top10;
    }
    if (e->detail)
        put_query(e, set, b, q, m, job[1] ? &c : NULL, order, score);
    t->n++;
    t->docs += q->n_doc;
    return RR_OK;
}

static rr_status run_set(eval *e, const char *set, const beir *b, tally *t, rr_error *err) {
    rr_job   *job[IN_FLIGHT][2] = {{NULL}};
    int32_t  *order = NULL;
    size_t    widest = 1, sent = 0, done = 0;
    rr_status s = RR_OK;

    for (size_t i = 0; i < b->n_query; i++)
        widest = b->query[i].n_doc > widest ? b->query[i].n_doc : widest;
    order = malloc(2 * widest * sizeof *order);
    t->diff = calloc(b->n_query, sizeof *t->diff);
    if (!order || !t->diff)
        s = rr__fail(err, RR_E_NOMEM, "%zu queries", b->n_query);
    while (!s && done < b->n_query) {
        while (!s && sent < b->n_query && sent - done < IN_FLIGHT) {
            rr_job **j = job[sent % IN_FLIGHT];

            s = submit(e, &e->a, b, &b->query[sent], &j[0], err);
            if (!s && e->b.engine)
                s = submit(e, &e->b, b, &b->query[sent], &j[1], err);
            sent++;
        }
        if (!s) {
            s = finish(e, set, b, &b->query[done], job[done % IN_FLIGHT], order, t, err);
            for (int k = 0; k < 2; k++) {
                rr_job_free(job[done % IN_FLIGHT][k]);
                job[done % IN_FLIGHT][k] = NULL;
            }
            done++;
            cli_progress("queries", ++e->done, e->total, 0);
        }
    }
    for (int i = 0; i < IN_FLIGHT; i++) /* after a failure */
        for (int k = 0; k < 2; k++)
            if (job[i][k]) {
                rr_wait(job[i][k], NULL);
                rr_job_free(job[i][k]);
            }
    free(order);
    return s;
}

/* ---- report ------------------------------------------------------------------ */

static void put_metrics(rr__json_out *o, const char *key, metrics m, size_t n) {
    rr__out_key(o, key);
    rr__out_object(o);
    rr__out_key(o, "ndcg10");
    rr__out_f64(o, m.ndcg10 / (double)n);
    rr__out_key(o, "mrr10");
    rr__out_f64(o, m.mrr10 / (double)n);
    rr__out_key(o, "recall10");
    rr__out_f64(o, m.recall10 / (double)n);
    rr__out_key(o, "recall100");
    rr__out_f64(o, m.recall100 / (double)n);
    rr__out_end_object(o);
}

static void report(const eval *e, const char *dir, const tally *t, rr__json_out *o) {
    double n = (double)t->n, lo = 0, hi = 0;

    if (e->b.engine)
        metrics_bootstrap(t->diff, t->n, &lo, &hi);
    if (e->json) {
        rr__out_object(o);
        rr__out_key(o, "set");
        rr__out_cstr(o, base_name(dir));
        rr__out_key(o, "queries");
        rr__out_u64(o, t->n);
        rr__out_key(o, "documents");
        rr__out_u64(o, t->docs);
        put_metrics(o, "first_stage", t->first, t->n);
        put_metrics(o, e->a.label, t->a, t->n);
        if (e->b.engine) {
            put_metrics(o, e->b.label, t->b, t->n);
            rr__out_key(o, "ndcg10_difference");
            rr__out_array(o);
            rr__out_f64(o, (t->b.ndcg10 - t->a.ndcg10) / n);
            rr__out_f64(o, lo);
            rr__out_f64(o, hi);
            rr__out_end_array(o);
            rr__out_key(o, "top1_flips");
            rr__out_u64(o, t->top1);
            rr__out_key(o, "top10_flips");
            rr__out_u64(o, t->top10);
            rr__out_key(o, "kendall_tau");
            rr__out_f64(o, t->tau / n);
        }
        rr__out_end_object(o);
        return;
    }
    cli_progress("", 1, 1, 1);
    printf("%-18.18s %5zu   %6.4f   %6.4f   %6.4f   %6.4f", base_name(dir), t->n,
           t->first.ndcg10 / n, t->a.ndcg10 / n, t->a.mrr10 / n, t->a.recall10 / n);
    if (e->b.engine)
        printf("   %6.4f  %+7.4f [%+.4f, %+.4f]  %4zu %4zu  %.4f", t->b.ndcg10 / n,
               (t->b.ndcg10 - t->a.ndcg10) / n, lo, hi, t->top1, t->top10, t->tau / n);
    putchar('\n');
    fflush(stdout);
}

static void header(const eval *e) {
    printf("%-18s %5s   %6s   %-24s", "", "", "given", e->a.label);
    if (e->b.engine)
        printf("   %s", e->b.label);
    printf("\n%-18s %5s   %6s   %6s   %6s   %6s", "set", "query", "nDCG10", "nDCG10", "MRR10",
           "rec10");
    if (e->b.engine)
        printf("   %6s  %7s %-18s  %4s %4s  %s", "nDCG10", "change", "95 % interval", "top1", "t10",
               "tau");
    putchar('\n');
}

static rr_status run_all(eval *e, const cli_rest *dirs, rr_error *err) {
    rr__json_out o = {0};
    rr_status    s = RR_OK;

    if (e->json)
        rr__out_array(&o);
    else
        header(e);
    for (int i = 0; i < dirs->n && !s; i++) {
        beir  b;
        tally t = {.n = 0};

        s = beir_open(dirs->arg[i], (size_t)e->queries, (size_t)e->candidates, &b, err);
        if (s)
            break;
        e->done = 0;
        e->total = b.n_query;
        s = run_set(e, base_name(dirs->arg[i]), &b, &t, err);
        if (!s)
            report(e, dirs->arg[i], &t, &o);
        free(t.diff);
        beir_close(&b);
    }
    if (e->json && !s) {
        rr__out_end_array(&o);
        cli_put_json(stdout, &o);
    }
    rr__out_free(&o);
    return s;
}

int cmd_eval(int argc, char **argv) {
    eval           e = {.top = 10};
    const cli_flag flags[] = {
        {"queries", 0, CLI_INT, &e.queries, "N", "first N queries of each set (default all)", 0,
         1e9},
        {"candidates", 0, CLI_INT, &e.candidates, "N", "first N candidates a query (default all)",
         0, 1e9},
        {"compare", 0, CLI_TEXT, &e.compare, "B",
         "second column: precision, backend or backend:precision", 0, 0},
        {"per-query", 0, CLI_TEXT, &e.per_query, "FILE",
         "one JSON line a query: metrics, the best, what --compare changed", 0, 0},
        {"top", 0, CLI_INT, &e.top, "N", "documents of a query in --per-query (default 10)", 1,
         1 << 20},
        {"json", 0, CLI_BOOL, &e.json, NULL, "one JSON document", 0, 0},
    };
    const cli_command c = {
        "eval", "[options] DIR ...", summary, flags, sizeof flags / sizeof flags[0], &e.common,
        epilog};
    cli_rest  rest;
    rr_error  err = {0};
    rr_status s = RR_OK;
    int       code = cli_parse(&c, argc, argv, &rest);

    if (code >= 0)
        return code;
    if (!rest.n)
        return cli_fail("eval", EXIT_USAGE, "at least one DIR is needed; see rerank eval --help");
    if (e.per_query && !(e.detail = fopen(e.per_query, "w")))
        return cli_fail("eval", EXIT_FAILED, "%s: %s", e.per_query, strerror(errno));
    s = open_side(&e.a, &e.common, &err);
    if (!s && e.compare)
        s = open_second(&e, &err);
    if (!s)
        s = run_all(&e, &rest, &err);
    if (e.detail && fclose(e.detail) != 0 && !s)
        s = rr__fail(&err, RR_E_IO, "%s: %s", e.per_query, strerror(errno));
    if (!s)
        s = cli_flush(&err);
    rr_engine_close(e.a.engine);
    rr_engine_close(e.b.engine);
    rr_model_close(e.a.model);
    rr_model_close(e.b.model);
    return s ? cli_fail("eval", EXIT_FAILED, "%s", err.text) : EXIT_OK;
}
