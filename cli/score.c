/* score.c - rerank score: rank documents for one query, or score a stream of pairs. */
#include "cli.h"
#include "lines.h"
#include "options.h"
#include "pairs.h"

#include "base/json_out.h"

#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char summary[] =
    "Scores documents against a query and prints them best first. Documents are arguments, or\n"
    "lines of files (-f), or lines of standard input; a line that starts with { is JSON with\n"
    "\"text\" and maybe \"id\". With --pairs every line is {\"query\", \"document\"} and gives "
    "one\n"
    "JSON line back, in the same order, however long the file.";

static const char epilog[] =
    "Examples:\n"
    "  rerank score -q 'capital of France' 'Paris is the capital.' 'The Seine is a river.'\n"
    "  rerank score -q 'capital of France' -f docs.txt -n 5\n"
    "  rerank score --pairs pairs.jsonl > scores.jsonl\n"
    "Exit status: 0 done, 1 input, model or device failed, 2 wrong usage.\n";

typedef struct document {
    rr_str id, text;
    size_t index; /* of the input */
    float  logit;
} document;

typedef struct ranking {
    const char *query, *pairs;
    cli_list    files;
    int         json, jsonl, raw, skip_bad;
    int64_t     top_n;
    cli_common  common;

    rr__arena          arena;
    document          *doc;
    size_t             n, cap;
    const rr_doc_info *info; /* by index */
} ranking;

/* ---- documents in ------------------------------------------------------------ */

static rr_status add(ranking *r, rr_str id, rr_str text, rr_error *err) {
    if (r->n == r->cap) {
        size_t    cap = r->cap ? 2 * r->cap : 64;
        document *bigger = realloc(r->doc, cap * sizeof *bigger);

        if (!bigger)
            return rr__fail(err, RR_E_NOMEM, "%zu documents", cap);
        r->doc = bigger;
        r->cap = cap;
    }
    r->doc[r->n] = (document){id, text, r->n, 0};
    r->n++;
    return RR_OK;
}

static rr_str keep(ranking *r, rr_str s) {
    return (rr_str){s.ptr ? rr__arena_strndup(&r->arena, s.ptr, s.len) : NULL, s.len};
}

static rr_status read_file(ranking *r, const char *path, rr_error *err) {
    cli_lines l;
    rr_str    line;
    int       got = 0;
    rr_status s = cli_lines_open(&l, path, err);

    if (s)
        return s;
    while (!s && (got = cli_lines_next(&l, &line, err)) > 0) {
        cli_record rec = {.text = line};

        if (line.len && line.ptr[0] == '{') {
            char where[300];

            snprintf(where, sizeof where, "%.250s: line %llu", l.name, (unsigned long long)l.line);
            s = cli_record_parse(line, &r->arena, where, &rec, err);
            if (!s && !rec.text.ptr)
                s = rr__fail(err, RR_E_FORMAT, "%s: no \"text\"", where);
        }
        if (!s)
            s = add(r, keep(r, rec.id), keep(r, rec.text), err);
    }
    if (got < 0)
        s = err->status;
    cli_lines_close(&l);
    return s;
}

static rr_status gather(ranking *r, const cli_rest *rest, rr_error *err) {
    rr_status s = RR_OK;

    for (int i = 0; i < rest->n && !s; i++)
        s = add(r, (rr_str){NULL, 0}, (rr_str){rest->arg[i], strlen(rest->arg[i])}, err);
    for (int i = 0; i < r->files.n && !s; i++)
        s = read_file(r, r->files.item[i], err);
    if (!s && !rest->n && !r->files.n)
        s = read_file(r, "-", err);
    if (!s && !r->n)
        s = rr__fail(err, RR_E_ARG,
                     "no documents: give them as arguments, with -f, or on standard input");
    return s;
}

/* ---- ranking out --------------------------------------------------------------- */

