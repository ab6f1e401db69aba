/* llamacpp.c - llama.cpp's own paths, /reranking and /v1/reranking: Jina's or TEI's bodies and answers,
 * but scores are logits unless the request says otherwise. On /rerank and /v1/rerank its
 * clients get what the others get there. */
#include "server/request.h"

static int llamacpp_accept(rr__request *r) {
    r->raw = r->fields.raw_scores != RR__FALSE && r->fields.use_activation != RR__TRUE;
    r->dialect = r->fields.texts.set ? &rr__tei : &rr__results;
    return r->dialect->accept(r);
}

const rr__dialect rr__llamacpp = {"llamacpp", llamacpp_accept, NULL, rr__results_fail};
