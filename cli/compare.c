/* compare.c - rerank compare: where two forward passes part, activation by activation.
 *
 * A is the reference. Its activations of one batch are kept in memory and B's are held against them
 * as they appear; either may be a file of tensors (tools/ort_observe.py writes one with ONNX
 * Runtime). Where B computes only the first token of each sequence in the last layer, its rows are
 * held against those tokens of A. */
#include "cli.h"
#include "compare_report.h"
#include "lines.h"
#include "plan.h"

#include "base/file.h"
#include "base/json_out.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char summary[] =
    "Runs the same pairs through A and B and compares every named activation: largest absolute\n"
    "difference, relative L2 error, least cosine of a token, worst token. Names the first one "
    "past\n"
    "the tolerance. A and B are backend:precision, a backend, a precision, or "
    "file:TENSORS.safetensors\n"
    "(tools/ort_observe.py writes one with ONNX Runtime, from --dump-ids).";

static const char epilog[] =
    "--bisect E says which products B must keep in its base precision for no logit to be further "
    "than\n"
    "E from A's: of that set none can go. B is then one that takes a calibration (cpu:int8); "
    "--plan\n"
    "writes the set as one, for --calibration.\n"
    "Examples:\n"
    "  rerank compare --a ref --b cpu:int8 --pairs pairs.jsonl --svg depth.svg\n"
    "  rerank compare --b cpu:int8 --pairs pairs.jsonl --bisect 0.05 --plan mini.cal.json\n"
    "Exit status: 0 within tolerance, 1 past it or failed, 2 wrong usage.\n";

/* A kept activation. */
typedef struct kept {
    char    name[32];
    int32_t rows, cols;
    float  *data;
} kept;

typedef struct comparison {
    const char *a, *b, *pairs, *svg, *html, *dump, *plan;
    int64_t     n_pairs, max_tokens;
    double      tolerance, bisect;
    int         json;
    cli_common  common;

    rr__batch batch;
    kept     *kept;
    size_t    n_kept, cap_kept;
    report    report;
    int       out_of_memory;
} comparison;

static void keep(void *user, const rr__activation *a) {
    comparison *c = user;
    size_t      bytes = (size_t)a->rows * (size_t)a->cols * sizeof *a->data;
    kept       *k;

    if (c->n_kept == c->cap_kept) {
        size_t cap = c->cap_kept ? 2 * c->cap_kept : 64;
        kept  *bigger = realloc(c->kept, cap * sizeof *bigger);

        if (!bigger) {
            c->out_of_memory = 1;
            return;
        }
        c->kept = bigger;
        c->cap_kept = cap;
    }
    k = &c->kept[c->n_kept];
    snprintf(k->name, sizeof k->name, "%s", a->name);
    k->rows = a->rows;
    k->cols = a->cols;
    k->data = malloc(bytes);
    if (!k->data) {
        c->out_of_memory = 1;
        return;
    }
    memcpy(k->data, a->data, bytes);
    c->n_kept++;
}

static const kept *find(const comparison *c, const char *name) {
    for (size_t i = 0; i < c->n_kept; i++)
        if (strcmp(c->kept[i].name, name) == 0)
            return &c->kept[i];
    return NULL;
}

/* Row r of a reference with one row a token, seen by a pass with n_seq rows: the first token. */
static int32_t reference_row(const comparison *c, const kept *k, int32_t rows, int32_t r) {
    if (k->rows == rows)
        return r;
    return k->rows == c->batch.n_tok && rows == c->batch.n_seq ? c->batch.cu[r] : -1;
}

static void hold_against(void *user, const rr__activation *b) {
    comparison *c = user;
    const kept *k = find(c, b->name);
    report_row *row;
    double      diff2 = 0, ref2 = 0, least_cos = 1, worst = -1;

    if (!k || k->cols != b->cols || reference_row(c, k, b->rows, 0) < 0)
        return;
    row = report_add(&c->report, b->name);
    if (!row) {
        c->out_of_memory = 1;
        return;
    }
    for (int32_t r = 0; r < b->rows; r++) {
        const float *y = b->data + (size_t)r * (size_t)b->cols;
        const float *x = k->data + (size_t)reference_row(c, k, b->rows, r) * (size_t)k->cols;
        double       d2 = 0, x2 = 0, y2 = 0, xy = 0, cosine;

        for (int32_t i = 0; i < b->cols; i++) {
            double d = (double)y[i] - x[i];

            if (!(fabs(d) <= row->max_abs)) /* also a NaN */
                row->max_abs = isnan(d) ? INFINITY : fabs(d);
            d2 += d * d;
            x2 += (double)x[i] * x[i];
            y2 += (double)y[i] * y[i];
            xy += (double)x[i] * y[i];
        }
        diff2 += d2;
        ref2 += x2;
        cosine = x2 > 0 && y2 > 0 ? xy / sqrt(x2 * y2) : 1;
        if (!(cosine >= least_cos))
            least_cos = isnan(cosine) ? -1 : cosine;
        if (!(d2 <= worst)) {
            worst = isnan(d2) ? INFINITY : d2;
            row->worst_row = reference_row(c, k, b->rows, r);
        }
    }
    row->relative = ref2 > 0 ? sqrt(diff2 / ref2) : sqrt(diff2);
    if (isnan(row->relative))
        row->relative = INFINITY;
    row->cosine = least_cos;
    row->per_token = k->rows == c->batch.n_tok;
}

