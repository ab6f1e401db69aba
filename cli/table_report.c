/* table_report.c - the table of rerank bench --table as text, Markdown, JSON and a plot. */
#include "lines.h"
#include "table.h"

#include "base/json_out.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const table_row *table_base(const table *t) {
    for (size_t i = 0; i < t->n; i++)
        if (strncmp(t->row[i].engine, "rerank.c", 8) == 0 &&
            strcmp(t->row[i].precision, "fp32") == 0 && !t->row[i].why[0])
            return &t->row[i];
    return NULL;
}

/* What every speed is a multiple of: the slowest that ran. */
static double slowest(const table *t) {
    double most = 0;

    for (size_t i = 0; i < t->n; i++)
        if (!t->row[i].why[0] && t->row[i].p50 > most)
            most = t->row[i].p50;
    return most;
}

static double per_second(const table *t, const table_row *r) {
    return (double)t->docs / r->p50 * 1e3;
}

/* Change of nDCG@10 in points, as text; "" where unknown. */
static void ndcg_change(const table *t, const table_row *r, char out[16]) {
    const table_row *base = table_base(t);

    out[0] = '\0';
    if (base && r != base && !isnan(r->ndcg) && !isnan(base->ndcg))
        snprintf(out, 16, "%+.2f", 100 * (r->ndcg - base->ndcg));
}

static void error_text(const table_row *r, char out[16]) {
    out[0] = '\0';
    if (!isnan(r->error))
        snprintf(out, 16, "%.2g", r->error);
}

static void print_rows(const table *t, const char *head, const char *ran, const char *missing) {
    fputs(head, stdout);
    for (size_t i = 0; i < t->n; i++) {
        const table_row *r = &t->row[i];
        char             ndcg[16], error[16], batch[24] = "";

        if (r->why[0]) {
            printf(missing, r->engine, r->precision, r->why);
            continue;
        }
        ndcg_change(t, r, ndcg);
        error_text(r, error);
        if (r->batch)
            snprintf(batch, sizeof batch, "%lld", (long long)r->batch);
        printf(ran, r->engine, r->precision, r->mean, r->p50, r->p99, batch, per_second(t, r),
               slowest(t) / r->p50, error, ndcg);
    }
}

static void print_about(const table *t) {
    const table_row *seen = NULL;

    printf(
        "rerank.c %s. Model %s; a request is %lld pairs, %lld tokens (seed %lld). Batch: pairs "
        "in one pass, of\nrerank.c and TensorRT the most of the longest kind, of others the size "
        "they are fastest with;\nspeed-up: over the slowest by p50; error: largest difference of "
        "a logit from rerank.c's fp32",
        rr_version(), t->model, (long long)t->docs, (long long)t->tokens, (long long)t->seed);
    if (t->eval)
        printf(", over %lld pairs of\n%s, as is the change of nDCG@10 in points.\n",
               (long long)t->pairs, t->eval);
    else
        printf("; it and nDCG@10 need\n--eval DIR.\n");
    for (size_t i = 0; i < t->n; i++) {
        const table_row *r = &t->row[i];

        if (!r->device[0] || (seen && strcmp(seen->device, r->device) == 0))
            continue;
        printf("%s: %s\n", r->engine, r->device);
        seen = r;
    }
}

void table_text(const table *t) {
    printf("%-26s %-5s %9s %9s %9s %6s %9s %8s %8s %8s\n", "", "", "mean ms", "p50 ms", "p99 ms",
           "batch", "pairs/s", "speed-up", "error", "nDCG");
    print_rows(t, "", "%-26s %-5s %9.2f %9.2f %9.2f %6s %9.0f %7.2fx %8s %8s\n", "%-26s %-5s %s\n");
    print_about(t);
}

void table_markdown(const table *t) {
    print_rows(t,
               "| engine | precision | mean ms | p50 ms | p99 ms | batch | pairs/s | speed-up | "
               "logit error | nDCG@10 |\n|---|---|---|---|---|---|---|---|---|---|\n",
               "| %s | %s | %.2f | %.2f | %.2f | %s | %.0f | %.2fx | %s | %s |\n",
               "| %s | %s | %s | | | | | | | |\n");
    putchar('\n');
    print_about(t);
}

