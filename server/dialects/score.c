/* score.c - vLLM's /score: scores in input order, of one query with many documents or of pairs.
 *
 *     {"text_1" | "queries" | "data_1": str | [str], "text_2" | "documents" | "data_2": str | [str]}
 *     {"id", "object", "created", "model", "data": [{"index", "object", "score"}], "usage"} */
#include "server/request.h"

#include <time.h>

static int score_accept(rr__request *r) {
    const rr__fields *f = &r->fields;
    const rr__texts  *q = f->queries.set ? &f->queries : &f->query;

    if (!q->set)
        return rr__problem_set(r, RR__P_FIELD, "text_1: missing");
    if (q->n == 0)
        return rr__problem_set(r, RR__P_EMPTY, "text_1: the list is empty");
    if (!rr__take_docs(r, &f->documents, "text_2"))
        return 0;
    for (size_t i = 0; i < q->n; i++)
        r->n_chars += q->at[i].len;
    r->query = q->at[0];
    if (q->n == 1)
        return 1;
    if (q->n != r->n)
        return rr__problem_set(r, RR__P_FIELD, "text_1 has %zu texts and text_2 has %zu", q->n,
                               r->n);
    r->queries = q->at;
    return 1;
}

static void score_write(rr__request *r) {
    size_t        n = 0;
    const float  *scores = rr_job_scores(r->job, &n);
    rr__json_out *o = &r->out;

    rr__out_object(o);
    rr__out_key(o, "id");
    rr__out_cstr(o, r->id);
    rr__out_key(o, "object");
    rr__out_cstr(o, "list");
    rr__out_key(o, "created");
    rr__out_i64(o, (int64_t)time(NULL));
    rr__write_model(r);
    rr__out_key(o, "data");
    rr__out_array(o);
    for (size_t i = 0; scores && i < n; i++) {
        rr__out_object(o);
        rr__out_key(o, "index");
        rr__out_u64(o, i);
        rr__out_key(o, "object");
        rr__out_cstr(o, "score");
        rr__out_key(o, "score");
        rr__out_f32(o, rr__activate(r, scores[i]));
        rr__write_details(r, i);
        rr__out_end_object(o);
    }
    rr__out_end_array(o);
    rr__write_usage(r);
    rr__write_timings(r);
    rr__out_end_object(o);
}

const rr__dialect rr__score = {"score", score_accept, score_write, rr__results_fail};