static int better(const void *a, const void *b) {
    const document *x = a, *y = b;

    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static float shown(const ranking *r, const document *d) {
    return r->raw ? d->logit : rr_sigmoid(d->logit);
}

static void put_json(rr__json_out *o, const ranking *r, const document *d, size_t rank) {
    const rr_doc_info *info = &r->info[d->index];

    rr__out_object(o);
    rr__out_key(o, "rank");
    rr__out_u64(o, rank + 1);
    rr__out_key(o, "index");
    rr__out_u64(o, d->index);
    if (d->id.ptr) {
        rr__out_key(o, "id");
        rr__out_str(o, d->id);
    }
    rr__out_key(o, "score");
    rr__out_f32(o, shown(r, d));
    rr__out_key(o, "tokens");
    rr__out_i64(o, info->tokens);
    rr__out_key(o, "kept");
    rr__out_i64(o, info->kept);
    rr__out_key(o, "truncated");
    rr__out_bool(o, info->truncated);
    rr__out_key(o, "text");
    rr__out_str(o, d->text);
    rr__out_end_object(o);
}

static void put_table(const ranking *r, size_t n, const rr_timing *t) {
    int    text = cli_columns() - 36;
    size_t cut = 0;

    printf("%4s  %-8s %-12s %6s  document\n", "rank", r->raw ? "logit" : "score", "", "index");
    for (size_t i = 0; i < n; i++) {
        const document *d = &r->doc[i];

        printf("%4zu  %-8.4f ", i + 1, (double)shown(r, d));
        cli_print_bar(stdout, rr_sigmoid(d->logit), 12);
        if (d->id.ptr)
            printf(" %6.*s  ", (int)(d->id.len < 6 ? d->id.len : 6), d->id.ptr);
        else
            printf(" %6zu  ", d->index);
        cli_print_cell(stdout, d->text, text > 10 ? text : 10);
        putchar('\n');
    }
    for (size_t i = 0; i < r->n; i++)
        cut += r->info[i].truncated != 0;
    printf("\n%zu documents in %.1f ms", r->n, (double)t->total_us / 1e3);
    if (cut)
        printf("; %zu truncated (--max-length)", cut);
    putchar('\n');
}

static void put(const ranking *r, const rr_timing *t) {
    size_t       n = r->top_n && (size_t)r->top_n < r->n ? (size_t)r->top_n : r->n;
    rr__json_out o = {0};

    if (!r->json && !r->jsonl) {
        put_table(r, n, t);
        return;
    }
    if (r->json) {
        rr__out_object(&o);
        rr__out_key(&o, "query");
        rr__out_cstr(&o, r->query);
        rr__out_key(&o, "results");
        rr__out_array(&o);
    }
    for (size_t i = 0; i < n; i++) {
        put_json(&o, r, &r->doc[i], i);
        if (r->jsonl) {
            cli_put_json(stdout, &o);
        }
    }
    if (r->json) {
        rr__out_end_array(&o);
        rr__out_end_object(&o);
        cli_put_json(stdout, &o);
    }
    rr__out_free(&o);
}

static rr_status rank(ranking *r, rr_error *err) {
    rr_model      *model;
    rr_engine     *engine;
    rr_job        *job = NULL;
    rr_str        *docs = calloc(r->n, sizeof *docs);
    rr_timing      timing;
    rr_submit_opts opts = {.max_query = (int32_t)r->common.max_query};
    rr_status      s = docs ? cli_open(&r->common, &model, &engine, err)
                            : rr__fail(err, RR_E_NOMEM, "%zu documents", r->n);

    if (s) {
        free(docs);
        return s;
    }
    for (size_t i = 0; i < r->n; i++)
        docs[i] = r->doc[i].text;
    s = rr_submit(engine, (rr_str){r->query, strlen(r->query)}, docs, r->n, &opts, NULL, NULL, &job,
                  err);
    if (!s)
        s = rr_wait(job, err);
    if (!s) {
        const float *logit = rr_job_scores(job, NULL);

        for (size_t i = 0; i < r->n; i++)
            r->doc[i].logit = logit[i];
        r->info = rr_job_docs(job, NULL);
        rr_job_timing(job, &timing);
        qsort(r->doc, r->n, sizeof *r->doc, better);
        put(r, &timing);
    }
    if (job)
        rr_job_free(job);
    rr_engine_close(engine);
    rr_model_close(model);
    free(docs);
    return s;
}

int cmd_score(int argc, char **argv) {
    ranking        r = {0};
    const cli_flag flags[] = {
        {"query", 'q', CLI_TEXT, &r.query, "TEXT", "the query", 0, 0},
        {"file", 'f', CLI_LIST, &r.files, "FILE",
         "documents, one a line, text or JSONL; - is standard input; may be repeated", 0, 0},
        {"top-n", 'n', CLI_INT, &r.top_n, "N", "print the best N (default all)", 0, 1e15},
        {"raw", 0, CLI_BOOL, &r.raw, NULL, "print logits instead of sigmoids", 0, 0},
        {"json", 0, CLI_BOOL, &r.json, NULL, "one JSON document", 0, 0},
        {"jsonl", 0, CLI_BOOL, &r.jsonl, NULL, "one JSON line a document", 0, 0},
        {"pairs", 0, CLI_TEXT, &r.pairs, "FILE",
         "score {\"query\", \"document\"} lines; - is standard input", 0, 0},
        {"skip-bad", 0, CLI_BOOL, &r.skip_bad, NULL,
         "with --pairs: answer a line that is no pair with {\"error\"} and go on", 0, 0},
    };
    const cli_command c = {"score",
                           "[options] -q QUERY [DOCUMENT ...] | --pairs FILE",
                           summary,
                           flags,
                           sizeof flags / sizeof flags[0],
                           &r.common,
                           epilog};
    cli_rest          rest;
    rr_error          err = {0};
    rr_status         s;
    int               code = cli_parse(&c, argc, argv, &rest);

    if (code >= 0)
        return code;
    setlocale(LC_CTYPE, "C.UTF-8");
    if (r.pairs) {
        if (rest.n || r.query || r.files.n)
            return cli_fail("score", EXIT_USAGE, "--pairs takes no query and no other documents");
        s = cli_pairs_score(r.pairs, &r.common, r.raw, r.skip_bad, &err);
    } else {
        if (!r.query)
            return cli_fail("score", EXIT_USAGE, "-q QUERY is needed; see rerank score --help");
        s = gather(&r, &rest, &err);
        if (!s)
            s = rank(&r, &err);
    }
    if (!s)
        s = cli_flush(&err);
    rr__arena_free(&r.arena);
    free(r.doc);
    return s ? cli_fail("score", EXIT_FAILED, "%s", err.text) : EXIT_OK;
}
