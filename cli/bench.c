/* bench.c - rerank bench: how long one request of given lengths takes, per precision. */
#include "cli.h"
#include "lines.h"
#include "options.h"
#include "table.h"

#include "base/clock.h"
#include "base/json_out.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char summary[] =
    "Times requests of --docs sequences with random ids. Lengths come from --lengths or --length, "
    "or\n"
    "are lognormal around --mean (sigma 0.6, clipped to 24 .. max-length), the same for the same\n"
    "--seed. Several precisions (--precision fp32,bf16,int8) are measured in turn, in one run.\n"
    "--table measures every backend and precision of this build and sets other engines beside "
    "them.";

static const char epilog[] =
    "Other engines take part through a script, which reads the same token ids:\n"
    "  rerank bench --table --eval DIR --work work.json\n"
    "  python bench/peers.py work.json -o peers.json        # PyTorch, ONNX Runtime\n"
    "  rerank bench --table --eval DIR --with peers.json --svg table.svg\n"
    "(make bench-table does all three). What does not run here is a row that says why.\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

typedef struct bench {
    int64_t     docs, mean, length, seed, repeat, warmup;
    const char *lengths;
    int         json, table;
    table_opts  t;
    cli_common  common;
    int32_t    *ids, *cu;
    size_t      n_tok;
    double     *ms; /* [repeat] */
} bench;

static uint64_t next_random(uint64_t *state) { /* xorshift64* */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 2685821657736338717u;
}

static double uniform(uint64_t *state) {
    return ((double)(next_random(state) >> 11) + 0.5) / 9007199254740992.0;
}

static rr_status add_length(bench *b, int64_t i, double n, rr_error *err) {
    if (b->cu[i] > INT32_MAX - (int32_t)n)
        return rr__fail(err, RR_E_TOO_LARGE, "more than 2^31 tokens");
    b->cu[i + 1] = b->cu[i] + (int32_t)n;
    return RR_OK;
}

/* One whole number a line, at most as many documents as cu holds. */
static rr_status read_lengths(bench *b, int32_t limit, rr_error *err) {
    cli_lines l;
    rr_str    line;
    int64_t   n = 0;
    int       got = 0;
    rr_status s = cli_lines_open(&l, b->lengths, err);

    if (s)
        return s;
    while (!s && n < b->docs && (got = cli_lines_next(&l, &line, err)) > 0) {
        char     *end;
        long long v = strtoll(line.ptr, &end, 10);

        if (end == line.ptr || (size_t)(end - line.ptr) != line.len || v < 1 || v > limit)
            s = rr__fail(err, RR_E_FORMAT, "%s: line %llu: a length from 1 to %d is needed", l.name,
                         (unsigned long long)l.line, (int)limit);
        else
            s = add_length(b, n++, (double)v, err);
    }
    if (got < 0)
        s = err->status;
    if (!s && !n)
        s = rr__fail(err, RR_E_FORMAT, "%s: no lengths", l.name);
    b->docs = n;
    cli_lines_close(&l);
    return s;
}

static rr_status draw_lengths(bench *b, uint64_t *state, int32_t limit, rr_error *err) {
    /* the median that gives this mean: exp(mu + sigma^2 / 2) */
    double    mu = log((double)b->mean) - 0.6 * 0.6 / 2;
    rr_status s = RR_OK;

    for (int64_t i = 0; i < b->docs && !s; i++) {
        double n = b->length ? (double)b->length
                             : exp(mu + 0.6 * sqrt(-2 * log(uniform(state))) *
                                            cos(6.283185307179586 * uniform(state)));

        s = add_length(b, i, fmin(fmax(floor(n), b->length ? 1 : 24), limit), err);
    }
    return s;
}