void table_json(const table *t) {
    rr__json_out o = {0};

    rr__out_object(&o);
    rr__out_key(&o, "version");
    rr__out_cstr(&o, rr_version());
    rr__out_key(&o, "model");
    rr__out_cstr(&o, t->model);
    rr__out_key(&o, "docs");
    rr__out_i64(&o, t->docs);
    rr__out_key(&o, "tokens");
    rr__out_i64(&o, t->tokens);
    rr__out_key(&o, "seed");
    rr__out_i64(&o, t->seed);
    rr__out_key(&o, "judged_pairs");
    rr__out_i64(&o, t->pairs);
    rr__out_key(&o, "rows");
    rr__out_array(&o);
    for (size_t i = 0; i < t->n; i++) {
        const table_row *r = &t->row[i];
        const struct {
            const char *key;
            double      value;
        } field[] = {{"mean_ms", r->mean},
                     {"p50_ms", r->p50},
                     {"p99_ms", r->p99},
                     {"pairs_per_s", per_second(t, r)},
                     {"speed_up", slowest(t) / r->p50},
                     {"logit_error", r->error},
                     {"ndcg10", r->ndcg}};

        rr__out_object(&o);
        rr__out_key(&o, "engine");
        rr__out_cstr(&o, r->engine);
        rr__out_key(&o, "precision");
        rr__out_cstr(&o, r->precision);
        if (r->why[0]) {
            rr__out_key(&o, "why");
            rr__out_cstr(&o, r->why);
            rr__out_end_object(&o);
            continue;
        }
        rr__out_key(&o, "device");
        rr__out_cstr(&o, r->device);
        rr__out_key(&o, "batch");
        rr__out_i64(&o, r->batch);
        for (size_t k = 0; k < sizeof field / sizeof field[0]; k++)
            if (isfinite(field[k].value)) {
                rr__out_key(&o, field[k].key);
                rr__out_f64(&o, field[k].value);
            }
        rr__out_end_object(&o);
    }
    rr__out_end_array(&o);
    rr__out_end_object(&o);
    cli_put_json(stdout, &o);
    rr__out_free(&o);
}

/* ---- plot ------------------------------------------------------------------------------------ */

enum { WIDTH = 760, LEFT = 240, RIGHT = 90, TOP = 44, STEP = 26 };

rr_status table_svg(const table *t, const char *path, rr_error *err) {
    FILE  *f = fopen(path, "w");
    double most = 0;
    int    y = TOP;
    size_t ran = 0;

    if (!f)
        return rr__fail(err, RR_E_IO, "%s: %s", path, strerror(errno));
    for (size_t i = 0; i < t->n; i++)
        if (!t->row[i].why[0]) {
            most = fmax(most, per_second(t, &t->row[i]));
            ran++;
        }
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%zu\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<style>text{fill:#222}.o{fill:#2867b2}.p{fill:#9aa0a6}"
            "@media(prefers-color-scheme:dark){text{fill:#ddd}.o{fill:#6ea8e8}}</style>\n"
            "<text x=\"12\" y=\"24\" font-size=\"14\">pairs a second, requests of %lld pairs, %lld "
            "tokens</text>\n",
            WIDTH, TOP + STEP * ran + 10, (long long)t->docs, (long long)t->tokens);
    for (size_t i = 0; i < t->n; i++) {
        const table_row *r = &t->row[i];
        const double     w = most > 0 ? per_second(t, r) / most * (WIDTH - LEFT - RIGHT) : 0;

        if (r->why[0])
            continue;
        fprintf(f, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">", LEFT - 8, y + 14);
        cli_put_xml(f, (rr_str){r->engine, strlen(r->engine)});
        fputc(' ', f);
        cli_put_xml(f, (rr_str){r->precision, strlen(r->precision)});
        fprintf(f,
                "</text><rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"18\"/>"
                "<text x=\"%.1f\" y=\"%d\">%.0f</text>\n",
                strncmp(r->engine, "rerank.c", 8) == 0 ? "o" : "p", LEFT, y, w, LEFT + w + 6,
                y + 14, per_second(t, r));
        y += STEP;
    }
    fputs("</svg>\n", f);
    return fclose(f) == 0 ? RR_OK : rr__fail(err, RR_E_IO, "%s: %s", path, strerror(errno));
}
