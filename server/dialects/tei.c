/* tei.c - Hugging Face text-embeddings-inference: /rerank with "texts", /info.
 *
 *     {"query", "texts": [..], "raw_scores", "return_text", "truncate", "truncation_direction"}
 *     [{"index", "text"?, "score"}, ..]              best first; no usage, the headers carry it
 *     {"error", "error_type"}
 *
 * And rr__any, for paths that TEI shares with others: "texts" in the body means TEI. */
#include "server/info.h"
#include "server/request.h"

#include <string.h>

static int tei_accept(rr__request *r) {
    const rr__fields *f = &r->fields;

    if (!f->query.set || f->query.n != 1)
        return rr__problem_set(r, RR__P_FIELD, "query: expected a string");
    r->query = f->query.at[0];
    r->n_chars = r->query.len;
    return rr__take_docs(r, &f->texts, "texts");
}

void rr__write_tei(rr__request *r, const rr__ranked *ranked, size_t first) {
    rr__json_out *o = &r->out;

    rr__out_object(o);
    rr__out_key(o, "index");
    rr__out_u64(o, ranked->index);
    if (r->echo) {
        rr__out_key(o, "text");
        rr__out_str(o, r->docs[first + ranked->index]);
    }
    rr__out_key(o, "score");
    rr__out_f32(o, rr__activate(r, ranked->score));
    rr__write_details(r, first + ranked->index);
    rr__out_end_object(o);
}

static void tei_write(rr__request *r) {
    size_t            n = 0;
    const rr__ranked *ranked = rr__rank(r, &n);

    rr__out_array(&r->out);
    for (size_t i = 0; ranked && i < n; i++)
        rr__write_tei(r, &ranked[i], 0);
    rr__out_end_array(&r->out);
}

int rr__tei_fail(rr__request *r) {
    int http = rr__problem_http(r->problem);

    if (r->problem == RR__P_FIELD || r->problem == RR__P_TOO_LONG)
        http = 422;
    else if (r->problem == RR__P_BACKEND)
        http = 424;
    rr__out_object(&r->out);
    rr__out_key(&r->out, "error");
    rr__out_cstr(&r->out, r->text);
    rr__out_key(&r->out, "error_type");
    rr__out_cstr(&r->out, rr__problem_tei(r->problem));
    rr__out_end_object(&r->out);
    return http;
}

const rr__dialect rr__tei = {"tei", tei_accept, tei_write, rr__tei_fail};

/* ---- whoever comes --------------------------------------------------------------------------- */

static int any_accept(rr__request *r) {
    r->dialect = r->fields.text_pairs.ptr ? &rr__pairs
                 : r->fields.texts.set    ? &rr__tei
                                          : &rr__results;
    return r->dialect->accept(r);
}

const rr__dialect rr__any = {"any", any_accept, NULL, rr__results_fail};

/* ---- /info ----------------------------------------------------------------------------------- */

static void pair_str(rr__json_out *o, const char *key, const char *value) {
    rr__out_key(o, key);
    if (value)
        rr__out_cstr(o, value);
    else
        rr__out_null(o);
}

static void pair_i64(rr__json_out *o, const char *key, int64_t value) {
    rr__out_key(o, key);
    rr__out_i64(o, value);
}

void rr__get_info(rr__request *r) {
    const rr__server     *s = r->server;
    const rr_engine_info *e = &s->engine_info;
    const char           *label = s->model_info.label ? s->model_info.label : "LABEL_0";
    rr__json_out         *o = &r->out;

    rr__out_object(o);
    pair_str(o, "model_id", s->model_name);
    pair_str(o, "model_sha", NULL);
    pair_str(o, "model_dtype", e->precision);
    pair_str(o, "served_model_name", s->model_name);
    rr__out_key(o, "model_type");
    rr__out_object(o);
    rr__out_key(o, "reranker");
    rr__out_object(o);
    rr__out_key(o, "id2label");
    rr__out_object(o);
    pair_str(o, "0", label);
    rr__out_end_object(o);
    rr__out_key(o, "label2id");
    rr__out_object(o);
    pair_i64(o, label, 0);
    rr__out_end_object(o);
    rr__out_end_object(o);
    rr__out_end_object(o);
    pair_i64(o, "max_concurrent_requests", s->o.max_conns);
    pair_i64(o, "max_input_length", e->max_length);
    pair_i64(o, "max_batch_tokens", e->max_batch_tokens);
    rr__out_key(o, "max_batch_requests");
    rr__out_null(o);
    pair_i64(o, "max_client_batch_size", s->o.max_docs);
    rr__out_key(o, "auto_truncate");
    rr__out_bool(o, !s->o.refuse_long);
    pair_i64(o, "tokenization_workers", s->o.workers);
    pair_str(o, "version", rr_version());
    pair_str(o, "sha", NULL);
    pair_str(o, "docker_label", NULL);
    pair_str(o, "backend", e->backend);
    pair_str(o, "device", e->device);
    rr__out_end_object(o);
}