static rr_status draw(bench *b, const rr_model_info *m, int32_t limit, rr_error *err) {
    uint64_t  state = (uint64_t)b->seed * 0x9e3779b97f4a7c15u + 1;
    rr_status s;

    b->cu = malloc(((size_t)b->docs + 1) * sizeof *b->cu);
    if (!b->cu)
        return rr__fail(err, RR_E_NOMEM, "%lld documents", (long long)b->docs);
    b->cu[0] = 0;
    s = b->lengths ? read_lengths(b, limit, err) : draw_lengths(b, &state, limit, err);
    if (s)
        return s;
    b->n_tok = (size_t)b->cu[b->docs];
    b->ids = malloc(b->n_tok * sizeof *b->ids);
    if (!b->ids)
        return rr__fail(err, RR_E_NOMEM, "%zu tokens", b->n_tok);
    for (size_t t = 0; t < b->n_tok; t++)
        b->ids[t] = 5 + (int32_t)(next_random(&state) % (uint64_t)(m->vocab_size - 6));
    for (int64_t i = 0; i < b->docs; i++)
        b->ids[b->cu[i]] = 0;
    return RR_OK;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double at(const bench *b, double q) {
    return b->ms[(size_t)fmin(floor(q * (double)b->repeat), (double)b->repeat - 1)];
}

static void report(const bench *b, const rr_engine_info *e, rr__json_out *o) {
    double sum = 0, p50 = at(b, 0.5);

    for (int64_t i = 0; i < b->repeat; i++)
        sum += b->ms[i];
    if (!b->json) {
        printf("%-5s %-5s %9.2f %9.2f %9.2f %12.0f %10.0f   %s\n", e->backend, e->precision, p50,
               at(b, 0.99), sum / (double)b->repeat, (double)b->n_tok / p50 * 1e3,
               (double)b->docs / p50 * 1e3, e->device);
        return;
    }
    rr__out_object(o);
    rr__out_key(o, "backend");
    rr__out_cstr(o, e->backend);
    rr__out_key(o, "precision");
    rr__out_cstr(o, e->precision);
    rr__out_key(o, "device");
    rr__out_cstr(o, e->device);
    rr__out_key(o, "docs");
    rr__out_i64(o, b->docs);
    rr__out_key(o, "tokens");
    rr__out_u64(o, b->n_tok);
    rr__out_key(o, "p50_ms");
    rr__out_f64(o, p50);
    rr__out_key(o, "p99_ms");
    rr__out_f64(o, at(b, 0.99));
    rr__out_key(o, "mean_ms");
    rr__out_f64(o, sum / (double)b->repeat);
    rr__out_key(o, "tokens_per_s");
    rr__out_f64(o, (double)b->n_tok / p50 * 1e3);
    rr__out_key(o, "pairs_per_s");
    rr__out_f64(o, (double)b->docs / p50 * 1e3);
    rr__out_end_object(o);
}

static rr_status run(bench *b, rr_engine *engine, rr_error *err) {
    for (int64_t i = -b->warmup; i < b->repeat; i++) {
        rr_job   *job;
        int64_t   start = rr__now_ns();
        rr_status s = rr_submit_ids(engine, b->ids, b->cu, NULL, (size_t)b->docs, NULL, NULL, NULL,
                                    &job, err);

        if (!s) {
            s = rr_wait(job, err);
            rr_job_free(job);
        }
        if (s)
            return s;
        if (i >= 0)
            b->ms[i] = (double)(rr__now_ns() - start) * 1e-6;
    }
    qsort(b->ms, (size_t)b->repeat, sizeof *b->ms, by_value);
    return RR_OK;
}

static rr_status one_precision(bench *b, rr__json_out *o, rr_error *err) {
    rr_model      *model;
    rr_engine     *engine;
    rr_model_info  m;
    rr_engine_info e;
    cli_common     side = cli_side(b->common);
    rr_status      s = cli_open(&side, &model, &engine, err);

    if (s)
        return s;
    rr_model_describe(model, &m);
    rr_engine_describe(engine, &e);
    if (!b->ids)
        s = draw(b, &m, e.max_length, err);
    if (!s)
        s = run(b, engine, err);
    if (!s)
        report(b, &e, o);
    rr_engine_close(engine);
    rr_model_close(model);
    return s;
}

static rr_status run_table(bench *b, rr_error *err) {
    rr_model     *model;
    rr_model_info m;
    rr_status     s = rr_model_open(cli_model_dir(&b->common), &model, err);

    if (s)
        return s;
    rr_model_describe(model, &m);
    s = draw(b, &m, m.max_length < 512 ? m.max_length : 512, err);
    rr_model_close(model);
    if (s)
        return s;
    b->t.common = &b->common;
    b->t.ids = b->ids;
    b->t.cu = b->cu;
    b->t.longest = m.max_length;
    b->t.docs = b->docs;
    b->t.repeat = b->repeat;
    b->t.warmup = b->warmup;
    b->t.seed = b->seed;
    b->t.json = b->json;
    return table_run(&b->t, err);
}

int cmd_bench(int argc, char **argv) {
    bench          b = {.mean = 180,
                        .seed = 1,
                        .repeat = 10,
                        .warmup = 2,
                        .t = {.seconds = 20, .queries = 10, .candidates = 20}};
    const cli_flag flags[] = {
        {"docs", 0, CLI_INT, &b.docs, "N",
         "documents in a request (default 100, or the lines of --lengths)", 1, 1e6},
        {"mean", 0, CLI_INT, &b.mean, "N", "mean tokens of a pair (default 180)", 1, 1e6},
        {"length", 0, CLI_INT, &b.length, "N", "every pair has exactly N tokens", 0, 1e6},
        {"lengths", 0, CLI_TEXT, &b.lengths, "FILE", "tokens of each pair, one number a line", 0,
         0},
        {"seed", 0, CLI_INT, &b.seed, "N", "of lengths and ids (default 1)", 0, 1e15},
        {"repeat", 0, CLI_INT, &b.repeat, "N", "timed requests (default 10)", 1, 1e6},
        {"warmup", 0, CLI_INT, &b.warmup, "N", "requests before them (default 2)", 0, 1e6},
        {"precision", 0, CLI_WORDS, &b.common.precision, CLI_PRECISIONS,
         "one or several, with commas (default auto)", 0, 0},
        {"table", 0, CLI_BOOL, &b.table, NULL, "everything that runs here, side by side", 0, 0},
        {"seconds", 0, CLI_INT, &b.t.seconds, "N",
         "with --table: at most for the requests of a row (default 20)", 1, 86400},
        {"eval", 0, CLI_TEXT, &b.t.eval, "DIR",
         "with --table: judge logits and nDCG@10 on this BEIR folder", 0, 0},
        {"queries", 0, CLI_INT, &b.t.queries, "N", "of --eval (default 10)", 1, 1e6},
        {"candidates", 0, CLI_INT, &b.t.candidates, "N", "of each query (default 20)", 1, 1e5},
        {"work", 0, CLI_TEXT, &b.t.work, "FILE", "with --table: write what peers run, and stop", 0,
         0},
        {"with", 0, CLI_TEXT, &b.t.with, "FILE", "with --table: rows that bench/peers.py wrote", 0,
         0},
        {"engine", 0, CLI_LIST, &b.t.engines, "FILE",
         "TensorRT engine of rerank build; --table takes several", 0, 0},
        {"markdown", 0, CLI_BOOL, &b.t.markdown, NULL, "the table as Markdown", 0, 0},
        {"svg", 0, CLI_TEXT, &b.t.svg, "FILE", "with --table: a plot of pairs a second", 0, 0},
        {"json", 0, CLI_BOOL, &b.json, NULL, "one JSON document", 0, 0},
    };
    const cli_command c = {"bench",   "[options]", summary, flags, sizeof flags / sizeof flags[0],
                           &b.common, epilog};
    char              list[128], *save = NULL;
    cli_rest          rest;
    rr_error          err = {0};
    rr_status         s = RR_OK;
    rr__json_out      o = {0};
    int               code = cli_parse(&c, argc, argv, &rest);

    if (code >= 0)
        return code;
    if (rest.n)
        return cli_fail("bench", EXIT_USAGE, "unexpected \"%s\"", rest.arg[0]);
    if (!b.table && (b.t.eval || b.t.work || b.t.with || b.t.svg || b.t.markdown))
        return cli_fail("bench", EXIT_USAGE,
                        "--eval, --work, --with, --svg and --markdown are of --table");
    if (!b.table && b.t.engines.n > 1)
        return cli_fail("bench", EXIT_USAGE, "--engine: several are for --table");
    if (!b.table && b.t.engines.n)
        b.common.engine = b.t.engines.item[0];
    if (!b.docs)
        b.docs = b.lengths ? 1000000 : 100;
    b.ms = malloc((size_t)b.repeat * sizeof *b.ms);
    if (!b.ms)
        return cli_fail("bench", EXIT_FAILED, "out of memory");
    if (b.table) {
        s = run_table(&b, &err);
        goto done;
    }
    snprintf(list, sizeof list, "%s", b.common.precision ? b.common.precision : "auto");
    if (b.json)
        rr__out_array(&o);
    else
        printf("%-5s %-5s %9s %9s %9s %12s %10s\n", "", "", "p50 ms", "p99 ms", "mean ms",
               "tokens/s", "pairs/s");
    for (char *p = strtok_r(list, ",", &save); p && !s; p = strtok_r(NULL, ",", &save)) {
        b.common.precision = p;
        s = one_precision(&b, &o, &err);
    }
    if (!s && !b.json)
        printf("%lld documents, %zu tokens (seed %lld), %lld requests each\n", (long long)b.docs,
               b.n_tok, (long long)b.seed, (long long)b.repeat);
    if (!s && b.json) {
        rr__out_end_array(&o);
        cli_put_json(stdout, &o);
    }
done:
    if (!s)
        s = cli_flush(&err);
    rr__out_free(&o);
    free(b.ids);
    free(b.cu);
    free(b.ms);
    return s ? cli_fail("bench", EXIT_FAILED, "%s", err.text) : EXIT_OK;
}
