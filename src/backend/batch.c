/* batch.c - what every backend asks of a batch, and the names of precisions. Apart from list.c, so
 * that a module can link it without the list of backends. */
#include "backend/backend.h"

#include <string.h>

static const char *const precision_names[RR__N_PRECISION] = {"auto", "fp32", "bf16",
                                                             "fp16", "int8", "fp8"};

rr__precision rr__precision_parse(const char *name) {
    if (!name)
        return RR__AUTO;
    for (int i = 0; i < RR__N_PRECISION; i++)
        if (strcmp(name, precision_names[i]) == 0)
            return (rr__precision)i;
    return RR__N_PRECISION;
}

const char *rr__precision_name(rr__precision p) {
    return (unsigned)p < RR__N_PRECISION ? precision_names[p] : "?";
}

rr_status rr__batch_check(const rr__batch *b, const rr__model *m, const rr__backend_opts *o,
                          rr_error *err) {
    if (b->n_seq < 1 || b->n_tok < 1 || b->cu[0] != 0 || b->cu[b->n_seq] != b->n_tok)
        return rr__fail(err, RR_E_ARG, "batch: %d sequences, %d tokens", (int)b->n_seq,
                        (int)b->n_tok);
    if (b->n_seq > o->max_batch_seqs || b->n_tok > o->max_batch_tokens)
        return rr__fail(err, RR_E_TOO_LARGE,
                        "batch of %d sequences, %d tokens; planned for %d and %d", (int)b->n_seq,
                        (int)b->n_tok, (int)o->max_batch_seqs, (int)o->max_batch_tokens);
    for (int32_t i = 0; i < b->n_seq; i++) {
        int64_t len = (int64_t)b->cu[i + 1] - b->cu[i];

        if (len < 1 || len > m->max_length || len > b->max_len)
            return rr__fail(err, RR_E_ARG, "sequence %d has %lld tokens; the model takes 1 to %d",
                            (int)i, (long long)len, (int)m->max_length);
    }
    for (int32_t t = 0; t < b->n_tok; t++)
        if (b->tok[t] < 0 || b->tok[t] >= m->vocab_size)
            return rr__fail(err, RR_E_ARG, "token id %d at %d is outside 0..%d", (int)b->tok[t],
                            (int)t, (int)m->vocab_size - 1);
    return RR_OK;
}
