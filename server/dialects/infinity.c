/* infinity.c - Infinity: as Jina, but a document is a string, and "created" is in the answer.
 *
 *     {"model", "query", "documents": [str], "top_n", "return_documents", "raw_scores"}
 *     {"object": "rerank", "results": [{"relevance_score", "index", "document"?}], "model",
 *      "usage": {..}, "id", "created"}
 *
 * "usage" counts tokens, where Infinity counts characters unless told otherwise. */
#include "server/request.h"

#include <time.h>

static void infinity_write(rr__request *r) {
    rr__json_out *o = &r->out;

    rr__out_object(o);
    rr__out_key(o, "object");
    rr__out_cstr(o, "rerank");
    rr__out_key(o, "results");
    rr__write_plain(r, "relevance_score");
    rr__write_model(r);
    rr__write_usage(r);
    rr__out_key(o, "id");
    rr__out_cstr(o, r->id);
    rr__out_key(o, "created");
    rr__out_i64(o, (int64_t)time(NULL));
    rr__write_timings(r);
    rr__out_end_object(o);
}

const rr__dialect rr__infinity = {"infinity", rr__results_accept, infinity_write, rr__results_fail};
