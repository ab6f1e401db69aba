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
    rr__arena   arena;
    size_t      n_line, n, bytes; /* lines with something on them, pairs among them, their text */
    const char *bad[BLOCK_PAIRS]; /* [n_line] why a line is no pair, NULL if it is one */
    rr_str      query[BLOCK_PAIRS], document[BLOCK_PAIRS]; /* [n] */
    uint64_t    first_line;
    rr_job     *job;
} block;

/* One line into the block. */
static rr_status add(block *b, rr_str line, const char *where, int skip_bad, rr_error *err) {
    cli_record rec;
    rr_status  s;

    line.ptr = rr__arena_strndup(&b->arena, line.ptr, line.len);
    if (!line.ptr)
        return rr__fail(err, RR_E_NOMEM, "%s: %zu bytes", where, line.len);
    s = cli_record_parse(line, &b->arena, where, &rec, err);
    if (!s && (!rec.query.ptr || !rec.document.ptr))
        s = rr__fail(err, RR_E_FORMAT, "%s: no \"%s\"", where,
                     rec.query.ptr ? "document" : "query");
    b->bad[b->n_line] = NULL;
    if (s == RR_E_FORMAT && skip_bad) {
        if (!(b->bad[b->n_line++] = rr__arena_strndup(&b->arena, err->text, strlen(err->text))))
            return rr__fail(err, RR_E_NOMEM, "%s", where);
        return RR_OK;
    }
    if (s)
        return s;
    b->query[b->n] = rec.query;
    b->document[b->n++] = rec.document;
    b->n_line++;
    b->bytes += line.len;
    return RR_OK;
}

/* Fill an empty block; *end is set when the input is over. */
static rr_status fill(block *b, cli_lines *l, int skip_bad, int *end, rr_error *err) {
    rr_status s = RR_OK;
    rr_str    line;
    char      where[300];

    rr__arena_reset(&b->arena);
    b->n = b->n_line = b->bytes = 0;
    b->first_line = l->line + 1;
    while (!s && b->n_line < BLOCK_PAIRS && b->bytes < BLOCK_BYTES) {
        int got = cli_lines_next(l, &line, err);

        if (got < 0)
            return err->status;
        if (got == 0) {
            *end = 1;
            break;
        }
        snprintf(where, sizeof where, "%.250s: line %llu", l->name, (unsigned long long)l->line);
        if (line.len)
            s = add(b, line, where, skip_bad, err);
    }
    return s;
}

static void put_info(rr__json_out *o, const rr_doc_info *info) {
    rr__out_key(o, "tokens");
    rr__out_i64(o, info->tokens);
    rr__out_key(o, "kept");
    rr__out_i64(o, info->kept);
    rr__out_key(o, "truncated");
    rr__out_bool(o, info->truncated);
}

static void end_line(rr__json_out *o) {
    rr__out_end_object(o);
    rr__out_raw(o, "\n", 1);
    o->comma = 0; /* the next line is a document of its own */
}

static void put_bad(rr__json_out *o, const char *why) {
    rr__out_object(o);
    rr__out_key(o, "error");
    rr__out_cstr(o, why);
    end_line(o);
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
    const float       *score = NULL;
    const rr_doc_info *info = NULL;
    rr_status          s = b->job ? rr_wait(b->job, err) : RR_OK;

    if (!s && b->job) {
        score = rr_job_scores(b->job, NULL);
        info = rr_job_docs(b->job, NULL);
    }
    for (size_t i = 0, k = 0; i < b->n_line && !s; i++) {
        if (b->bad[i]) {
            put_bad(o, b->bad[i]);
            continue;
        }
        rr__out_object(o);
        rr__out_key(o, "score");
        rr__out_f32(o, raw ? score[k] : rr_sigmoid(score[k]));
        put_info(o, &info[k++]);
        end_line(o);
    }
    if (!s)
        s = flush(o, err);
    rr_job_free(b->job);
    b->job = NULL;
    return s;
}

/* Send the block's pairs to the engine; a block of bad lines only has no job. */
static rr_status submit(block *b, rr_engine *engine, const rr_submit_opts *opts, const cli_lines *l,
                        rr_error *err) {
    rr_status s =
        b->n ? rr_submit_pairs(engine, b->query, b->document, b->n, opts, NULL, NULL, &b->job, err)
             : RR_OK;

    if (s)
        rr__fail_prefix(err, s, "%s: block of lines %llu to %llu", l->name,
                        (unsigned long long)b->first_line, (unsigned long long)l->line);
    return s;
}

