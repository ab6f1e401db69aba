/* predict.c - scores of pairs in input order.
 *
 *     TEI's /predict      {"inputs": "a" | ["a", "b"] | [["a"], ["a", "b"], ..]}
 *                         [{"score", "label"}], or a list of such for a list of lists
 *     /invocations, the cross-encoder endpoint of LangChain on SageMaker
 *                         {"text_pairs": [["a", "b"], ..]}  ->  {"scores": [..]} */
#include "server/request.h"

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

static int take_inputs(rr__request *r, rr_str value, inputs *in) {
    const size_t most = (size_t)r->server->o.max_docs;
    rr__json     j, back;
    rr_str       two[2] = {{NULL, 0}};
    int          flat;

    rr__json_init(&j, value.ptr, value.len, &r->arena);
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

/* `value` of the key `name` into a job. */
static int take_pairs(rr__request *r, rr_str value, const char *name) {
    inputs *in = rr__arena_calloc(&r->arena, 1, sizeof *in);

    if (!in)
        return rr__problem_set(r, RR__P_UNAVAILABLE, "out of memory");
    if (!value.ptr)
        return rr__problem_set(r, RR__P_FIELD, "%s: missing", name);
    if (!take_inputs(r, value, in))
        return rr__problem_set(
            r, RR__P_FIELD,
            "%s: expected a text, a pair of texts, or a list of lists of one or two texts", name);
    if (in->n == 0)
        return rr__problem_set(r, RR__P_EMPTY, "%s: the list is empty", name);
    for (size_t i = 0; i < in->n; i++)
        r->n_chars += in->first[i].len + in->second[i].len;
    r->extra = in;
    r->n = in->n;
    r->queries = in->first;
    r->docs = in->second;
    return 1;
}

static int predict_accept(rr__request *r) {
    if (r->fields.instances.ptr) { /* AIP_PREDICT_ROUTE is often this path */
        r->dialect = &rr__vertex;
        return rr__vertex.accept(r);
    }
    return take_pairs(r, r->fields.inputs, "inputs");
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

const rr__dialect rr__predict = {"predict", predict_accept, predict_write, rr__tei_fail};

static int pairs_accept(rr__request *r) {
    return take_pairs(r, r->fields.text_pairs, "text_pairs");
}

static void pairs_write(rr__request *r) {
    size_t        n = 0;
    const float  *scores = rr_job_scores(r->job, &n);
    rr__json_out *o = &r->out;

    rr__out_object(o);
    rr__out_key(o, "scores");
    rr__out_array(o);
    for (size_t i = 0; scores && i < n; i++)
        rr__out_f32(o, rr__activate(r, scores[i]));
    rr__out_end_array(o);
    rr__out_end_object(o);
}

const rr__dialect rr__pairs = {"pairs", pairs_accept, pairs_write, rr__results_fail};
