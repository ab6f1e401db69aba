/* results.c - the family with "documents" and "results": Cohere v1 and v2, Jina, vLLM, LocalAI.
 *
 *     {"model", "query", "documents": [str | {"text"}], "top_n", "return_documents", ..}
 *     {"id", "object", "model", "results": [{"index", "relevance_score", "document": {"text"}?}],
 *      "usage": {..}, "meta": {..}}
 *
 * They share paths, so one answer has what each of them looks for; an error too: Cohere reads
 * "message", Jina "detail", vLLM and OpenAI clients "error". "document" is left out unless asked
 * for, because clients trip over a null. */
#include "server/info.h"
#include "server/request.h"

#include <string.h>

int rr__results_accept(rr__request *r) {
    const rr__fields *f = &r->fields;

    if (!f->query.set || f->query.n != 1)
        return rr__problem_set(r, RR__P_FIELD, "query: expected a string");
    r->query = f->query.at[0];
    r->n_chars = r->query.len;
    return rr__take_docs(r, &f->documents, "documents");
}

/* Cohere counts a search for every 100 documents begun. */
static void write_meta(rr__request *r) {
    rr__json_out *o = &r->out;

    rr__out_key(o, "meta");
    rr__out_object(o);
    rr__out_key(o, "api_version");
    rr__out_object(o);
    rr__out_key(o, "version");
    rr__out_cstr(o, strncmp(r->route->path, "/v2", 3) == 0 ? "2" : "1");
    rr__out_end_object(o);
    rr__out_key(o, "billed_units");
    rr__out_object(o);
    rr__out_key(o, "search_units");
    rr__out_u64(o, (r->n + 99) / 100);
    rr__out_end_object(o);
    rr__out_key(o, "tokens");
    rr__out_object(o);
    rr__out_key(o, "input_tokens");
    rr__out_u64(o, r->n_tokens);
    rr__out_end_object(o);
    rr__out_end_object(o);
}

static void write_result(rr__request *r, const rr__ranked *ranked) {
    rr__json_out *o = &r->out;

    rr__out_object(o);
    rr__out_key(o, "index");
    rr__out_u64(o, ranked->index);
    rr__out_key(o, "relevance_score");
    rr__out_f32(o, rr__activate(r, ranked->score));
    if (r->echo) {
        rr__out_key(o, "document");
        rr__out_object(o);
        rr__out_key(o, "text");
        rr__out_str(o, r->docs[ranked->index]);
        rr__out_end_object(o);
    }
    rr__write_details(r, ranked->index);
    rr__out_end_object(o);
}

static void results_write(rr__request *r) {
    size_t            n = 0;
    const rr__ranked *ranked = rr__rank(r, &n);
    rr__json_out     *o = &r->out;

    rr__out_object(o);
    rr__out_key(o, "id");
    rr__out_cstr(o, r->id);
    rr__out_key(o, "object");
    rr__out_cstr(o, "list");
    rr__write_model(r);
    rr__out_key(o, "results");
    rr__out_array(o);
    for (size_t i = 0; ranked && i < n; i++)
        write_result(r, &ranked[i]);
    rr__out_end_array(o);
    rr__write_usage(r);
    write_meta(r);
    rr__write_timings(r);
    rr__out_end_object(o);
}

int rr__results_fail(rr__request *r) {
    rr__json_out *o = &r->out;
    int           http = rr__problem_http(r->problem);

    rr__out_object(o);
    rr__out_key(o, "id");
    rr__out_cstr(o, r->id);
    rr__out_key(o, "message");
    rr__out_cstr(o, r->text);
    rr__out_key(o, "detail");
    rr__out_cstr(o, r->text);
    rr__out_key(o, "error");
    rr__out_object(o);
    rr__out_key(o, "message");
    rr__out_cstr(o, r->text);
    rr__out_key(o, "type");
    rr__out_cstr(o, rr__problem_openai(r->problem));
    rr__out_key(o, "param");
    rr__out_null(o);
    rr__out_key(o, "code");
    rr__out_i64(o, http);
    rr__out_end_object(o);
    rr__out_end_object(o);
    return http;
}

const rr__dialect rr__results = {"results", rr__results_accept, results_write, rr__results_fail};

void rr__get_models(rr__request *r) {
    rr__json_out *o = &r->out;

    rr__out_object(o);
    rr__out_key(o, "object");
    rr__out_cstr(o, "list");
    rr__out_key(o, "data");
    rr__out_array(o);
    rr__out_object(o);
    rr__out_key(o, "id");
    rr__out_cstr(o, r->server->model_name);
    rr__out_key(o, "object");
    rr__out_cstr(o, "model");
    rr__out_key(o, "owned_by");
    rr__out_cstr(o, "rerank.c");
    rr__out_key(o, "max_model_len");
    rr__out_i64(o, r->server->engine_info.max_length);
    rr__out_end_object(o);
    rr__out_end_array(o);
    rr__out_end_object(o);
}
