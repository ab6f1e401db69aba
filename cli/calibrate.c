/* calibrate.c - rerank calibrate: activation scales from the user's own pairs. */
#include "cli.h"
#include "lines.h"
#include "plan.h"

#include "quant/quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char summary[] =
    "Runs pairs through the model in fp32, keeps a histogram of every matrix product's input, and\n"
    "writes the thresholds at which an 8-bit engine should clip. The file is read by\n"
    "--calibration of every command and by rerank export.";

static const char epilog[] =
    "Methods: max, percentile (--percentile, default 99.99), entropy (KL divergence), mse.\n"
    "--smooth A moves outlier channels of the inputs into the weights (SmoothQuant, 0.5 is "
    "usual).\n"
    "--per-token is for the cpu and cuda backends, which measure each row's scale as they go; of "
    "the\n"
    "file they then use smoothing and what is kept in float, while ONNX takes the thresholds all "
    "the\n"
    "same. In fp8 cuda takes no smoothing.\n"
    "--keep K leaves the K products in the base precision that change the logits most for what "
    "they\n"
    "save, each measured alone over --measured pairs. --max-ndcg-drop P looks for the fewest such\n"
    "products with which nDCG@10 over the folders DIR falls by at most P points.\n"
    "Example:\n"
    "  rerank calibrate --pairs pairs.jsonl -n 256 --method mse -o mini.cal.json\n"
    "  rerank calibrate --pairs pairs.jsonl --smooth 0.5 --per-token --max-ndcg-drop 0.2 \\\n"
    "      --queries 50 -o mini.cal.json models/mini/eval/xquad-en\n";

typedef struct calibrate {
    const char      *pairs, *output, *method, *format;
    int64_t          n, keep, measured;
    plan_budget      budget;
    double           percentile, smooth;
    int              per_token;
    cli_common       common;
    rr__collector   *collector;
    rr__calibration *cal;
    rr_status        status; /* of the callback */
    rr_error        *err;
} calibrate;

static void collect(void *user, const rr__activation *a) {
    calibrate *c = user;

    if (!c->status)
        c->status = rr__collector_add(c->collector, a->name, a->rows, a->cols, a->data, c->err);
}

/* One pass over all pairs. */
static rr_status show_all(calibrate *c, watch *w, const watch_pairs *p, int32_t max_tokens,
                          const char *what, rr_error *err) {
    int32_t  *cu = malloc(((size_t)p->n + 1) * sizeof *cu);
    float    *logits = malloc((size_t)p->n * sizeof *logits);
    rr_status s = cu && logits ? RR_OK : rr__fail(err, RR_E_NOMEM, "%d pairs", (int)p->n);

    for (int32_t i = 0; i < p->n && !s;) {
        rr__batch b = watch_batch(p, i, max_tokens, cu);

        s = w->backend->observe(w->instance, &b, logits, collect, c, err);
        if (!s)
            s = c->status;
        i += b.n_seq;
        cli_progress(what, (uint64_t)i, (uint64_t)p->n, 0);
    }
    cli_progress(what, 1, 1, 1);
    free(cu);
    free(logits);
    return s;
}

/* Noise of a product's input: quantization error over signal, both mean squares. */
static double noise(const rr__product_stats *p, rr__quant_format format, float amax) {
    double signal = 0;

    for (int i = 0; i < RR__QUANT_BINS; i++) {
        double v = (i + 0.5) * p->hist.width;

        signal += (double)p->hist.bin[i] * v * v;
    }
    return signal > 0 ? rr__hist_error(&p->hist, format, amax) * (double)p->hist.count / signal : 0;
}

static void print_table(const calibrate *c) {
    printf("%-10s %10s %10s %8s %12s %14s\n", "product", "max", "threshold", "kept", "noise/signal",
           "|logit change|");
    for (size_t i = 0; i < c->cal->n; i++) {
        const rr__calibrated *p = &c->cal->product[i];

        printf("%-10s %10.4g %10.4g %7.1f%% %12.3g", p->name, (double)p->max, (double)p->amax,
               100.0 * (double)(p->amax / p->max),
               noise(rr__collector_at(c->collector, i), c->cal->format, p->amax));
        if (p->sensitivity >= 0)
            printf(" %14.2g%s", p->sensitivity, p->keep_float ? "  kept in float" : "");
        putchar('\n');
    }
}

static rr_status finish(calibrate *c, const rr__model *m, const rr__quant_opts *o,
                        const watch_pairs *p, int32_t max_tokens, rr_error *err) {
    rr_status s = rr__calibrate(c->collector, o, &c->cal, err);

    if (s)
        return s;
    c->cal->per_token = c->per_token;
    c->cal->n_pair = p->n;
    c->cal->n_token = p->cu[p->n];
    snprintf(c->cal->model, sizeof c->cal->model, "%s", m->dir);
    rr__model_hash(m, c->cal->hash);
    if (c->keep > 0 || c->budget.n_dir > 0) {
        watch_pairs some = *p;

        some.n = p->n < (int32_t)c->measured ? p->n : (int32_t)c->measured;
        s = plan_measure(c->cal, m, &c->common, &some, max_tokens, err);
        if (!s && c->budget.n_dir > 0)
            s = plan_within(c->cal, m, &c->common, &c->budget, err);
        else if (!s)
            plan_keep(c->cal, m, (size_t)c->keep);
    }
    if (s)
        return s;
    print_table(c);
    return rr__calibration_write(c->cal, c->output, err);
}

