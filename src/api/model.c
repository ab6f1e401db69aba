/* model.c - the model side of rerank.h: a directory's tokenizer and weights behind one handle. */
#include "api/api.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static rr_status model_open(const char *dir, int with_weights, rr_model **out, rr_error *err) {
    rr_model *m;
    rr_status s;

    if (!dir || !out)
        return rr__fail(err, RR_E_ARG, "model: dir and out must not be NULL");
    m = calloc(1, sizeof *m);
    if (!m || !(m->dir = strdup(dir))) {
        free(m);
        return rr__fail(err, RR_E_NOMEM, "%s: out of memory", dir);
    }
    atomic_init(&m->refs, 1);
    s = with_weights ? rr__model_open(dir, &m->weights, err) : RR_OK;
    if (s == RR_OK)
        s = rr__tokenizer_open(dir, &m->tok, err);
    if (s == RR_OK && with_weights &&
        rr__tokenizer_vocab_size(m->tok) > (int32_t)m->weights->vocab_size)
        s = rr__fail(err, RR_E_FORMAT, "%s: the tokenizer has %d tokens, the model only %d", dir,
                     (int)rr__tokenizer_vocab_size(m->tok), (int)m->weights->vocab_size);
    if (s != RR_OK) {
        rr_model_close(m);
        return s;
    }
    *out = m;
    return RR_OK;
}

rr_status rr_model_open(const char *dir, rr_model **out, rr_error *err) {
    return model_open(dir, 1, out, err);
}

rr_status rr_tokenizer_open(const char *dir, rr_model **out, rr_error *err) {
    return model_open(dir, 0, out, err);
}

void rr__model_ref(const rr_model *model) {
    atomic_fetch_add(&((rr_model *)model)->refs, 1);
}

void rr_model_close(rr_model *model) {
    if (!model || atomic_fetch_sub(&model->refs, 1) != 1)
        return;
    if (model->tok)
        rr__tokenizer_close(model->tok);
    if (model->weights)
        rr__model_close(model->weights);
    free(model->dir);
    free(model);
}

static const char *dtype_text(rr__dtype d) {
    return d == RR__DT_F32 ? "float32" : d == RR__DT_F16 ? "float16" : "bfloat16";
}

void rr_model_describe(const rr_model *model, rr_model_info *out) {
    const rr__model *w = model ? model->weights : NULL;

    if (!out)
        return;
    *out = (rr_model_info){.dir = model ? model->dir : NULL};
    if (!w)
        return;
    out->architecture = w->architecture;
    out->dtype = dtype_text(w->layer[0].wq.dtype);
    out->n_layer = w->n_layer;
    out->d_model = w->d_model;
    out->n_head = w->n_head;
    out->d_ff = w->d_ff;
    out->vocab_size = w->vocab_size;
    out->max_length = w->max_length;
    out->n_param = w->n_param;
    out->label = w->label;
}

rr_status rr_tokenize(const rr_model *model, rr_str text, int add_special, rr_token *tokens,
                      size_t cap, size_t *n, rr_error *err) {
    if (!model || !n || (!tokens && cap > 0) || (!text.ptr && text.len > 0))
        return rr__fail(err, RR_E_ARG, "rr_tokenize: NULL where data is needed");
    return rr__tokenizer_encode_spans(model->tok, text, add_special, tokens, cap, n, err);
}

rr_status rr_tokenize_pair(const rr_model *model, rr_str query, rr_str doc,
                           const rr_submit_opts *opts, int32_t *ids, size_t cap, size_t *n,
                           rr_doc_info *info, rr_error *err) {
    rr_submit_opts defaults = {0};
    rr_doc_info    what;
    rr__pair_opts  o;
    rr__ids        q = {0}, pair = {0};
    int32_t        seg, limit;
    rr_status      s;

    if (!model || !n || (!ids && cap > 0) || (!query.ptr && query.len > 0) ||
        (!doc.ptr && doc.len > 0))
        return rr__fail(err, RR_E_ARG, "rr_tokenize_pair: NULL where data is needed");
    limit = model->weights ? model->weights->max_length : INT32_MAX;
    s = rr__pair_options(model->tok, opts, &defaults, limit, &o, err);
    if (s == RR_OK)
        s = rr__tokenizer_encode(model->tok, query, &q, err);
    if (s == RR_OK)
        s = rr__pair_encode(model->tok, q.id, q.n, doc, &o, &pair, &seg, &what, err);
    if (s == RR_OK) {
        if (cap > 0 && pair.n > 0)
            memcpy(ids, pair.id, (pair.n < cap ? pair.n : cap) * sizeof *ids);
        *n = pair.n;
        if (info)
            *info = what;
    }
    rr__ids_free(&q);
    rr__ids_free(&pair);
    return s;
}

rr_str rr_token_text(const rr_model *model, int32_t id) {
    if (!model || id < 0 || id >= rr__tokenizer_vocab_size(model->tok))
        return (rr_str){NULL, 0};
    return rr__tokenizer_piece(model->tok, id);
}

float rr_sigmoid(float logit) {
    return (float)(1.0 / (1.0 + exp(-(double)logit)));
}
