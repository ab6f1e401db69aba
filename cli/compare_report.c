/* compare_report.c - see compare_report.h. */
#include "compare_report.h"
#include "lines.h"

#include "base/json_out.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

report_row *report_add(report *r, const char *name) {
    report_row *row;

    if (r->n == r->cap) {
        size_t      cap = r->cap ? 2 * r->cap : 64;
        report_row *bigger = realloc(r->row, cap * sizeof *bigger);

        if (!bigger)
            return NULL;
        r->row = bigger;
        r->cap = cap;
    }
    row = &r->row[r->n++];
    memset(row, 0, sizeof *row);
    snprintf(row->name, sizeof row->name, "%s", name);
    return row;
}

void report_free(report *r) {
    free(r->row);
    r->row = NULL;
}

/* Relative L2 error of an activation that rounding alone explains, seen over both test models. */
static double allowed(const char *b) {
    static const struct {
        const char *precision;
        double      relative;
    } by[] = {{":fp32", 1e-4}, {":fp16", 1e-2}, {":bf16", 4e-2}, {":int8", 2e-1}, {":fp8", 2e-1}};

    for (size_t i = 0; i < sizeof by / sizeof by[0]; i++)
        if (strstr(b, by[i].precision))
            return by[i].relative;
    return 1e-4;
}

void report_finish(report *r, double tolerance, const int32_t *cu) {
    r->tolerance = tolerance > 0 ? tolerance : allowed(r->b);
    r->first_past = -1;
    for (size_t i = 0; i < r->n; i++) {
        report_row *row = &r->row[i];

        if (r->first_past < 0 && !(row->relative <= r->tolerance))
            r->first_past = (long)i;
        row->worst_seq = row->worst_row;
        row->worst_pos = 0;
        if (row->per_token) {
            int32_t s = 0;

            while (s + 1 < r->n_seq && cu[s + 1] <= row->worst_row)
                s++;
            row->worst_seq = s;
            row->worst_pos = row->worst_row - cu[s];
        }
    }
}

void report_table(const report *r, const rr__tokenizer *t, const rr__batch *b) {
    printf("%s against %s: %d pairs, %d tokens, tolerance %.3g\n\n", r->b, r->a, (int)r->n_seq,
           (int)r->n_tok, r->tolerance);
    printf("%-14s %10s %10s %10s   %s\n", "activation", "max abs", "rel L2", "1 - cos",
           "worst token (pair, position)");
    for (size_t i = 0; i < r->n; i++) {
        const report_row *row = &r->row[i];
        rr_str            piece = {"", 0};

        if (row->per_token)
            piece = rr__tokenizer_piece(t, b->tok[row->worst_row]);
        printf("%-14s %10.3g %10.3g %10.3g   (%d, %d) %.*s%s\n", row->name, row->max_abs,
               row->relative, 1 - row->cosine, (int)row->worst_seq, (int)row->worst_pos,
               (int)piece.len, piece.ptr, (long)i == r->first_past ? "   <- first past" : "");
    }
    if (r->first_past >= 0)
        printf("\nfirst past the tolerance: %s\n", r->row[r->first_past].name);
    else
        printf("\nall within the tolerance\n");
}

void report_json(const report *r) {
    rr__json_out o = {0};

    rr__out_object(&o);
    rr__out_key(&o, "a");
    rr__out_cstr(&o, r->a);
    rr__out_key(&o, "b");
    rr__out_cstr(&o, r->b);
    rr__out_key(&o, "pairs");
    rr__out_i64(&o, r->n_seq);
    rr__out_key(&o, "tokens");
    rr__out_i64(&o, r->n_tok);
    rr__out_key(&o, "tolerance");
    rr__out_f64(&o, r->tolerance);
    rr__out_key(&o, "first_past");
    if (r->first_past >= 0)
        rr__out_cstr(&o, r->row[r->first_past].name);
    else
        rr__out_null(&o);
    rr__out_key(&o, "activations");
    rr__out_array(&o);
    for (size_t i = 0; i < r->n; i++) {
        const report_row *row = &r->row[i];

        rr__out_object(&o);
        rr__out_key(&o, "name");
        rr__out_cstr(&o, row->name);
        rr__out_key(&o, "max_abs");
        rr__out_f64(&o, row->max_abs);
        rr__out_key(&o, "relative_l2");
        rr__out_f64(&o, row->relative);
        rr__out_key(&o, "cosine");
        rr__out_f64(&o, row->cosine);
        rr__out_key(&o, "worst_pair");
        rr__out_i64(&o, row->worst_seq);
        rr__out_key(&o, "worst_position");
        rr__out_i64(&o, row->worst_pos);
        rr__out_end_object(&o);
    }
    rr__out_end_array(&o);
    rr__out_end_object(&o);
    cli_put_json(stdout, &o);
    rr__out_free(&o);
}

/* ---- plot ---------------------------------------------------------------------- */

enum { WIDTH = 760, HEIGHT = 360, LEFT = 70, TOP = 40, RIGHT = 120, BOTTOM = 50 };

static const struct {
    const char *role, *color;
} lines[] = {{"qkv", "#8e6bbf"}, {"ctx", "#2a9d8f"},     {"attn_out", "#e9a23b"},
             {"ln1", "#2867b2"}, {"ffn_mid", "#7a7a7a"}, {"ffn_out", "#d1495b"},
             {"ln2", "#111111"}};

