/* fuzz_request.c - request bodies of every dialect over arbitrary bytes: fields, options, what a
 * dialect makes of them. The first byte picks the path, the next two the length of the JSON before
 * binary tensors (0xffff: all of it). What is accepted must be within the limits. */
#include "server/request.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

volatile unsigned rr__fuzz_sum; /* so that the reads below are not optimised away */

/* Touch every byte that the engine would read. */
static unsigned check(const rr__request *r) {
    unsigned sum = 0;

    if (r->n == 0 || r->n > (size_t)r->server->o.max_docs)
        abort();
    if (r->ids) {
        for (size_t i = 0; i < r->n; i++)
            if (r->cu[i + 1] <= r->cu[i] || r->seg[i] < 0 || r->seg[i] > r->cu[i + 1] - r->cu[i])
                abort();
        for (int32_t t = 0; t < r->cu[r->n]; t++)
            sum += (unsigned)r->ids[t];
        return sum;
    }
    for (size_t i = 0; i < r->n; i++) {
        rr_str q = r->queries ? r->queries[i] : r->query;

        for (size_t b = 0; b < q.len; b++)
            sum += (unsigned char)q.ptr[b];
        for (size_t b = 0; b < r->docs[i].len; b++)
            sum += (unsigned char)r->docs[i].ptr[b];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static rr__server server;
    rr__request       r = {.server = &server, .header_len = -1, .method = "POST"};
    size_t            json;

    if (size < 3)
        return 0;
    if (!server.model) {
        rr_model_open("models/mini", &server.model, NULL);
        rr_model_describe(server.model, &server.model_info);
        server.engine_info.max_length = 64;
        server.model_name = "mini";
        server.o.max_docs = 100;
    }
    r.route = &rr__routes[data[0] % rr__n_routes];
    if (r.route->op == RR__OP_NOW)
        return 0;
    r.dialect = r.route->dialect;
    r.segment[0] = (rr_str){"mini", 4};
    json = (size_t)(data[1] << 8 | data[2]);
    r.body_len = size - 3;
    r.body = malloc(r.body_len + 1); /* of its own, so that a sanitizer sees its end */
    memcpy(r.body, data + 3, r.body_len);
    if (json != 0xffff)
        r.header_len = (int64_t)(json < r.body_len ? json : r.body_len);
    else
        json = r.body_len;
    if (rr__body_read(r.body, json < r.body_len ? json : r.body_len, &r.arena, &r.fields, r.text,
                      sizeof r.text) == RR__BODY_OK) {
        if (r.route->op == RR__OP_WORK)
            r.route->fn(&r);
        else if (rr__take_options(&r) && r.dialect->accept(&r))
            rr__fuzz_sum += check(&r);
    }
    if (r.problem != RR__P_NONE) {
        rr__out_reset(&r.out);
        rr__write_problem(&r);
    }
    rr__out_free(&r.out);
    rr__arena_free(&r.arena);
    free(r.body);
    return 0;
}