static rr_status run(calibrate *c, const rr__quant_opts *o, rr_error *err) {
    int32_t    max_tokens = c->common.max_batch_tokens ? (int32_t)c->common.max_batch_tokens : 4096;
    rr__model *m = NULL;
    rr__tokenizer *t = NULL;
    watch          w = {.model = NULL};
    watch_pairs    pairs = {.n = 0};
    rr_status      s = watch_load(&c->common, c->pairs, (int32_t)c->n, &m, &t, &pairs, err);

    max_tokens = pairs.max_len > max_tokens ? pairs.max_len : max_tokens;
    if (!s)
        s = watch_open(&w, m, c->common.backend, &c->common, NULL, max_tokens, pairs.n, err);
    if (!s && !w.backend->observe)
        s = rr__fail(err, RR_E_UNSUPPORTED, "backend %s cannot show its activations",
                     w.backend->name);
    if (!s)
        s = rr__collector_open(m, &c->collector, err);
    if (!s)
        s = show_all(c, &w, &pairs, max_tokens, "calibrating", err);
    if (!s && c->smooth > 0) {
        s = rr__collector_smooth(c->collector, m, c->smooth, err);
        if (!s)
            s = show_all(c, &w, &pairs, max_tokens, "smoothing", err);
    }
    if (!s)
        s = finish(c, m, o, &pairs, max_tokens, err);
    rr__calibration_free(c->cal);
    rr__collector_close(c->collector);
    watch_close(&w);
    watch_pairs_free(&pairs);
    rr__tokenizer_close(t);
    rr__model_close(m);
    return s;
}

int cmd_calibrate(int argc, char **argv) {
    rr_error       err = {0};
    calibrate      c = {.n = 256,
                        .method = "mse",
                        .format = "int8",
                        .measured = 64,
                        .err = &err,
                        .budget.drop = -1};
    rr__quant_opts o = {0};
    int64_t        queries = 0, candidates = 0;
    const cli_flag flags[] = {
        {"pairs", 0, CLI_TEXT, &c.pairs, "FILE",
         "{\"query\", \"document\"} lines; - is standard input", 0, 0},
        {"output", 'o', CLI_TEXT, &c.output, "FILE", "the calibration file", 0, 0},
        {"n", 'n', CLI_INT, &c.n, "N", "pairs taken (default 256)", 1, 1e7},
        {"format", 0, CLI_TEXT, &c.format, "F", "int8 (default) or fp8", 0, 0},
        {"method", 0, CLI_TEXT, &c.method, "M", "max, percentile, entropy, mse (default)", 0, 0},
        {"percentile", 0, CLI_REAL, &c.percentile, "P",
         "for that method, in percent (default 99.99)", 50, 100},
        {"smooth", 0, CLI_REAL, &c.smooth, "A", "SmoothQuant exponent, 0 to 1 (default 0: none)", 0,
         0.999},
        {"per-token", 0, CLI_BOOL, &c.per_token, NULL,
         "let the engine scale each row by itself where it can", 0, 0},
        {"keep", 0, CLI_INT, &c.keep, "K", "products left in the base precision (default 0)", 0,
         1e6},
        {"measured", 0, CLI_INT, &c.measured, "N",
         "pairs each product's effect is measured over (default 64)", 1, 1e6},
        {"max-ndcg-drop", 0, CLI_REAL, &c.budget.drop, "P",
         "points of nDCG@10 that may be lost; needs DIR", 0, 100},
        {"queries", 0, CLI_INT, &queries, "N", "queries of each DIR (default: all)", 0, 1e9},
        {"candidates", 0, CLI_INT, &candidates, "N", "candidates a query (default: all)", 0, 1e6},
    };
    const cli_command command = {"calibrate",
                                 "--pairs FILE -o FILE [options] [DIR ...]",
                                 summary,
                                 flags,
                                 sizeof flags / sizeof flags[0],
                                 &c.common,
                                 epilog};
    cli_rest          rest;
    int               code = cli_parse(&command, argc, argv, &rest);

    if (code >= 0)
        return code;
    if (!c.pairs || !c.output)
        return cli_fail("calibrate", EXIT_USAGE,
                        "--pairs and -o are needed; see rerank calibrate --help");
    if ((c.budget.drop >= 0) != (rest.n > 0))
        return cli_fail("calibrate", EXIT_USAGE,
                        "--max-ndcg-drop and evaluation folders go together");
    c.budget.path = c.output;
    c.budget.dir = rest.arg;
    c.budget.n_dir = rest.n;
    c.budget.queries = (size_t)queries;
    c.budget.candidates = (size_t)candidates;
    o.method = rr__quant_method_parse(c.method);
    o.percentile = c.percentile;
    o.format = strcmp(c.format, "fp8") == 0 ? RR__QUANT_FP8 : RR__QUANT_INT8;
    if (o.method == RR__QUANT_N_METHOD)
        return cli_fail("calibrate", EXIT_USAGE,
                        "--method \"%s\" is none of max, percentile, entropy, mse", c.method);
    if (strcmp(c.format, rr__quant_format_name(o.format)) != 0)
        return cli_fail("calibrate", EXIT_USAGE, "--format \"%s\" is neither int8 nor fp8",
                        c.format);
    return run(&c, &o, &err) ? cli_fail("calibrate", EXIT_FAILED, "%s", err.text) : EXIT_OK;
}
