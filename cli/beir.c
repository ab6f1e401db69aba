/* beir.c - see beir.h. */
#include "beir.h"

#include "lines.h"
#include "metrics.h"

#include "base/file.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int compare_str(rr_str a, rr_str b) {
    size_t n = a.len < b.len ? a.len : b.len;
    int    c = n ? memcmp(a.ptr, b.ptr, n) : 0;

    return c ? c : (a.len > b.len) - (a.len < b.len);
}

static int by_id(const void *a, const void *b) {
    return compare_str(((const beir_item *)a)->id, ((const beir_item *)b)->id);
}

static int by_query_id(const void *a, const void *b) {
    return compare_str(((const beir_query *)a)->id, ((const beir_query *)b)->id);
}

static rr_str copy(rr__arena *a, rr_str s) {
    return (rr_str){rr__arena_strndup(a, s.ptr, s.len), s.len};
}

/* {"_id", "text", "title"} lines; the title goes before the text, as BEIR's loaders do. */
static rr_status read_items(beir *b, const char *dir, const char *file, beir_item **out, size_t *n,
                            rr_error *err) {
    char      path[4096], where[300];
    cli_lines l;
    rr__arena line_arena = {0};
    rr_str    line;
    size_t    cap = 0;
    int       got = 0;
    rr_status s;

    *out = NULL;
    *n = 0;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    s = cli_lines_open(&l, path, err);
    if (s)
        return s;
    while (!s && (got = cli_lines_next(&l, &line, err)) > 0) {
        rr__json j;
        rr_str   key, id = {NULL, 0}, text = {NULL, 0}, title = {NULL, 0};

        if (!line.len)
            continue;
        rr__arena_reset(&line_arena);
        rr__json_init(&j, line.ptr, line.len, &line_arena);
        rr__json_object(&j);
        while (rr__json_key(&j, &key)) {
            if (rr__json_eq(key, "_id"))
                rr__json_string(&j, &id);
            else if (rr__json_eq(key, "text"))
                rr__json_string(&j, &text);
            else if (rr__json_eq(key, "title"))
                rr__json_string(&j, &title);
            else
                rr__json_skip(&j);
        }
        snprintf(where, sizeof where, "%.250s: line %llu", path, (unsigned long long)l.line);
        if (!rr__json_done(&j))
            s = rr__json_fail(&j, where, err);
        else if (!id.ptr || !text.ptr)
            s = rr__fail(err, RR_E_FORMAT, "%s: no \"%s\"", where, id.ptr ? "text" : "_id");
        if (s)
            break;
        if (*n == cap) {
            beir_item *bigger = realloc(*out, (cap = cap ? 2 * cap : 1024) * sizeof *bigger);

            if (!bigger) {
                s = rr__fail(err, RR_E_NOMEM, "%s", where);
                break;
            }
            *out = bigger;
        }
        (*out)[*n].id = copy(&b->arena, id);
        if (title.len) {
            char *joined = rr__arena_alloc(&b->arena, title.len + 1 + text.len);

            if (joined) {
                memcpy(joined, title.ptr, title.len);
                joined[title.len] = ' ';
                memcpy(joined + title.len + 1, text.ptr, text.len);
            }
            (*out)[*n].text = (rr_str){joined, title.len + 1 + text.len};
        } else {
            (*out)[*n].text = copy(&b->arena, text);
        }
        if (!(*out)[*n].id.ptr || !(*out)[*n].text.ptr)
            s = rr__fail(err, RR_E_NOMEM, "%s", where);
        (*n)++;
    }
    if (got < 0)
        s = err->status;
    rr__arena_free(&line_arena);
    cli_lines_close(&l);
    return s;
}

/* Up to three tab separated fields. */
static int fields(rr_str line, rr_str f[3]) {
    int n = 0;

    while (n < 3) {
        const char *tab = memchr(line.ptr, '\t', line.len);
        size_t      len = tab ? (size_t)(tab - line.ptr) : line.len;

        f[n++] = (rr_str){line.ptr, len};
        if (!tab)
            break;
        line.ptr += len + 1;
        line.len -= len + 1;
    }
    return n;
}

