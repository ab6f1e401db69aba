/* tei.c - Hugging Face text-embeddings-inference: /rerank with "texts", /predict, /info.
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

static void tei_write(rr__request *r) {
    size_t            n = 0;
    const rr__ranked *ranked = rr__rank(r, &n);
    rr__json_out     *o = &r->out;

    rr__out_array(o);
    for (size_t i = 0; ranked && i < n; i++) {
        rr__out_object(o);
        rr__out_key(o, "index");
        rr__out_u64(o, ranked[i].index);
        if (r->echo) {
            rr__out_key(o, "text");
            rr__out_str(o, r->docs[ranked[i].index]);
        }
        rr__out_key(o, "score");
        rr__out_f32(o, rr__activate(r, ranked[i].score));
        rr__write_details(r, ranked[i].index);
        rr__out_end_object(o);
    }
    rr__out_end_array(o);
}

static int tei_fail(rr__request *r) {
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

const rr__dialect rr__tei = {"tei", tei_accept, tei_write, tei_fail};

/* ---- whoever comes --------------------------------------------------------------------------- */

static int any_accept(rr__request *r) {
    r->dialect = r->fields.texts.set ? &rr__tei : &rr__results;
    return r->dialect->accept(r);
}

static int any_fail(rr__request *r) {
    return rr__results.fail(r);
}

const rr__dialect rr__any = {"any", any_accept, NULL, any_fail};

/* ---- /predict: "a", ["a", "b"] (a pair), or a list of such ----------------------------------- */

typedef struct inputs {
    rr_str *first,
        *second; /* [n]; second[i].ptr is NULL for a single text, as rr_submit_pairs has it */
    size_t n;
    int    batch;
} inputs;

/* ["a"] or ["a", "b"], behind its '['. */
static int take_sides(rr__json *j, rr_str *first, rr_str *second) {
    int n = 0;

    while (rr__json_next(j)) {
        if (n == 2 || !rr__json_string(j, n == 0 ? first : second))
            return 0;
        n++;
    }
    return n > 0;
}

static int take_inputs(rr__request *r, inputs *in) {
    const size_t most = (size_t)r->server->o.max_docs;
    rr__json     j, back;
    rr_str       two[2] = {{NULL, 0}};
    int          flat;

    rr__json_init(&j, r->fields.inputs.ptr, r->fields.inputs.len, &r->arena);
    in->first = rr__arena_calloc(&r->arena, 1, sizeof *in->first);
    in->second = rr__arena_calloc(&r->arena, 1, sizeof *in->second);
    if (!in->first || !in->second)
        return rr__problem_set(r, RR__P_UNAVAILABLE, "out of memory");
    if (rr__json_peek(&j) == RR__JSON_STRING) {
        in->n = 1;
        return rr__json_string(&j, in->first);
    }
    if (!rr__json_array(&j))
        return 0;
    back = j;
    flat = rr__json_next(&j) && rr__json_peek(&j) == RR__JSON_STRING;
    j = back;
    if (flat) {
        in->n = 1;
        if (!take_sides(&j, &two[0], &two[1]))
            return 0;
        in->first[0] = two[0];
        in->second[0] = two[1];
        return 1;
    }
    in->batch = 1;
    while (rr__json_next(&j)) { /* count first: the lists are then of the right size */
        rr__json_skip(&j);
        in->n++;
    }
    if (in->n > most)
        return rr__problem_set(r, RR__P_TOO_LARGE, "inputs: %zu, the limit is %zu", in->n, most);
    in->first = rr__arena_calloc(&r->arena, in->n, sizeof *in->first);
    in->second = rr__arena_calloc(&r->arena, in->n, sizeof *in->second);
    if (!in->first || !in->second)
        return rr__problem_set(r, RR__P_UNAVAILABLE, "out of memory");
    for (size_t i = 0; i < in->n && rr__json_next(&back); i++) {
        if (!rr__json_array(&back) || !take_sides(&back, &in->first[i], &in->second[i]))
            return 0;
    }
    return 1;
}

static int predict_accept(rr__request *r) {
    inputs *in = rr__arena_calloc(&r->arena, 1, sizeof *in);

    if (!in)
        return rr__problem_set(r, RR__P_UNAVAILABLE, "out of memory");
    if (!r->fields.inputs.ptr)
        return rr__problem_set(r, RR__P_FIELD, "inputs: missing");
    if (!take_inputs(r, in))
        return rr__problem_set(
            r, RR__P_FIELD,
            "inputs: expected a text, a pair of texts, or a list of lists of one "
            "or two texts");
    if (in->n == 0)
        return rr__problem_set(r, RR__P_EMPTY, "inputs: the list is empty");
    for (size_t i = 0; i < in->n; i++)
        r->n_chars += in->first[i].len + in->second[i].len;
    r->extra = in;
    r->n = in->n;
    r->queries = in->first;
    r->docs = in->second;
    return 1;
}

static void predict_write(rr__request *r) {
    const inputs *in = r->extra;
    size_t        n = 0;
    const float  *scores = rr_job_scores(r->job, &n);
    rr__json_out *o = &r->out;

    if (in->batch)
        rr__out_array(o);
    for (size_t i = 0; scores && i < n; i++) {
        rr__out_array(o);
        rr__out_object(o);
        rr__out_key(o, "score");
        rr__out_f32(o, rr__activate(r, scores[i]));
        rr__out_key(o, "label");
        rr__out_cstr(o, r->server->model_info.label ? r->server->model_info.label : "LABEL_0");
        rr__write_details(r, i);
        rr__out_end_object(o);
        rr__out_end_array(o);
    }
    if (in->batch)
        rr__out_end_array(o);
}

const rr__dialect rr__predict = {"predict", predict_accept, predict_write, tei_fail};

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