rr_status cli_pairs_score(const char *path, const cli_common *c, int raw, int skip_bad,
                          rr_error *err) {
    cli_lines      l = {0};
    rr__json_out   o = {0};
    rr_model      *model = NULL;
    rr_engine     *engine = NULL;
    block         *ring = calloc(BLOCKS, sizeof *ring);
    uint64_t       filled = 0, drained = 0;
    int            end = 0;
    rr_submit_opts opts = {.max_query = (int32_t)c->max_query};
    rr_error       later;
    rr_status      s = ring ? cli_lines_open(&l, path, err) : rr__fail(err, RR_E_NOMEM, "blocks");
    rr_status      t = RR_OK;

    if (!s)
        s = cli_open(c, &model, &engine, err);
    while (!s && !end) {
        block *b = &ring[filled % BLOCKS];

        if (filled - drained == BLOCKS)
            s = drain(&ring[drained++ % BLOCKS], &o, raw, err);
        if (s)
            break;
        s = fill(b, &l, skip_bad, &end, err);
        t = submit(b, engine, &opts, &l, s ? &later : err); /* also what stands before a bad line */
        filled += !t;
        s = s ? s : t;
        cli_progress("scored", l.total ? l.bytes : l.line, l.total, 0);
    }
    for (t = RR_OK; drained < filled && !t;) { /* what was read before an error is still answered */
        t = drain(&ring[drained++ % BLOCKS], &o, raw, s ? &later : err);
        s = s ? s : t;
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

typedef struct id_buf {
    int32_t *id;
    size_t   cap;
} id_buf;

/* One pair's ids as a line of JSON. */
static rr_status put_ids(const rr_model *model, rr_str query, rr_str doc,
                         const rr_submit_opts *opts, id_buf *buf, rr__json_out *o, rr_error *err) {
    rr_doc_info info;
    size_t      n;
    rr_status   s = rr_tokenize_pair(model, query, doc, opts, buf->id, buf->cap, &n, &info, err);

    if (!s && n > buf->cap) {
        int32_t *bigger = realloc(buf->id, n * sizeof *bigger);

        if (!bigger)
            return rr__fail(err, RR_E_NOMEM, "%zu tokens", n);
        buf->id = bigger;
        buf->cap = n;
        s = rr_tokenize_pair(model, query, doc, opts, buf->id, buf->cap, &n, &info, err);
    }
    if (s)
        return s;
    rr__out_object(o);
    rr__out_key(o, "ids");
    rr__out_array(o);
    for (size_t k = 0; k < n; k++)
        rr__out_i64(o, buf->id[k]);
    rr__out_end_array(o);
    put_info(o, &info);
    end_line(o);
    return RR_OK;
}

rr_status cli_pairs_tokenize(const char *path, const cli_common *c, int skip_bad, rr_error *err) {
    cli_lines      l = {0};
    rr__json_out   o = {0};
    rr_model      *model = NULL;
    block         *b = calloc(1, sizeof *b);
    id_buf         ids = {NULL, 0};
    int            end = 0;
    rr_engine_opts e;
    rr_submit_opts opts;
    rr_error       later;
    rr_status      s = b ? cli_lines_open(&l, path, err) : rr__fail(err, RR_E_NOMEM, "block");

    cli_engine_opts(c, &e);
    opts = (rr_submit_opts){.max_length = e.max_length,
                            .max_query = (int32_t)c->max_query,
                            .truncation = e.truncation,
                            .side = e.side};
    if (!s)
        s = rr_tokenizer_open(cli_model_dir(c), &model, err);
    while (!s && !end) {
        rr_status t = RR_OK;

        s = fill(b, &l, skip_bad, &end, err);
        for (size_t i = 0, k = 0; i < b->n_line && !t; i++) {
            if (b->bad[i]) {
                put_bad(&o, b->bad[i]);
                continue;
            }
            t = put_ids(model, b->query[k], b->document[k], &opts, &ids, &o, s ? &later : err);
            k++;
        }
        if (!t)
            t = flush(&o, s ? &later : err);
        s = s ? s : t;
        cli_progress("tokenized", l.total ? l.bytes : l.line, l.total, 0);
    }
    cli_progress("tokenized", 1, 1, 1);
    if (b)
        rr__arena_free(&b->arena);
    free(b);
    free(ids.id);
    rr__out_free(&o);
    rr_model_close(model);
    cli_lines_close(&l);
    return s;
}