/* The i-th activation that a pass of that many layers shows, or NULL behind the last. */
static const char *activation_name(int32_t n_layer, int32_t i, char out[32]) {
    const int32_t n = RR__N_LAYER_OUTPUT, head = n * n_layer + 1;

    if (i == 0)
        return "emb";
    if (i >= head)
        return i == head ? "head" : i == head + 1 ? "logits" : NULL;
    snprintf(out, 32, "%d.%s", (int)((i - 1) / n), rr__layer_output[(i - 1) % n]);
    return out;
}

/* Tensors of a file, F32 [rows, cols], in the order of a pass, as if a backend had shown them. */
static rr_status from_file(comparison *c, const char *path, rr__observe_fn fn, rr_error *err) {
    rr__file    file = {NULL, 0};
    rr__arena   arena = {0};
    rr__st      st;
    char        buf[32];
    const char *name;
    rr_status   s = rr__file_map(path, &file, err);

    if (!s)
        s = rr__st_parse(path, file.ptr, file.size, &arena, &st, err);
    for (int32_t i = 0; !s && (name = activation_name(c->report.n_layer, i, buf)); i++) {
        const rr__st_tensor *t = rr__st_find(&st, name);
        rr__activation       a = {.name = name, .cols = 1};
        float               *copy;

        if (!t || strcmp(t->dtype, "F32") != 0 || t->rank < 1 || t->rank > 2 ||
            t->shape[0] > INT32_MAX || (t->rank == 2 && t->shape[1] > INT32_MAX))
            continue;
        copy = malloc(t->bytes ? t->bytes : 1); /* aligned */
        if (!copy) {
            s = rr__fail(err, RR_E_NOMEM, "%s: %s", path, name);
            break;
        }
        memcpy(copy, t->data, t->bytes);
        a.rows = (int32_t)t->shape[0];
        a.cols = t->rank == 2 ? (int32_t)t->shape[1] : 1;
        a.data = copy;
        fn(c, &a);
        free(copy);
    }
    rr__arena_free(&arena);
    rr__file_unmap(&file);
    return s;
}

static rr_status observe(comparison *c, const char *what, const rr__model *m, rr__observe_fn fn,
                         char label[32], rr_error *err) {
    watch     w;
    float    *logits;
    rr_status s;

    if (strncmp(what, "file:", 5) == 0) {
        snprintf(label, 32, "%.31s", what + 5);
        s = from_file(c, what + 5, fn, err);
        goto done;
    }
    logits = malloc((size_t)c->batch.n_seq * sizeof *logits);
    s = logits ? watch_open(&w, m, what, &c->common, NULL, c->batch.n_tok, c->batch.n_seq, err)
               : rr__fail(err, RR_E_NOMEM, "%d logits", (int)c->batch.n_seq);

    if (!s) {
        snprintf(label, 32, "%s", w.label);
        if (w.backend->observe) {
            s = w.backend->observe(w.instance, &c->batch, logits, fn, c, err);
        } else { /* trt: what comes out is all there is to see */
            const rr__activation a = {"logits", c->batch.n_seq, 1, logits};

            s = w.backend->score(w.instance, &c->batch, logits, err);
            if (!s)
                fn(c, &a);
        }
        watch_close(&w);
    }
    free(logits);
done:
    if (!s && c->out_of_memory)
        s = rr__fail(err, RR_E_NOMEM, "activations of %d tokens", (int)c->batch.n_tok);
    return s;
}