/* The activation L.role, or NULL. */
static const report_row *find(const report *r, int layer, const char *role) {
    char name[32];

    snprintf(name, sizeof name, "%d.%s", layer, role);
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->row[i].name, name) == 0)
            return &r->row[i];
    return NULL;
}

static void put_title(FILE *f, const report *r) {
    cli_put_xml(f, (rr_str){r->b, strlen(r->b)});
    fputs(" against ", f);
    cli_put_xml(f, (rr_str){r->a, strlen(r->a)});
}

static void put_plot(FILE *f, const report *r) {
    double lo = 0, hi = -12; /* decades */
    int    layers = r->n_layer > 1 ? r->n_layer - 1 : 1;

    for (size_t i = 0; i < r->n; i++) {
        double v = log10(fmin(fmax(r->row[i].relative, 1e-12), 1e3));

        lo = fmin(lo, floor(v));
        hi = fmax(hi, ceil(v));
    }
    if (hi <= lo)
        hi = lo + 1;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
            "<text x=\"%d\" y=\"22\" font-size=\"14\">relative L2 error by layer: ",
            WIDTH, HEIGHT, LEFT);
    put_title(f, r);
    fputs("</text>\n", f);
#define X(layer)  (LEFT + (double)(layer) * (WIDTH - LEFT - RIGHT) / layers)
#define Y(decade) (TOP + (hi - (decade)) * (HEIGHT - TOP - BOTTOM) / (hi - lo))
    for (double d = lo; d <= hi; d++)
        fprintf(f,
                "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>"
                "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">1e%g</text>\n",
                LEFT, WIDTH - RIGHT, Y(d), Y(d), LEFT - 8, Y(d) + 4, d);
    fprintf(f,
            "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#c00\" "
            "stroke-dasharray=\"6 4\"/>\n",
            LEFT, WIDTH - RIGHT, Y(log10(r->tolerance)), Y(log10(r->tolerance)));
    for (int l = 0; l < r->n_layer; l += 1 + r->n_layer / 13)
        fprintf(f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d</text>\n", X(l),
                HEIGHT - BOTTOM + 18, l);
    fprintf(f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">layer</text>\n", X(layers / 2.0),
            HEIGHT - 12);
    for (size_t k = 0; k < sizeof lines / sizeof lines[0]; k++) {
        fprintf(f, "<polyline fill=\"none\" stroke-width=\"1.8\" stroke=\"%s\" points=\"",
                lines[k].color);
        for (int l = 0; l < r->n_layer; l++) {
            const report_row *row = find(r, l, lines[k].role);

            if (row)
                fprintf(f, "%.1f,%.1f ", X(l), Y(log10(fmin(fmax(row->relative, 1e-12), 1e3))));
        }
        fprintf(f, "\"/>\n<text x=\"%d\" y=\"%zu\" fill=\"%s\">%s</text>\n", WIDTH - RIGHT + 14,
                TOP + 14 + 18 * k, lines[k].color, lines[k].role);
    }
#undef X
#undef Y
    fputs("</svg>\n", f);
}

rr_status report_svg(const report *r, const char *path, rr_error *err) {
    FILE *f = fopen(path, "w");

    if (!f)
        return rr__fail(err, RR_E_IO, "%s: %s", path, strerror(errno));
    put_plot(f, r);
    return fclose(f) == 0 ? RR_OK : rr__fail(err, RR_E_IO, "%s: %s", path, strerror(errno));
}

rr_status report_html(const report *r, const rr__tokenizer *t, const rr__batch *b, const char *path,
                      rr_error *err) {
    FILE *f = fopen(path, "w");

    if (!f)
        return rr__fail(err, RR_E_IO, "%s: %s", path, strerror(errno));
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><title>", f);
    put_title(f, r);
    fputs("</title>\n<style>body{font-family:sans-serif;margin:2em}th,td{padding:2px "
          "12px;text-align:right}td:first-child,td:last-child{text-align:left}.past{color:#c00}"
          "</style></head>\n<body><h1>",
          f);
    put_title(f, r);
    fprintf(f, "</h1>\n<p>%d pairs, %d tokens, tolerance %.3g; first past it: %s</p>\n",
            (int)r->n_seq, (int)r->n_tok, r->tolerance,
            r->first_past >= 0 ? r->row[r->first_past].name : "none");
    put_plot(f, r);
    fputs("<table>\n<tr><th>activation</th><th>max abs</th><th>rel L2</th><th>1 - cos</th>"
          "<th>worst token (pair, position)</th></tr>\n",
          f);
    for (size_t i = 0; i < r->n; i++) {
        const report_row *row = &r->row[i];

        fprintf(f, "<tr%s><td>%s</td><td>%.3g</td><td>%.3g</td><td>%.3g</td><td>(%d, %d) ",
                row->relative <= r->tolerance ? "" : " class=\"past\"", row->name, row->max_abs,
                row->relative, 1 - row->cosine, (int)row->worst_seq, (int)row->worst_pos);
        if (row->per_token)
            cli_put_xml(f, rr__tokenizer_piece(t, b->tok[row->worst_row]));
        fputs("</td></tr>\n", f);
    }
    fputs("</table></body></html>\n", f);
    return fclose(f) == 0 ? RR_OK : rr__fail(err, RR_E_IO, "%s: %s", path, strerror(errno));
}
