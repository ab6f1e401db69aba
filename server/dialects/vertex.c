/* vertex.c - Vertex AI: several rerank requests in one, at /predict and /vertex.
 *
 *     {"instances": [{"query", "texts" | "documents", "raw_scores", "return_text", "top_n"}, ..]}
 *     {"predictions": [[{"index", "score", "text"?}, ..], ..]}         each best first
 *
 * All of them are one job. Options of the job (truncation, deadline) stand beside "instances". */
#include "server/request.h"

typedef struct instance {
    size_t first, n, top_n; /* of r->docs */
    int    raw, echo;
} instance;

typedef struct instances {
    instance *at; /* [n] */
    size_t    n;
} instances;

/* One instance behind the documents of those before; all is checked before it is copied. */
static int take(rr__request *r, rr_str body, size_t i, instance *out, rr_str *queries,
                rr_str *docs) {
    rr__fields       f;
    const rr__texts *texts;
    char             what[200];

    if (rr__body_read(body.ptr, body.len, &r->arena, &f, what, sizeof what) != RR__BODY_OK)
        return rr__problem_set(r, RR__P_FIELD, "instances[%zu]: %s", i, what);
    texts = f.texts.set ? &f.texts : &f.documents;
    if (!f.query.set || f.query.n != 1 || !texts->set || (f.top_n.set && f.top_n.v < 0))
        return rr__problem_set(r, RR__P_FIELD, "instances[%zu]: expected query and texts", i);
    if (texts->n == 0)
        return rr__problem_set(r, RR__P_EMPTY, "instances[%zu]: no texts", i);
    if (r->n + texts->n > (size_t)r->server->o.max_docs)
        return rr__problem_set(r, RR__P_TOO_LARGE, "instances: over the limit of %d texts",
                               (int)r->server->o.max_docs);
    *out = (instance){.first = r->n,
                      .n = texts->n,
                      .top_n = f.top_n.set ? (size_t)f.top_n.v : 0,
                      .raw = r->raw || f.raw_scores == RR__TRUE,
                      .echo = f.return_text == RR__TRUE || f.return_documents == RR__TRUE};
    for (size_t k = 0; k < texts->n; k++) {
        queries[r->n] = f.query.at[0];
        docs[r->n++] = texts->at[k];
        r->n_chars += texts->at[k].len;
    }
    return 1;
}

static int vertex_accept(rr__request *r) {
    const size_t most = (size_t)r->server->o.max_docs;
    instances   *all = rr__arena_calloc(&r->arena, 1, sizeof *all);
    rr_str      *queries = rr__arena_calloc(&r->arena, most, sizeof *queries);
    rr_str      *docs = rr__arena_calloc(&r->arena, most, sizeof *docs), body;
    instance    *at = rr__arena_calloc(&r->arena, most, sizeof *at);
    rr__json     j;

    if (!all || !queries || !docs || !at)
        return rr__problem_set(r, RR__P_UNAVAILABLE, "out of memory");
    all->at = at;
    rr__json_init(&j, r->fields.instances.ptr, r->fields.instances.len, &r->arena);
    if (rr__json_peek(&j) != RR__JSON_ARRAY || !rr__json_array(&j))
        return rr__problem_set(r, RR__P_FIELD, "instances: expected a list");
    while (rr__json_next(&j)) { /* each has a text, so that there are at most max_docs of them */
        if (!rr__json_raw(&j, &body))
            return rr__problem_set(r, RR__P_FIELD, "instances: expected a list of objects");
        if (!take(r, body, all->n, &at[all->n], queries, docs))
            return 0;
        all->n++;
    }
    if (all->n == 0)
        return rr__problem_set(r, RR__P_EMPTY, "instances: the list is empty");
    r->extra = all;
    r->queries = queries;
    r->docs = docs;
    return 1;
}

static void vertex_write(rr__request *r) {
    const instances *all = r->extra;
    rr__json_out    *o = &r->out;

    rr__out_object(o);
    rr__out_key(o, "predictions");
    rr__out_array(o);
    for (size_t i = 0; i < all->n; i++) {
        const instance   *x = &all->at[i];
        size_t            n = x->n;
        const rr__ranked *ranked = rr__rank_some(r, x->first, &n);

        n = x->top_n && x->top_n < n ? x->top_n : n;
        r->raw = x->raw;
        r->echo = x->echo;
        rr__out_array(o);
        for (size_t k = 0; ranked && k < n; k++)
            rr__write_tei(r, &ranked[k], x->first);
        rr__out_end_array(o);
    }
    rr__out_end_array(o);
    rr__out_end_object(o);
}

const rr__dialect rr__vertex = {"vertex", vertex_accept, vertex_write, rr__results_fail};
