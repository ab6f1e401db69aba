/* nim.c - NVIDIA NIM's ranking: logits, best first.
 *
 *     {"model", "query": {"text"}, "passages": [{"text"}, ..], "truncate": "NONE" | "END"}
 *     {"rankings": [{"index", "logit"}, ..], "usage": {..}} */
#include "server/request.h"

static int nim_accept(rr__request *r) {
    const rr__fields *f = &r->fields;

    if (!f->query.set || f->query.n != 1)
        return rr__problem_set(r, RR__P_FIELD, "query: expected an object with \"text\"");
    r->query = f->query.at[0];
    r->n_chars = r->query.len;
    return rr__take_docs(r, &f->documents, "passages");
}

static void nim_write(rr__request *r) {
    size_t            n = 0;
    const rr__ranked *ranked = rr__rank(r, &n);
    rr__json_out     *o = &r->out;

    rr__out_object(o);
    rr__out_key(o, "rankings");
    rr__out_array(o);
    for (size_t i = 0; ranked && i < n; i++) {
        rr__out_object(o);
        rr__out_key(o, "index");
        rr__out_u64(o, ranked[i].index);
        rr__out_key(o, "logit");
        rr__out_f32(o, ranked[i].score);
        rr__write_details(r, ranked[i].index);
        rr__out_end_object(o);
    }
    rr__out_end_array(o);
    rr__write_usage(r);
    rr__write_timings(r);
    rr__out_end_object(o);
}

const rr__dialect rr__nim = {"nim", nim_accept, nim_write, rr__results_fail};