static int32_t find_doc(const beir *b, rr_str id) {
    beir_item  key = {id, {NULL, 0}};
    beir_item *hit = bsearch(&key, b->doc, b->n_doc, sizeof *b->doc, by_id);

    return hit ? (int32_t)(hit - b->doc) : -1;
}

typedef struct judged {
    int32_t query, doc, value;
    int32_t order; /* line, so that a sort keeps the file's order */
} judged;

static int by_query_then_order(const void *a, const void *b) {
    const judged *x = a, *y = b;

    return x->query != y->query ? (x->query > y->query) - (x->query < y->query)
                                : (x->order > y->order) - (x->order < y->order);
}

/* query-id, corpus-id, number lines; unknown ids are skipped (sets are often cut down). */
static rr_status read_links(const beir *b, const char *path, judged **out, size_t *n,
                            rr_error *err) {
    cli_lines l;
    rr_str    line;
    size_t    cap = 0;
    int       got = 0;
    rr_status s = cli_lines_open(&l, path, err);

    *out = NULL;
    *n = 0;
    if (s)
        return s;
    while (!s && (got = cli_lines_next(&l, &line, err)) > 0) {
        rr_str     f[3];
        beir_query key, *q;
        char       number[16] = "";
        int32_t    doc;

        if (!line.len)
            continue;
        if (fields(line, f) != 3) {
            if (l.line > 1)
                s = rr__fail(err, RR_E_FORMAT,
                             "%s: line %llu: three tab separated fields are needed", path,
                             (unsigned long long)l.line);
            continue;
        }
        key.id = f[0];
        q = bsearch(&key, b->query, b->n_query, sizeof *b->query, by_query_id);
        doc = find_doc(b, f[1]);
        if (!q || doc < 0)
            continue; /* also the header line */
        if (*n == cap) {
            judged *bigger = realloc(*out, (cap = cap ? 2 * cap : 4096) * sizeof *bigger);

            if (!bigger) {
                s = rr__fail(err, RR_E_NOMEM, "%s", path);
                break;
            }
            *out = bigger;
        }
        memcpy(number, f[2].ptr, f[2].len < 15 ? f[2].len : 15);
        (*out)[*n] =
            (judged){(int32_t)(q - b->query), doc, (int32_t)strtol(number, NULL, 10), (int32_t)*n};
        (*n)++;
    }
    if (got < 0)
        s = err->status;
    cli_lines_close(&l);
    if (!s && *n)
        qsort(*out, *n, sizeof **out, by_query_then_order);
    return s;
}

static int falling(const void *a, const void *b) {
    return (*(const int32_t *)a < *(const int32_t *)b) -
           (*(const int32_t *)a > *(const int32_t *)b);
}

/* Candidates and grades of one query from the sorted links. */
static rr_status attach(beir *b, beir_query *q, const judged *cand, size_t n_cand,
                        const judged *rel, size_t n_rel, size_t max, rr_error *err) {
    size_t n = cand ? n_cand : b->n_doc;

    n = max && n > max ? max : n;
    q->doc = rr__arena_calloc(&b->arena, n, sizeof *q->doc);
    q->grade = rr__arena_calloc(&b->arena, n, sizeof *q->grade);
    q->ideal = rr__arena_calloc(&b->arena, n_rel + 1, sizeof *q->ideal);
    if ((n && (!q->doc || !q->grade)) || !q->ideal)
        return rr__fail(err, RR_E_NOMEM, "%zu candidates", n);
    q->n_doc = n;
    for (size_t i = 0; i < n; i++) {
        q->doc[i] = cand ? cand[i].doc : (int32_t)i;
        for (size_t r = 0; r < n_rel; r++)
            if (rel[r].doc == q->doc[i])
                q->grade[i] = rel[r].value;
    }
    for (size_t r = 0; r < n_rel; r++)
        if (rel[r].value > 0)
            q->ideal[q->n_ideal++] = rel[r].value;
    qsort(q->ideal, q->n_ideal, sizeof *q->ideal, falling);
    return RR_OK;
}

