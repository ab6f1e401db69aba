/* pairs.c - see pairs.h. */
#include "pairs.h"

#include "lines.h"

#include "base/json_out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_PAIRS = 256,
    BLOCK_BYTES = 1 << 20, /* a block closes when it holds so much text */
    BLOCKS = 4             /* in flight */
};

typedef struct block {
    rr__arena arena;
    size_t    n, bytes;
    rr_str    query[BLOCK_PAIRS], document[BLOCK_PAIRS];
    uint64_t  first_line;
    rr_job   *job;
} block;

/* Fill an empty block; *end is set when the input is over. */
static rr_status fill(block *b, cli_lines *l, int *end, rr_error *err) {
    rr_status s = RR_OK;
    int       got = 0;

    rr__arena_reset(&b->arena);
    b->n = b->bytes = 0;
    b->first_line = l->line + 1;
    while (!s && b->n < BLOCK_PAIRS && b->bytes < BLOCK_BYTES) {
        rr_str     line;
        cli_record rec;
        char       where[300];

        got = cli_lines_next(l, &line, err);
        if (got <= 0)
            break;
        if (!line.len)
            continue;
        line.ptr = rr__arena_strndup(&b->arena, line.ptr, line.len);
        if (!line.ptr)
            return rr__fail(err, RR_E_NOMEM, "%s: line %llu", l->name, (unsigned long long)l->line);
        snprintf(where, sizeof where, "%.250s: line %llu", l->name, (unsigned long long)l->line);
        s = cli_record_parse(line, &b->arena, where, &rec, err);
        if (!s && (!rec.query.ptr || !rec.document.ptr))
            s = rr__fail(err, RR_E_FORMAT, "%s: no \"%s\"", where,
                         rec.query.ptr ? "document" : "query");
        if (s)
            break;
        b->query[b->n] = rec.query;
        b->document[b->n] = rec.document;
        b->bytes += line.len;
        b->n++;
    }
    *end = got == 0 && b->n < BLOCK_PAIRS && b->bytes < BLOCK_BYTES;
    return got < 0 ? err->status : s;
}

static void put_info(rr__json_out *o, const rr_doc_info *info) {
    rr__out_key(o, "tokens");
    rr__out_i64(o, info->tokens);
    rr__out_key(o, "kept");
    rr__out_i64(o, info->kept);
    rr__out_key(o, "truncated");
    rr__out_bool(o, info->truncated);
    rr__out_end_object(o);
    rr__out_raw(o, "\n", 1);
    o->comma = 0; /* the next line is a document of its own */
}

static rr_status flush(rr__json_out *o, rr_error *err) {
    rr_status s = RR_OK;

    if (o->failed)
        s = rr__fail(err, RR_E_NOMEM, "output line");
    else if (fwrite(o->ptr, 1, o->len, stdout) != o->len)
        s = rr__fail(err, RR_E_IO, "standard output: %s", strerror(errno));
    rr__out_reset(o);
    return s;
}

/* Wait for the block's job and print its lines. */
static rr_status drain(block *b, rr__json_out *o, int raw, rr_error *err) {
    rr_status s;

    if (!b->job)
        return RR_OK;
    s = rr_wait(b->job, err);
    if (!s) {
        const float       *score = rr_job_scores(b->job, NULL);
        const rr_doc_info *info = rr_job_docs(b->job, NULL);

        for (size_t i = 0; i < b->n; i++) {
            rr__out_object(o);
            rr__out_key(o, "score");
            rr__out_f32(o, raw ? score[i] : rr_sigmoid(score[i]));
            put_info(o, &info[i]);
        }
        s = flush(o, err);
    }
    rr_job_free(b->job);
    b->job = NULL;
    return s;
}

