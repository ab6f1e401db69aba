/* sglang.c - SGLang: a bare list, best first, documents in it unless "return_documents" is false.
 *
 *     {"query", "documents": [str], "top_n", "return_documents"}
 *     [{"score", "document"?, "index"}, ..] */
#include "server/request.h"

static int sglang_accept(rr__request *r) {
    r->echo = r->fields.return_documents != RR__FALSE;
    return rr__results_accept(r);
}

static void sglang_write(rr__request *r) {
    rr__write_plain(r, "score");
}

const rr__dialect rr__sglang = {"sglang", sglang_accept, sglang_write, rr__results_fail};
