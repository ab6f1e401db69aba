/* compare_report.h - the findings of rerank compare, as table, JSON, plot and page. */
#ifndef RR_CLI_COMPARE_REPORT_H
#define RR_CLI_COMPARE_REPORT_H

#include "backend/backend.h"
#include "text/tokenizer.h"

typedef struct report_row {
    char    name[32];
    double  max_abs, relative, cosine; /* relative L2 over all rows; least cosine of a row */
    int32_t worst_row;                 /* of A: a token, or a sequence for head and logits */
    int32_t worst_seq, worst_pos;      /* where that token stands */
    int     per_token;
} report_row;

typedef struct report {
    char        a[32], b[32];
    int32_t     n_seq, n_tok, n_layer;
    double      tolerance;
    report_row *row; /* in the order of the forward pass */
    size_t      n, cap;
    long        first_past; /* row index, -1 = none */
} report;

/* A new row of that name, zeroed; NULL when out of memory. */
report_row *report_add(report *r, const char *name);
/* Find the first row past the tolerance (0 = what B's precision allows) and place worst tokens. */
void report_finish(report *r, double tolerance, const int32_t *cu);
void report_free(report *r);

void      report_table(const report *r, const rr__tokenizer *t, const rr__batch *b);
void      report_json(const report *r);
rr_status report_svg(const report *r, const char *path, rr_error *err);
/* The plot and the table in one page that needs nothing else. */
rr_status report_html(const report *r, const rr__tokenizer *t, const rr__batch *b, const char *path,
                      rr_error *err);

#endif
