/* table.h - rerank bench --table: one request through everything that runs here, side by side.
 *
 * table.c fills the rows: ours from every backend of this build, those of other engines from the file
 * that bench/peers.py writes. table_report.c prints them. What did not run is a row that says why. */
#ifndef RR_CLI_TABLE_H
#define RR_CLI_TABLE_H

#include "watch.h"

#include "beir.h"

typedef struct table_row {
    char    engine[48], precision[16], device[128], why[256]; /* why: it did not run */
    double  mean, p50, p99;                                   /* ms a request        */
    double  error, ndcg; /* largest |logit - fp32|, nDCG@10; NAN = unknown        */
    int64_t batch;       /* pairs of the longest kind in one forward pass         */
} table_row;

typedef struct table {
    table_row  *row;
    size_t      n, cap;
    int64_t     docs, tokens, seed, pairs; /* of the request; pairs judged for the last columns */
    const char *model, *eval;              /* folders; eval may be NULL                         */
} table;

typedef struct table_opts {
    const cli_common *common;
    const int32_t    *ids, *cu; /* the request */
    int32_t           longest;  /* of the model */
    int64_t           docs, repeat, warmup, seconds, seed, queries, candidates;
    const char       *with, *work, *svg, *eval;
    cli_list          engines; /* of TensorRT, a row each */
    int               json, markdown;
} table_opts;

/* Fill and print the table, or write the work file and stop. */
rr_status table_run(const table_opts *o, rr_error *err);

void      table_text(const table *t);
void      table_markdown(const table *t);
void      table_json(const table *t);
rr_status table_svg(const table *t, const char *path, rr_error *err);

/* fp32 of ours, against which the others are held; NULL if it did not run. */
const table_row *table_base(const table *t);

#endif
