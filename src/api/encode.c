/* encode.c - the documents of a request to sequences: query once, documents from the cache where
 * they are known, and shared among a few threads where there is enough to share. */
#include "api/api.h"

#include <stdlib.h>
#include <string.h>

enum {
    SHARE_BYTES = 32768 /* of documents: under a millisecond of work is not worth waking threads */
};

/* What one thread writes. */
typedef struct share {
    rr__ids ids;   /* sequences, in the order this thread did them */
    rr__ids doc;   /* scratch                                       */
    rr__ids query; /* of document query_of                          */
    size_t  query_of;
} share;

typedef struct place {
    int    share;
    size_t start; /* in share.ids */
} place;

typedef struct encoding {
    rr_engine           *e;
    const rr_str        *queries, *docs;
    size_t               n_query;
    int                  singles; /* a document that is NULL: the query alone */
    const rr__pair_opts *o;
    rr__encoded         *out;
    share               *shares;
    place               *places; /* [n] */
    atomic_llong         tokens; /* so far */
    atomic_int           failed;
    pthread_mutex_t      lock; /* guards error */
    rr_error             error;
} encoding;

void rr__encoded_free(rr__encoded *x) {
    rr__ids_free(&x->ids);
    free(x->cu);
    free(x->seg);
    free(x->info);
    memset(x, 0, sizeof *x);
}

static rr_status encode_query(const encoding *c, share *s, size_t i, rr_error *err) {
    const rr_str *q = &c->queries[c->n_query > 1 ? i : 0], *had = &c->queries[s->query_of];
    rr_status     status;

    if (s->query_of < c->n_query && q->len == had->len &&
        (q->len == 0 || memcmp(q->ptr, had->ptr, q->len) == 0))
        return RR_OK;
    s->query.n = 0;
    s->query_of = SIZE_MAX;
    status = rr__tokenizer_encode(c->e->model->tok, *q, &s->query, err);
    if (status == RR_OK)
        s->query_of = (size_t)(q - c->queries);
    return status;
}

static rr_status encode_doc(const encoding *c, share *s, size_t i, rr_error *err) {
    const rr__tokenizer *t = c->e->model->tok;
    rr__cache           *cache = c->e->cache;
    rr_status            status = RR_OK;

    if (c->singles && !c->docs[i].ptr)
        return rr__single_splice(t, s->query.id, s->query.n, c->o, &s->ids, &c->out->seg[i],
                                 &c->out->info[i], err);
    if (!cache)
        return rr__pair_encode(t, s->query.id, s->query.n, c->docs[i], c->o, &s->ids,
                               &c->out->seg[i], &c->out->info[i], err);
    s->doc.n = 0;
    if (!rr__cache_get(cache, c->docs[i], &s->doc)) {
        s->doc.n = 0;
        status = rr__tokenizer_encode(t, c->docs[i], &s->doc, err);
        if (status != RR_OK)
            return status;
        rr__cache_put(cache, c->docs[i], s->doc.id, s->doc.n);
    }
    return rr__pair_splice(t, s->query.id, s->query.n, s->doc.id, s->doc.n, c->o, &s->ids,
                           &c->out->seg[i], &c->out->info[i], err);
}

static void encode_one(void *arg, size_t i, int worker) {
    encoding *c = arg;
    share    *s = &c->shares[worker];
    rr_error  err = {0};
    rr_status status;

    if (atomic_load_explicit(&c->failed, memory_order_relaxed))
        return;
    c->places[i] = (place){worker, s->ids.n};
    status = encode_query(c, s, i, &err);
    if (status == RR_OK)
        status = encode_doc(c, s, i, &err);
    if (status == RR_OK) {
        long long len = (long long)(s->ids.n - c->places[i].start);

        c->out->cu[i + 1] = (int32_t)len; /* summed up at the end */
        if (atomic_fetch_add(&c->tokens, len) + len <= c->e->max_queue_tokens)
            return;
        status = rr__fail(&err, RR_E_TOO_LARGE,
                          "the request has more than the %lld tokens the whole queue holds",
                          (long long)c->e->max_queue_tokens);
    } else {
        rr__fail_prefix(&err, status, "document %zu", i);
    }
    pthread_mutex_lock(&c->lock);
    if (!atomic_exchange(&c->failed, 1)) {
        c->error = err;
        c->error.status = status;
    }
    pthread_mutex_unlock(&c->lock);
}