rr_status cli_pairs_score(const char *path, const cli_common *c, int raw, rr_error *err) {
    cli_lines      l = {0};
    rr__json_out   o = {0};
    rr_model      *model = NULL;
    rr_engine     *engine = NULL;
    block         *ring = calloc(BLOCKS, sizeof *ring);
    uint64_t       filled = 0, drained = 0;
    int            end = 0;
    rr_submit_opts opts = {.max_query = (int32_t)c->max_query};
    rr_status      s = ring ? cli_lines_open(&l, path, err) : rr__fail(err, RR_E_NOMEM, "blocks");

    if (!s)
        s = cli_open(c, &model, &engine, err);
    while (!s && !end) {
        block *b = &ring[filled % BLOCKS];

        if (filled - drained == BLOCKS)
            s = drain(&ring[drained++ % BLOCKS], &o, raw, err);
        if (!s)
            s = fill(b, &l, &end, err);
        if (!s && b->n) {
            s = rr_submit_pairs(engine, b->query, b->document, b->n, &opts, NULL, NULL, &b->job,
                                err);
            if (s)
                rr__fail_prefix(err, s, "%s: lines %llu to %llu", l.name,
                                (unsigned long long)b->first_line, (unsigned long long)l.line);
            filled++;
        }
        if (l.total)
            cli_progress("scored", l.bytes, l.total, 0);
        else
            cli_progress("scored lines", l.line, 0, 0);
    }
    { /* what was read before an error is still answered */
        rr_error  later;
        rr_status t = RR_OK;

        while (drained < filled && !t)
            t = drain(&ring[drained++ % BLOCKS], &o, raw, s ? &later : err);
        if (!s)
            s = t;
    }
    cli_progress("scored", 1, 1, 1);
    for (int i = 0; ring && i < BLOCKS; i++) {
        if (ring[i].job) { /* after a failed drain */
            rr_wait(ring[i].job, NULL);
            rr_job_free(ring[i].job);
        }
        rr__arena_free(&ring[i].arena);
    }
    free(ring);
    rr__out_free(&o);
    rr_engine_close(engine);
    rr_model_close(model);
    cli_lines_close(&l);
    return s;
}

rr_status cli_pairs_tokenize(const char *path, const cli_common *c, rr_error *err) {
    cli_lines      l = {0};
    rr__json_out   o = {0};
    rr_model      *model = NULL;
    block         *b = calloc(1, sizeof *b);
    int32_t       *ids = NULL;
    size_t         cap = 1 << 14;
    int            end = 0;
    rr_engine_opts e;
    rr_status      s = cli_engine_opts(c, &e, err);
    rr_submit_opts opts = {.max_length = e.max_length,
                           .max_query = (int32_t)c->max_query,
                           .truncation = e.truncation,
                           .side = e.side};

    ids = malloc(cap * sizeof *ids);
    if (!s && (!b || !ids))
        s = rr__fail(err, RR_E_NOMEM, "block");
    if (!s)
        s = cli_lines_open(&l, path, err);
    if (!s)
        s = rr_tokenizer_open(cli_model_dir(c), &model, err);
    while (!s && !end) {
        s = fill(b, &l, &end, err);
        for (size_t i = 0; i < b->n && !s; i++) {
            rr_doc_info info;
            size_t      n;

            s = rr_tokenize_pair(model, b->query[i], b->document[i], &opts, ids, cap, &n, &info,
                                 err);
            if (!s && n > cap) {
                int32_t *bigger = realloc(ids, n * sizeof *ids);

                if (!bigger) {
                    s = rr__fail(err, RR_E_NOMEM, "%zu tokens", n);
                    break;
                }
                ids = bigger;
                cap = n;
                s = rr_tokenize_pair(model, b->query[i], b->document[i], &opts, ids, cap, &n, &info,
                                     err);
            }
            if (s)
                break;
            rr__out_object(&o);
            rr__out_key(&o, "ids");
            rr__out_array(&o);
            for (size_t k = 0; k < n; k++)
                rr__out_i64(&o, ids[k]);
            rr__out_end_array(&o);
            put_info(&o, &info);
            s = flush(&o, err);
        }
        cli_progress("tokenized", l.total ? l.bytes : l.line, l.total, 0);
    }
    cli_progress("tokenized", 1, 1, 1);
    if (b)
        rr__arena_free(&b->arena);
    free(b);
    free(ids);
    rr__out_free(&o);
    rr_model_close(model);
    cli_lines_close(&l);
    return s;
}
