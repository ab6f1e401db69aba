/* demo.c - rerank demo: some queries of reranking sets, with what the model changed in the order it
 * was given. tools/demo.sh (make demo) calls it. */
#include "beir.h"
#include "cli.h"
#include "lines.h"
#include "metrics.h"
#include "options.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char summary[] =
    "Reranks the candidates of each query QUERY-ID of the set DIR (laid out as for rerank eval)\n"
    "and prints the best with the rank each had before.";

static const char epilog[] = "Example:\n"
                             "  rerank demo models/mini/eval/jaquad-dev:q16\n"
                             "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

typedef struct demo {
    int64_t    top_n;
    cli_common common;
    rr_model  *model;
    rr_engine *engine;
    size_t     docs, tokens; /* of all queries */
    int64_t    us;
} demo;

/* Colour is for terminals whose user did not object (no-color.org). */
static const char *paint(const char *code) {
    static int on = -1;

    if (on < 0)
        on = isatty(1) && !getenv("NO_COLOR");
    return on ? code : "";
}

#define BOLD  paint("\033[1m")
#define DIM   paint("\033[2m")
#define GREEN paint("\033[32m")
#define RED   paint("\033[31m")
#define PLAIN paint("\033[0m")

/* "▲22" for a document that rose by 22 ranks, in six columns. */
static void put_move(size_t from, size_t to) {
    size_t by = from > to ? from - to : to - from;

    if (by)
        printf("%s%s%-5zu%s", from > to ? GREEN : RED, from > to ? "▲" : "▼", by, PLAIN);
    else
        printf("%s=     %s", DIM, PLAIN);
}

static void put_row(const beir *b, const beir_query *q, size_t rank, size_t from, float logit) {
    enum { BAR = 10, BEFORE_TEXT = 36 };
    float p = rr_sigmoid(logit);
    int   judged = q->grade[from] > 0, text = cli_columns() - BEFORE_TEXT;

    printf("%3zu  ", rank + 1);
    cli_print_bar(stdout, p, BAR);
    printf(" %.3f  %4zu ", (double)p, from + 1);
    put_move(from, rank);
    printf("%s%s ", judged ? GREEN : "", judged ? "✓" : " ");
    cli_print_cell(stdout, b->doc[q->doc[from]].text, text);
    printf("%s\n", PLAIN);
}

/* Where the documents went that were among the best before and no longer are. */
static void put_fallen(const int32_t *order, size_t n, size_t shown) {
    int any = 0;

    for (size_t i = shown; i < n; i++) {
        if ((size_t)order[i] >= shown)
            continue;
        printf("%s%s%d → %zu", any ? ", " : "     fell from the best: ", any ? "" : RED,
               (int)order[i] + 1, i + 1);
        any = 1;
    }
    if (any)
        printf("%s\n", PLAIN);
}

static void put_query(demo *d, const char *set, const beir *b, const beir_query *q, rr_job *job,
                      const int32_t *order, int64_t us) {
    const float       *logit = rr_job_scores(job, NULL);
    const rr_doc_info *info = rr_job_docs(job, NULL);
    size_t             kept = 0, shown = (size_t)d->top_n < q->n_doc ? (size_t)d->top_n : q->n_doc;
    double             s = (double)us * 1e-6;

    printf("\n%s%.*s%s  %s(%s %.*s)%s\n", BOLD, (int)q->text.len, q->text.ptr, PLAIN, DIM, set,
           (int)q->id.len, q->id.ptr, PLAIN);
    printf("%s%3s  %-10s %-5s  %-4s %-6s  %s%s\n", DIM, "now", "score", "", "was", "moved",
           "passage (✓ = the judged answer)", PLAIN);
    for (size_t i = 0; i < q->n_doc; i++) {
        kept += (size_t)info[i].kept;
        if (i < shown || q->grade[order[i]] > 0) {
            if (i > shown)
                printf("%s  …%s\n", DIM, PLAIN);
            put_row(b, q, i, (size_t)order[i], logit[order[i]]);
        }
    }
    put_fallen(order, q->n_doc, shown);
    printf("%s     %zu passages, %zu tokens in %.0f ms: %.0f passages/s%s\n", DIM, q->n_doc, kept,
           s * 1e3, (double)q->n_doc / s, PLAIN);
    d->docs += q->n_doc;
    d->tokens += kept;
    d->us += us;
}