/* The ids of the batch for tools/ort_observe.py: one line of numbers a sequence. */
static rr_status write_ids(const comparison *c, rr_error *err) {
    FILE *f = fopen(c->dump, "w");

    if (!f)
        return rr__fail(err, RR_E_IO, "%s: cannot be written", c->dump);
    for (int32_t i = 0; i < c->batch.n_seq; i++) {
        fprintf(f, "%d", (int)c->batch.seg[i]);
        for (int32_t t = c->batch.cu[i]; t < c->batch.cu[i + 1]; t++)
            fprintf(f, " %d", (int)c->batch.tok[t]);
        fputc('\n', f);
    }
    return fclose(f) == 0 ? RR_OK : rr__fail(err, RR_E_IO, "%s: cannot be written", c->dump);
}

/* ---- bisection --------------------------------------------------------------------------------- */

static void print_kept(const comparison *c, const rr__calibration *cal, double worst) {
    size_t n = 0;

    for (size_t i = 0; i < cal->n; i++)
        n += (size_t)cal->product[i].keep_float;
    printf("A %s, B %s, %d pairs, %d tokens\n", c->report.a, c->b, (int)c->batch.n_seq,
           (int)c->batch.n_tok);
    printf("%zu of %zu products in the base precision: largest logit difference %.3g of %.3g\n", n,
           cal->n, worst, c->bisect);
    for (size_t i = 0; i < cal->n; i++)
        if (cal->product[i].keep_float)
            printf("  %-10s alone changes a logit by %.2g\n", cal->product[i].name,
                   cal->product[i].sensitivity);
}

static void json_kept(const comparison *c, const rr__calibration *cal, double worst) {
    rr__json_out o = {0};

    rr__out_object(&o);
    rr__out_key(&o, "a");
    rr__out_cstr(&o, c->report.a);
    rr__out_key(&o, "b");
    rr__out_cstr(&o, c->b);
    rr__out_key(&o, "tolerance");
    rr__out_f64(&o, c->bisect);
    rr__out_key(&o, "largest");
    rr__out_f64(&o, worst);
    rr__out_key(&o, "products");
    rr__out_i64(&o, (int64_t)cal->n);
    rr__out_key(&o, "keep");
    rr__out_array(&o);
    for (size_t i = 0; i < cal->n; i++)
        if (cal->product[i].keep_float) {
            rr__out_object(&o);
            rr__out_key(&o, "name");
            rr__out_cstr(&o, cal->product[i].name);
            rr__out_key(&o, "sensitivity");
            rr__out_f64(&o, cal->product[i].sensitivity);
            rr__out_end_object(&o);
        }
    rr__out_end_array(&o);
    rr__out_end_object(&o);
    cli_put_json(stdout, &o);
    rr__out_free(&o);
}

/* A's logits are kept; which products does B need in its base precision? */
static rr_status bisect(comparison *c, const rr__model *m, const watch_pairs *pairs,
                        rr_error *err) {
    char               buf[64];
    const char        *backend, *precision;
    const rr__backend *be;
    rr__calibration   *cal = NULL;
    const kept        *logits = find(c, "logits");
    watch_pairs        some = *pairs;
    cli_common         common = c->common;
    double             worst = 0;
    rr_status          s;

    if (!logits || logits->rows != c->batch.n_seq || logits->cols != 1)
        return rr__fail(err, RR_E_ARG, "%s has no logits of these pairs", c->report.a);
    some.n = c->batch.n_seq;
    watch_split(c->b, buf, &backend, &precision);
    s = rr__backend_find(backend, &be, err);
    if (!s && (!precision || rr__precision_parse(precision) >= RR__N_PRECISION ||
               rr__backend_takes_calibration(be, rr__precision_parse(precision), NULL)))
        s = rr__fail(err, RR_E_UNSUPPORTED,
                     "--bisect needs a B that takes a calibration, such as cpu:int8, not %s", c->b);
    if (!s)
        s = rr__backend_calibration(be, rr__precision_parse(precision), m, common.calibration, &cal,
                                    err);
    if (!s && !cal && !(cal = rr__calibration_plain(m)))
        s = rr__fail(err, RR_E_NOMEM, "a plan of %d layers", (int)m->n_layer);
    common.backend = be ? be->name : NULL;
    if (!s)
        s = plan_bisect(cal, m, &common, &some, c->batch.n_tok, logits->data, c->bisect, &worst,
                        err);
    if (!s && c->json)
        json_kept(c, cal, worst);
    else if (!s)
        print_kept(c, cal, worst);
    if (!s && c->plan)
        s = rr__calibration_write(cal, c->plan, err);
    rr__calibration_free(cal);
    return s;
}

