/* table.c - see table.h. */
#include "table.h"

#include "lines.h"
#include "trt.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 256, MAX_TIMES = 100000 };

/* What all engines are shown beside the request: the pairs of an evaluation folder. */
typedef struct judged {
    beir        set;
    watch_pairs pairs;
    float      *exact; /* [pairs.n] fp32 logits of ours, once they are there */
} judged;

static table_row *add_row(table *t, const char *engine, const char *precision) {
    table_row *r;

    if (t->n == t->cap) {
        const size_t cap = t->cap ? 2 * t->cap : 16;
        table_row   *bigger = realloc(t->row, cap * sizeof *bigger);

        if (!bigger)
            return NULL;
        t->row = bigger;
        t->cap = cap;
    }
    r = &t->row[t->n++];
    *r = (table_row){.error = NAN, .ndcg = NAN};
    snprintf(r->engine, sizeof r->engine, "%s", engine);
    snprintf(r->precision, sizeof r->precision, "%s", precision);
    return r;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void set_times(table_row *r, double *ms, size_t n) {
    double sum = 0;

    qsort(ms, n, sizeof *ms, by_value);
    for (size_t i = 0; i < n; i++)
        sum += ms[i];
    r->mean = sum / (double)n;
    r->p50 = ms[(n - 1) / 2];
    r->p99 = ms[(size_t)ceil(0.99 * (double)n) - 1];
}

/* ---- judged pairs ---------------------------------------------------------------------------- */

static rr_status judged_open(judged *j, const table_opts *o, rr_error *err) {
    rr__tokenizer *t = NULL;
    rr__pair_opts  pair;
    rr_status      s;

    if (!o->eval)
        return RR_OK;
    s = beir_open(o->eval, (size_t)o->queries, (size_t)o->candidates, &j->set, err);
    if (!s)
        s = rr__tokenizer_open(cli_model_dir(o->common), &t, err);
    watch_policy(o->common, o->longest, &pair);
    for (size_t i = 0; i < j->set.n_query && !s; i++) {
        const beir_query *q = &j->set.query[i];

        for (size_t k = 0; k < q->n_doc && !s; k++)
            s = watch_add(&j->pairs, t, q->text, j->set.doc[q->doc[k]].text, &pair, err);
    }
    rr__tokenizer_close(t);
    if (!s && !(j->exact = malloc(((size_t)j->pairs.n + 1) * sizeof *j->exact)))
        s = rr__fail(err, RR_E_NOMEM, "%d pairs", (int)j->pairs.n);
    return s;
}

static void judged_close(judged *j, const table_opts *o) {
    if (o->eval)
        beir_close(&j->set);
    watch_pairs_free(&j->pairs);
    free(j->exact);
}

static void judge(const table *t, const judged *j, table_row *r, const float *logits) {
    double sum = 0;

    if (!j->pairs.n)
        return;
    r->ndcg = beir_ndcg10(&j->set, logits, &sum, NULL) ? NAN : sum / (double)j->set.n_query;
    if (r != table_base(t) && table_base(t)) {
        r->error = 0;
        for (int32_t i = 0; i < j->pairs.n; i++) {
            const double d = fabs((double)logits[i] - j->exact[i]);

            r->error = d <= r->error ? r->error : isnan(d) ? INFINITY : d;
        }
    }
}

/* ---- our rows -------------------------------------------------------------------------------- */

static rr_status score(rr_engine *e, const int32_t *ids, const int32_t *cu, const int32_t *seg,
                       int64_t n, float *out, rr_error *err) {
    rr_job   *job;
    rr_status s = rr_submit_ids(e, ids, cu, seg, (size_t)n, NULL, NULL, NULL, &job, err);

    if (s)
        return s;
    s = rr_wait(job, err);
    if (!s && out)
        memcpy(out, rr_job_scores(job, NULL), (size_t)n * sizeof *out);
    rr_job_free(job);
    return s;
}

static rr_status measure(rr_engine *e, const table_opts *o, table_row *r, rr_error *err) {
    double   *ms = malloc((size_t)o->repeat * sizeof *ms);
    int64_t   begin, n = 0;
    rr_status s = ms ? RR_OK : rr__fail(err, RR_E_NOMEM, "%lld times", (long long)o->repeat);

    for (int64_t i = 0; i < o->warmup && !s; i++)
        s = score(e, o->ids, o->cu, NULL, o->docs, NULL, err);
    begin = rr__now_ns();
    while (!s && n < o->repeat && rr__now_ns() - begin < o->seconds * 1000000000ll) {
        const int64_t start = rr__now_ns();

        s = score(e, o->ids, o->cu, NULL, o->docs, NULL, err);
        ms[n++] = (double)(rr__now_ns() - start) * 1e-6;
        cli_progress(r->precision, (uint64_t)n, (uint64_t)o->repeat, 0);
    }
    cli_progress(r->precision, 1, 1, 1);
    if (!s)
        set_times(r, ms, (size_t)n);
    free(ms);
    return s;
}

/* A failure of one engine is its row's reason; only being out of memory ends the table. engine is
 * TensorRT's file, else NULL; its precision is its own. */
static rr_status our_row(table *t, judged *j, const table_opts *o, const char *backend,
                         const char *precision, const char *engine, rr_error *err) {
    cli_common     side = *o->common;
    rr_model      *model = NULL;
    rr_engine     *opened = NULL;
    rr_engine_info info;
    float         *logits = malloc(((size_t)j->pairs.n + 1) * sizeof *logits);
    char           name[48];
    table_row     *r;
    rr_status      s;

    snprintf(name, sizeof name, "%s%s", engine ? "" : "rerank.c ", engine ? "TensorRT" : backend);
    r = add_row(t, name, precision ? precision : "");
    if (!r || !logits) {
        free(logits);
        return rr__fail(err, RR_E_NOMEM, "a table of %zu rows", t->n);
    }
    side.backend = backend;
    side.precision = precision;
    side.engine = engine;
    side.calibration = engine ? NULL : side.calibration; /* it holds its own */
    side = cli_side(side);
    s = cli_open(&side, &model, &opened, err);
    if (!s) {
        int32_t longest = 1;

        for (int64_t i = 0; i < o->docs; i++)
            longest = o->cu[i + 1] - o->cu[i] > longest ? o->cu[i + 1] - o->cu[i] : longest;
        rr_engine_describe(opened, &info);
        snprintf(r->precision, sizeof r->precision, "%s", info.precision);
        snprintf(r->device, sizeof r->device, "%s", info.device);
        r->batch = info.max_batch_tokens / longest;
        s = measure(opened, o, r, err);
    }
    if (!s && j->pairs.n)
        s = score(opened, j->pairs.ids.id, j->pairs.cu, j->pairs.seg, j->pairs.n, logits, err);
    if (s)
        snprintf(r->why, sizeof r->why, "%s", err->text);
    else if (j->pairs.n && r == table_base(t))
        memcpy(j->exact, logits, (size_t)j->pairs.n * sizeof *logits);
    if (!s)
        judge(t, j, r, logits);
    free(logits);
    rr_engine_close(opened);
    rr_model_close(model);
    return RR_OK;
}

static rr_status missing_row(table *t, const char *engine, const char *precision, const char *why,
                             rr_error *err) {
    table_row *r = add_row(t, engine, precision);

    if (!r)
        return rr__fail(err, RR_E_NOMEM, "a table of %zu rows", t->n);
    snprintf(r->why, sizeof r->why, "%s", why);
    return RR_OK;
}

/* A row for each engine given; fp16 and int8 are always there, if only to say what is missing. */
static rr_status trt_rows(table *t, judged *j, const table_opts *o, rr_error *err) {
    static const char *const usual[] = {"fp16", "int8"};
    const size_t             first = t->n;
    rr_error                 why = {0};
    char                     text[256];
    rr_status                s = trt_lib(o->common, err);

    for (int i = 0; i < o->engines.n && !s; i++) {
        rr__trt_manifest m;

        if (rr__trt_manifest_read(o->engines.item[i], &m, &why) != RR_OK)
            s = missing_row(t, "TensorRT", "", why.text, err);
        else
            s = our_row(t, j, o, "trt", m.precision, o->engines.item[i], err);
    }
    for (int k = 0; k < 2 && !s; k++) {
        int there = 0;

        for (size_t i = first; i < t->n; i++)
            there |= strcmp(t->row[i].precision, usual[k]) == 0;
        if (there)
            continue;
        if (rr_backend_probe("trt", &why) == RR_OK)
            snprintf(text, sizeof text,
                     "no engine: rerank build --precision %s, then --engine FILE", usual[k]);
        else
            snprintf(text, sizeof text, "%s", why.text);
        s = missing_row(t, "TensorRT", usual[k], text, err);
    }
    return s;
}

static rr_status our_rows(table *t, judged *j, const table_opts *o, rr_error *err) {
    static const char *const backends[] = {"cpu", "cuda"};
    static const char *const precisions[] = {"fp32", "fp16", "bf16", "int8", "fp8"};
    const char              *only = o->common->backend;
    rr_status                s = RR_OK;

    for (int i = 0; i < 2 && !s; i++) {
        const rr__backend *b;
        rr_error           why = {0};

        if (only && strcmp(only, backends[i]) != 0)
            continue;
        if (rr__backend_find(backends[i], &b, &why)) {
            char name[48];

            snprintf(name, sizeof name, "rerank.c %s", backends[i]);
            s = missing_row(t, name, "", why.text, err);
            continue;
        }
        for (int k = 0; k < 5 && !s; k++)
            if (b->precisions & 1u << rr__precision_parse(precisions[k]))
                s = our_row(t, j, o, backends[i], precisions[k], NULL, err);
    }
    if (!s && (!only || strcmp(only, "trt") == 0))
        s = trt_rows(t, j, o, err);
    return s;
}

/* ---- other engines --------------------------------------------------------------------------- */

/* A name or reason for terminals, Markdown and XML alike: what is not printable ASCII, and '|', is
 * shown as '?', so that no escape sequence, row end or cut UTF-8 gets through. */
static void text_of(rr__json *js, char *out, size_t size) {
    rr_str s;

    if (!rr__json_string(js, &s))
        return;
    snprintf(out, size, "%.*s", (int)(s.len < size ? s.len : size), s.ptr);
    for (; *out; out++)
        if (*out < ' ' || *out > '~' || *out == '|')
            *out = '?';
}

/* Up to max finite numbers into v; how many there were. */
static size_t numbers(rr__json *js, double *v, size_t max) {
    size_t n = 0;

    rr__json_array(js);
    while (rr__json_next(js)) {
        double x = 0;

        if (!rr__json_f64(js, &x))
            return 0;
        if (n == max) {
            rr__json_error(js, "too many numbers");
            return 0;
        }
        v[n++] = x;
    }
    return n;
}

/* One row of bench/peers.py: {"engine", "precision", "device", "batch", "ms": [...], "logits": [...]}
 * or {"engine", "precision", "why"}. ms has room for MAX_TIMES, x for one more than the pairs. */
static void peer(rr__json *js, table *t, const judged *j, double *ms, double *x) {
    table_row *r = t->n < MAX_ROWS ? add_row(t, "", "") : NULL;
    float     *logits = NULL;
    size_t     n_ms = 0, n_x = 0;
    rr_str     key;

    if (!r) {
        rr__json_error(js, "too many rows");
        return;
    }
    rr__json_object(js);
    while (rr__json_key(js, &key)) {
        if (rr__json_eq(key, "engine"))
            text_of(js, r->engine, sizeof r->engine);
        else if (rr__json_eq(key, "precision"))
            text_of(js, r->precision, sizeof r->precision);
        else if (rr__json_eq(key, "device"))
            text_of(js, r->device, sizeof r->device);
        else if (rr__json_eq(key, "why"))
            text_of(js, r->why, sizeof r->why);
        else if (rr__json_eq(key, "batch"))
            rr__json_i64(js, &r->batch);
        else if (rr__json_eq(key, "ms"))
            n_ms = numbers(js, ms, MAX_TIMES);
        else if (rr__json_eq(key, "logits"))
            n_x = numbers(js, x, (size_t)j->pairs.n + 1);
        else
            rr__json_skip(js);
    }
    if (!r->engine[0] || (!r->why[0] && !n_ms))
        rr__json_error(js, "a row needs engine, and ms or why");
    else if (r->batch < 0)
        rr__json_error(js, "a batch is not negative");
    for (size_t i = 0; i < n_ms; i++)
        if (!(ms[i] >= 1e-6 && ms[i] <= 1e9)) /* a nanosecond to eleven days: ratios stay finite */
            rr__json_error(js, "a time is from 1e-6 to 1e9 ms");
    if (n_x && n_x != (size_t)j->pairs.n)
        rr__json_error(js, "logits are not those of this work: write it anew with --work");
    if (js->what || r->why[0])
        return;
    set_times(r, ms, n_ms);
    if (n_x && (logits = malloc(n_x * sizeof *logits))) {
        for (size_t i = 0; i < n_x; i++)
            logits[i] = (float)x[i];
        judge(t, j, r, logits);
    }
    free(logits);
}

static rr_status peers(table *t, const judged *j, const table_opts *o, rr_error *err) {
    static const char *const names[] = {"PyTorch", "ONNX Runtime"};
    rr__file                 file = {NULL, 0};
    rr__arena                arena = {0};
    rr__json                 js;
    double                  *ms = NULL, *x = NULL;
    rr_status                s;

    for (int i = 0; i < 2 && !o->with; i++) {
        s = missing_row(t, names[i], "", "not measured: --work FILE, bench/peers.py, then --with",
                        err);
        if (s)
            return s;
    }
    if (!o->with)
        return RR_OK;
    s = rr__file_map(o->with, &file, err);
    if (s)
        return s;
    ms = malloc(MAX_TIMES * sizeof *ms);
    x = malloc(((size_t)j->pairs.n + 1) * sizeof *x);
    if (ms && x) {
        rr__json_init(&js, file.ptr, file.size, &arena);
        rr__json_array(&js);
        while (rr__json_next(&js))
            peer(&js, t, j, ms, x);
        s = rr__json_done(&js) ? RR_OK : rr__json_fail(&js, o->with, err);
    } else {
        s = rr__fail(err, RR_E_NOMEM, "%s", o->with);
    }
    free(ms);
    free(x);
    rr__arena_free(&arena);
    rr__file_unmap(&file);
    return s;
}

/* ---- the work file --------------------------------------------------------------------------- */

static void put_sequences(rr__json_out *out, const char *key, const int32_t *ids, const int32_t *cu,
                          int64_t n) {
    rr__out_key(out, key);
    rr__out_array(out);
    for (int64_t i = 0; i < n; i++) {
        rr__out_array(out);
        for (int32_t t = cu[i]; t < cu[i + 1]; t++)
            rr__out_i64(out, ids[t]);
        rr__out_end_array(out);
    }
    rr__out_end_array(out);
}

/* What bench/peers.py reads: ids of the request and of the judged pairs. */
static rr_status write_work(const table_opts *o, const judged *j, rr_error *err) {
    rr__json_out out = {0};
    rr_status    s;

    rr__out_object(&out);
    rr__out_key(&out, "model");
    rr__out_cstr(&out, cli_model_dir(o->common));
    rr__out_key(&out, "repeat");
    rr__out_i64(&out, o->repeat);
    rr__out_key(&out, "warmup");
    rr__out_i64(&out, o->warmup);
    rr__out_key(&out, "seconds");
    rr__out_i64(&out, o->seconds);
    put_sequences(&out, "request", o->ids, o->cu, o->docs);
    put_sequences(&out, "judged", j->pairs.ids.id, j->pairs.cu, j->pairs.n);
    rr__out_end_object(&out);
    rr__out_raw(&out, "\n", 1);
    s = rr__out_save(&out, o->work, err);
    rr__out_free(&out);
    return s;
}

rr_status table_run(const table_opts *o, rr_error *err) {
    judged    j = {.exact = NULL};
    table     t = {.docs = o->docs,
                   .tokens = o->cu[o->docs],
                   .seed = o->seed,
                   .model = cli_model_dir(o->common),
                   .eval = o->eval};
    rr_status s = judged_open(&j, o, err);

    t.pairs = j.pairs.n;
    if (!s && o->work) {
        s = write_work(o, &j, err);
        goto done;
    }
    if (!s)
        s = our_rows(&t, &j, o, err);
    if (!s)
        s = peers(&t, &j, o, err);
    if (s)
        goto done;
    if (o->json)
        table_json(&t);
    else if (o->markdown)
        table_markdown(&t);
    else
        table_text(&t);
    if (o->svg)
        s = table_svg(&t, o->svg, err);
done:
    judged_close(&j, o);
    free(t.row);
    return s;
}