static size_t run_of(const judged *l, size_t n, size_t from, int32_t query) {
    size_t i = from;

    while (i < n && l[i].query == query)
        i++;
    return i - from;
}

static rr_status attach_all(beir *b, const judged *cand, size_t n_cand, const judged *rel,
                            size_t n_rel, size_t max, rr_error *err) {
    size_t    c = 0, r = 0, kept = 0;
    rr_status s = RR_OK;

    for (size_t i = 0; i < b->n_query && !s; i++) {
        size_t nr, nc;

        while (r < n_rel && rel[r].query < (int32_t)i)
            r++;
        while (cand && c < n_cand && cand[c].query < (int32_t)i)
            c++;
        nr = run_of(rel, n_rel, r, (int32_t)i);
        nc = cand ? run_of(cand, n_cand, c, (int32_t)i) : 0;
        s = attach(b, &b->query[i], cand ? cand + c : NULL, nc, rel + r, nr, max, err);
    }
    for (size_t i = 0; i < b->n_query; i++)
        if (b->query[i].n_ideal && b->query[i].n_doc)
            b->query[kept++] = b->query[i];
    b->n_query = kept;
    return s;
}

rr_status beir_open(const char *dir, size_t limit, size_t max_candidates, beir *b, rr_error *err) {
    char       path[4096];
    beir_item *queries = NULL;
    judged    *cand = NULL, *rel = NULL;
    size_t     n_cand = 0, n_rel = 0, n = 0;
    rr_status  s;

    memset(b, 0, sizeof *b);
    s = read_items(b, dir, "corpus.jsonl", &b->doc, &b->n_doc, err);
    if (!s)
        s = read_items(b, dir, "queries.jsonl", &queries, &n, err);
    if (s)
        goto done;
    if (limit && n > limit)
        n = limit;
    if (!(b->query = calloc(n ? n : 1, sizeof *b->query))) {
        s = rr__fail(err, RR_E_NOMEM, "%zu queries", n);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        b->query[i].id = queries[i].id;
        b->query[i].text = queries[i].text;
    }
    b->n_query = n;
    qsort(b->doc, b->n_doc, sizeof *b->doc, by_id);
    qsort(b->query, b->n_query, sizeof *b->query, by_query_id);
    snprintf(path, sizeof path, "%s/qrels.tsv", dir);
    if (access(path, R_OK) != 0)
        snprintf(path, sizeof path, "%s/qrels/test.tsv", dir);
    s = read_links(b, path, &rel, &n_rel, err);
    snprintf(path, sizeof path, "%s/candidates.tsv", dir);
    if (!s && access(path, R_OK) == 0)
        s = read_links(b, path, &cand, &n_cand, err);
    if (!s)
        s = attach_all(b, cand, n_cand, rel, n_rel, max_candidates, err);
    if (!s && !b->n_query)
        s = rr__fail(err, RR_E_FORMAT, "%s: no query has a relevant document", dir);
done:
    free(queries);
    free(cand);
    free(rel);
    if (s)
        beir_close(b);
    return s;
}

void beir_close(beir *b) {
    rr__arena_free(&b->arena);
    free(b->doc);
    free(b->query);
    memset(b, 0, sizeof *b);
}

rr_status beir_ndcg10(const beir *b, const float *scores, double *sum, rr_error *err) {
    int32_t *order;
    size_t   widest = 1;

    for (size_t i = 0; i < b->n_query; i++)
        widest = b->query[i].n_doc > widest ? b->query[i].n_doc : widest;
    order = malloc(widest * sizeof *order);
    if (!order)
        return rr__fail(err, RR_E_NOMEM, "%zu documents", widest);
    *sum = 0;
    for (size_t i = 0; i < b->n_query; scores += b->query[i++].n_doc) {
        const beir_query *q = &b->query[i];

        metrics_rank(scores, q->n_doc, order);
        *sum += metrics_of(order, q->n_doc, q->grade, q->ideal, q->n_ideal).ndcg10;
    }
    free(order);
    return RR_OK;
}