static rr_status run(comparison *c, rr_error *err) {
    rr__model     *m = NULL;
    rr__tokenizer *t = NULL;
    watch_pairs    pairs = {.n = 0};
    int32_t       *cu = NULL;
    rr_status      s = watch_load(&c->common, c->pairs, (int32_t)c->n_pairs, &m, &t, &pairs, err);

    if (!s && !(cu = malloc(((size_t)pairs.n + 1) * sizeof *cu)))
        s = rr__fail(err, RR_E_NOMEM, "%d pairs", (int)pairs.n);
    if (!s) {
        c->batch = watch_batch(&pairs, 0, (int32_t)c->max_tokens, cu);
        c->report.n_seq = c->batch.n_seq;
        c->report.n_tok = c->batch.n_tok;
        c->report.n_layer = m->n_layer;
        if (c->dump)
            s = write_ids(c, err);
    }
    if (!s)
        s = observe(c, c->a ? c->a : "ref", m, keep, c->report.a, err);
    if (c->bisect > 0) {
        if (!s)
            s = bisect(c, m, &pairs, err);
        goto done;
    }
    if (!s)
        s = observe(c, c->b, m, hold_against, c->report.b, err);
    if (!s && !c->report.n)
        s = rr__fail(err, RR_E_ARG, "no activation of B has a counterpart in A");
    if (!s) {
        report_finish(&c->report, c->tolerance, c->batch.cu);
        if (c->json)
            report_json(&c->report);
        else
            report_table(&c->report, t, &c->batch);
        if (c->svg)
            s = report_svg(&c->report, c->svg, err);
        if (!s && c->html)
            s = report_html(&c->report, t, &c->batch, c->html, err);
    }
done:
    for (size_t i = 0; i < c->n_kept; i++)
        free(c->kept[i].data);
    free(c->kept);
    free(cu);
    watch_pairs_free(&pairs);
    rr__tokenizer_close(t);
    rr__model_close(m);
    return s;
}

int cmd_compare(int argc, char **argv) {
    comparison     c = {.n_pairs = 16, .max_tokens = 4096, .tolerance = 0};
    const cli_flag flags[] = {
        {"a", 0, CLI_TEXT, &c.a, "A", "the reference (default ref)", 0, 0},
        {"b", 0, CLI_TEXT, &c.b, "B", "what is held against it", 0, 0},
        {"pairs", 0, CLI_TEXT, &c.pairs, "FILE",
         "{\"query\", \"document\"} lines; - is standard input", 0, 0},
        {"n", 'n', CLI_INT, &c.n_pairs, "N", "pairs taken (default 16)", 1, 1e6},
        {"max-tokens", 0, CLI_INT, &c.max_tokens, "N", "tokens taken (default 4096)", 1, 1 << 20},
        {"tolerance", 0, CLI_REAL, &c.tolerance, "R",
         "relative L2 error allowed (default by B's precision)", 0, 1e6},
        {"json", 0, CLI_BOOL, &c.json, NULL, "one JSON document", 0, 0},
        {"svg", 0, CLI_TEXT, &c.svg, "FILE", "plot of error by depth", 0, 0},
        {"html", 0, CLI_TEXT, &c.html, "FILE", "the plot over the table, as one page", 0, 0},
        {"bisect", 0, CLI_REAL, &c.bisect, "E", "find the products B must keep for logits within E",
         0, 1e6},
        {"plan", 0, CLI_TEXT, &c.plan, "FILE", "write what --bisect found as a calibration", 0, 0},
        {"dump-ids", 0, CLI_TEXT, &c.dump, "FILE",
         "write the batch's ids, for tools/ort_observe.py", 0, 0},
    };
    const cli_command command = {"compare", "--b B --pairs FILE [options]", summary,
                                 flags,     sizeof flags / sizeof flags[0], &c.common,
                                 epilog};
    cli_rest          rest;
    rr_error          err = {0};
    rr_status         s;
    int               code = cli_parse(&command, argc, argv, &rest), past;

    if (code >= 0)
        return code;
    if (rest.n || !c.b || !c.pairs)
        return cli_fail("compare", EXIT_USAGE,
                        "--b and --pairs are needed; see rerank compare --help");
    if (c.plan && !(c.bisect > 0))
        return cli_fail("compare", EXIT_USAGE, "--plan writes what --bisect finds");
    c.report.first_past = -1;
    s = run(&c, &err);
    past = c.report.first_past >= 0;
    report_free(&c.report);
    if (s)
        return cli_fail("compare", EXIT_FAILED, "%s", err.text);
    return past ? EXIT_FAILED : EXIT_OK;
}
