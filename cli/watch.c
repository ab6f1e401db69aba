/* watch.c - see watch.h. */
#include "watch.h"

#include "lines.h"
#include "trt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rr_status grow(watch_pairs *p, rr_error *err) {
    int32_t  cap = p->cap ? 2 * p->cap : 256;
    int32_t *cu = realloc(p->cu, ((size_t)cap + 1) * sizeof *cu), *seg;

    if (cu)
        p->cu = cu;
    seg = realloc(p->seg, (size_t)cap * sizeof *seg);
    if (seg)
        p->seg = seg;
    if (!cu || !seg)
        return rr__fail(err, RR_E_NOMEM, "%d pairs", (int)cap);
    p->cap = cap;
    p->cu[0] = 0;
    return RR_OK;
}

rr_status watch_add(watch_pairs *p, const rr__tokenizer *t, rr_str query, rr_str doc,
                    const rr__pair_opts *o, rr_error *err) {
    rr__ids   q = {0};
    rr_status s = p->n == p->cap ? grow(p, err) : RR_OK;
    size_t    before = p->ids.n;

    if (!s)
        s = rr__tokenizer_encode(t, query, &q, err);
    if (!s)
        s = rr__pair_encode(t, q.id, q.n, doc, o, &p->ids, &p->seg[p->n], NULL, err);
    rr__ids_free(&q);
    if (s)
        return s;
    if (p->ids.n > INT32_MAX)
        return rr__fail(err, RR_E_TOO_LARGE, "more than 2^31 tokens");
    p->cu[++p->n] = (int32_t)p->ids.n;
    if ((int32_t)(p->ids.n - before) > p->max_len)
        p->max_len = (int32_t)(p->ids.n - before);
    return RR_OK;
}

/* At most limit lines of path as sequences. */
static rr_status read_pairs(watch_pairs *p, const rr__tokenizer *t, const char *path,
                            const rr__pair_opts *o, int32_t limit, rr_error *err) {
    cli_lines l;
    rr_str    line;
    rr__arena arena = {0};
    int       got = 0;
    rr_status s = cli_lines_open(&l, path, err);

    *p = (watch_pairs){.n = 0};
    if (s)
        return s;
    while (!s && p->n < limit && (got = cli_lines_next(&l, &line, err)) > 0) {
        cli_record rec;
        char       where[300];

        if (!line.len)
            continue;
        rr__arena_reset(&arena);
        snprintf(where, sizeof where, "%.250s: line %llu", l.name, (unsigned long long)l.line);
        s = cli_record_parse(line, &arena, where, &rec, err);
        if (!s && (!rec.query.ptr || !rec.document.ptr))
            s = rr__fail(err, RR_E_FORMAT, "%s: no \"%s\"", where,
                         rec.query.ptr ? "document" : "query");
        if (!s)
            s = watch_add(p, t, rec.query, rec.document, o, err);
    }
    if (got < 0)
        s = err->status;
    if (!s && !p->n)
        s = rr__fail(err, RR_E_FORMAT, "%s: no pairs", l.name);
    rr__arena_free(&arena);
    cli_lines_close(&l);
    if (s)
        watch_pairs_free(p);
    return s;
}

void watch_policy(const cli_common *c, int32_t longest, rr__pair_opts *o) {
    rr_engine_opts policy;
    int32_t        most;

    cli_engine_opts(c, &policy);
    most = policy.max_length ? policy.max_length : 512;
    *o = (rr__pair_opts){.max_length = most < longest ? most : longest,
                         .max_query = (int32_t)c->max_query,
                         .truncation = policy.truncation,
                         .side = policy.side};
}

rr_status watch_load(const cli_common *c, const char *path, int32_t limit, rr__model **m,
                     rr__tokenizer **t, watch_pairs *p, rr_error *err) {
    const char   *dir = cli_model_dir(c);
    rr__pair_opts o;
    rr_status     s = rr__model_open(dir, m, err);

    if (!s)
        s = rr__tokenizer_open(dir, t, err);
    if (!s) {
        watch_policy(c, (*m)->max_length, &o);
        s = read_pairs(p, *t, path, &o, limit, err);
    }
    return s;
}

void watch_pairs_free(watch_pairs *p) {
    rr__ids_free(&p->ids);
    free(p->cu);
    free(p->seg);
    *p = (watch_pairs){.n = 0};
}

rr__batch watch_batch(const watch_pairs *p, int32_t first, int32_t max_tokens, int32_t *cu) {
    rr__batch b = {.tok = p->ids.id + p->cu[first], .cu = cu, .seg = p->seg + first};

    cu[0] = 0;
    for (int32_t i = first; i < p->n; i++) {
        int32_t len = p->cu[i + 1] - p->cu[i];

        if (b.n_seq && b.n_tok + len > max_tokens)
            break;
        b.n_tok += len;
        cu[++b.n_seq] = b.n_tok;
        b.max_len = len > b.max_len ? len : b.max_len;
    }
    return b;
}

void watch_split(const char *what, char buf[64], const char **backend, const char **precision) {
    char *colon;

    snprintf(buf, 64, "%s", what ? what : "");
    colon = strchr(buf, ':');
    *backend = *precision = NULL;
    if (colon) {
        *colon = '\0';
        *backend = buf;
        *precision = colon + 1;
    } else if (*buf && rr__precision_parse(buf) < RR__N_PRECISION) {
        *precision = buf;
    } else if (*buf) {
        *backend = buf;
    }
}

rr_status watch_open(watch *w, const rr__model *m, const char *what, const cli_common *c,
                     const rr__calibration *cal, int32_t max_tokens, int32_t max_seqs,
                     rr_error *err) {
    char             buf[64];
    const char      *backend, *precision;
    rr__backend_info info;
    rr__calibration *own = NULL;
    rr__backend_opts o = {.threads = (int32_t)c->threads,
                          .max_batch_tokens = max_tokens,
                          .max_batch_seqs = max_seqs,
                          .plan_path = c->engine};
    int              trt;
    rr_status        s;

    *w = (watch){.model = m};
    watch_split(what, buf, &backend, &precision);
    trt = backend && strcmp(backend, "trt") == 0; /* its engine has one precision, and its scales */
    o.precision = rr__precision_parse(precision ? precision : trt ? "auto" : "fp32");
    if (o.precision == RR__N_PRECISION)
        return rr__fail(err, RR_E_ARG, "\"%s\": no such precision", what);
    s = trt_lib(c, err);
    if (!s)
        s = rr__backend_find(backend, &w->backend, err);
    if (!s && cal)
        s = rr__backend_takes_calibration(w->backend, o.precision, err);
    if (!s && !cal && !trt) /* of what is compared, the file is the 8-bit side's */
        s = rr__backend_calibration(
            w->backend, o.precision, m,
            o.precision == RR__INT8 || o.precision == RR__FP8 ? c->calibration : NULL, &own, err);
    o.calibration = cal ? cal : own;
    if (!s)
        s = w->backend->load(m, &o, &w->weights, err);
    rr__calibration_free(own);
    if (!s)
        s = w->backend->open(w->weights, &w->instance, err);
    if (s) {
        watch_close(w);
        return s;
    }
    w->backend->describe(w->weights, &info);
    w->precision = info.precision;
    snprintf(w->label, sizeof w->label, "%s:%s", w->backend->name,
             rr__precision_name(info.precision));
    return RR_OK;
}

void watch_close(watch *w) {
    if (w->instance)
        w->backend->close(w->instance);
    if (w->weights)
        w->backend->unload(w->weights);
    *w = (watch){.model = NULL};
}
