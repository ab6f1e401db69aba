/* voyage.c - Voyage: "data" instead of "results", a document as a string, "truncation": false refuses.
 *
 *     {"model", "query", "documents": [str], "top_k", "return_documents", "truncation"}
 *     {"object": "list", "data": [{"index", "relevance_score", "document"?}], "model", "usage": {..}} */
#include "server/request.h"

static void voyage_write(rr__request *r) {
    rr__json_out *o = &r->out;

    rr__out_object(o);
    rr__out_key(o, "object");
    rr__out_cstr(o, "list");
    rr__out_key(o, "data");
    rr__write_plain(r, "relevance_score");
    rr__write_model(r);
    rr__write_usage(r);
    rr__write_timings(r);
    rr__out_end_object(o);
}

const rr__dialect rr__voyage = {"voyage", rr__results_accept, voyage_write, rr__results_fail};