static const beir_query *find(const beir *b, const char *id) {
    for (size_t i = 0; i < b->n_query; i++)
        if (b->query[i].id.len == strlen(id) && memcmp(b->query[i].id.ptr, id, strlen(id)) == 0)
            return &b->query[i];
    return NULL;
}

static rr_status rerank(demo *d, const char *set, const beir *b, const beir_query *q,
                        rr_error *err) {
    rr_submit_opts opts = {.max_query = (int32_t)d->common.max_query};
    rr_str        *docs = malloc(q->n_doc * sizeof *docs);
    int32_t       *order = malloc(q->n_doc * sizeof *order);
    rr_job        *job = NULL;
    int64_t        start = rr_now_us();
    rr_status      s;

    if (!docs || !order) {
        s = rr__fail(err, RR_E_NOMEM, "%zu documents", q->n_doc);
        goto done;
    }
    for (size_t i = 0; i < q->n_doc; i++)
        docs[i] = b->doc[q->doc[i]].text;
    s = rr_submit(d->engine, q->text, docs, q->n_doc, &opts, NULL, NULL, &job, err);
    if (!s)
        s = rr_wait(job, err);
    if (!s) {
        int64_t us = rr_now_us() - start;

        metrics_rank(rr_job_scores(job, NULL), q->n_doc, order);
        put_query(d, set, b, q, job, order, us > 0 ? us : 1);
    }
done:
    if (job)
        rr_job_free(job);
    free(docs);
    free(order);
    return s;
}

/* One argument, DIR:ID. */
static rr_status run_one(demo *d, const char *arg, rr_error *err) {
    const char       *colon = strrchr(arg, ':'), *slash;
    const beir_query *q;
    char              dir[4096];
    beir              b;
    rr_status         s;

    if (!colon || (size_t)(colon - arg) >= sizeof dir)
        return rr__fail(err, RR_E_ARG, "\"%.100s\" is not DIR:QUERY-ID", arg);
    snprintf(dir, sizeof dir, "%.*s", (int)(colon - arg), arg);
    s = beir_open(dir, 0, 0, &b, err);
    if (s)
        return s;
    slash = strrchr(dir, '/');
    q = find(&b, colon + 1);
    s = q ? rerank(d, slash ? slash + 1 : dir, &b, q, err)
          : rr__fail(err, RR_E_ARG, "%s: no query \"%.100s\" with a relevant document", dir,
                     colon + 1);
    beir_close(&b);
    return s;
}

int cmd_demo(int argc, char **argv) {
    demo           d = {.top_n = 5};
    const cli_flag flags[] = {
        {"top-n", 'n', CLI_INT, &d.top_n, "N", "print the best N (default 5)", 1, 1e9},
    };
    const cli_command c = {"demo", "[options] DIR:QUERY-ID ...", summary, flags, 1, &d.common,
                           epilog};
    cli_rest          rest;
    rr_error          err = {0};
    rr_engine_info    info;
    rr_status         s;
    int               code = cli_parse(&c, argc, argv, &rest);

    if (code >= 0)
        return code;
    if (!rest.n)
        return cli_fail("demo", EXIT_USAGE, "at least one DIR:QUERY-ID is needed");
    setlocale(LC_CTYPE, "C.UTF-8");
    s = cli_open(&d.common, &d.model, &d.engine, &err);
    for (int i = 0; i < rest.n && !s; i++)
        s = run_one(&d, rest.arg[i], &err);
    if (!s) {
        rr_engine_describe(d.engine, &info);
        printf("\n%zu passages (%zu tokens) in %.2f s, %.0f passages/s on %s %s, %d threads\n",
               d.docs, d.tokens, (double)d.us * 1e-6, (double)d.docs / ((double)d.us * 1e-6),
               info.backend, info.precision, (int)info.threads);
        s = cli_flush(&err);
    }
    rr_engine_close(d.engine);
    rr_model_close(d.model);
    return s ? cli_fail("demo", EXIT_FAILED, "%s", err.text) : EXIT_OK;
}