/* All ids into one block, in input order. */
static rr_status gather(encoding *c, size_t n, int n_share, rr_error *err) {
    rr__encoded *x = c->out;
    int          used = 0;

    x->cu[0] = 0;
    for (size_t i = 0; i < n; i++)
        x->cu[i + 1] += x->cu[i];
    for (int k = 0; k < n_share; k++)
        used += c->shares[k].ids.n > 0;
    if (used <= 1) { /* one thread did it all, in order */
        int k = n > 0 ? c->places[0].share : 0;

        x->ids = c->shares[k].ids;
        c->shares[k].ids = (rr__ids){0};
        return RR_OK;
    }
    x->ids.n = x->ids.cap = (size_t)x->cu[n];
    x->ids.id = malloc(x->ids.n * sizeof *x->ids.id);
    if (!x->ids.id)
        return rr__fail(err, RR_E_NOMEM, "request of %d tokens: out of memory", (int)x->cu[n]);
    for (size_t i = 0; i < n; i++)
        memcpy(x->ids.id + x->cu[i], c->shares[c->places[i].share].ids.id + c->places[i].start,
               (size_t)(x->cu[i + 1] - x->cu[i]) * sizeof *x->ids.id);
    return RR_OK;
}

rr_status rr__encode(rr_engine *e, const rr_str *queries, size_t n_query, const rr_str *docs,
                     size_t n, int singles, const rr__pair_opts *o, rr__encoded *out,
                     rr_error *err) {
    encoding c = {
        .e = e, .queries = queries, .docs = docs, .n_query = n_query, .singles = singles, .o = o};
    size_t    bytes = 0;
    int       n_share;
    rr_status status = RR_OK;

    for (size_t i = 0; i < n && bytes < SHARE_BYTES; i++)
        bytes += docs[i].ptr || !singles ? docs[i].len : queries[i].len;
    n_share = bytes < SHARE_BYTES ? 1 : rr__pool_threads(e->pool);
    *out = (rr__encoded){0};
    out->cu = malloc((n + 1) * sizeof *out->cu);
    out->seg = malloc(n * sizeof *out->seg);
    out->info = malloc(n * sizeof *out->info);
    c.out = out;
    c.shares = calloc((size_t)n_share, sizeof *c.shares);
    c.places = malloc(n * sizeof *c.places);
    pthread_mutex_init(&c.lock, NULL);
    if (!out->cu || !out->seg || !out->info || !c.shares || !c.places) {
        status = rr__fail(err, RR_E_NOMEM, "request of %zu documents: out of memory", n);
        goto done;
    }
    for (int k = 0; k < n_share; k++)
        c.shares[k].query_of = SIZE_MAX;
    rr__pool_run(n_share > 1 ? e->pool : NULL, n, encode_one, &c);
    if (atomic_load(&c.failed)) {
        status = c.error.status;
        if (err)
            *err = c.error;
        goto done;
    }
    status = gather(&c, n, n_share, err);
done:
    for (int k = 0; c.shares && k < n_share; k++) {
        rr__ids_free(&c.shares[k].ids);
        rr__ids_free(&c.shares[k].doc);
        rr__ids_free(&c.shares[k].query);
    }
    free(c.shares);
    free(c.places);
    pthread_mutex_destroy(&c.lock);
    if (status != RR_OK)
        rr__encoded_free(out);
    return status;
}
