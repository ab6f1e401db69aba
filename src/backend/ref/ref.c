/* ref.c - the ref backend: forward.c behind the table of backend.h, and the memory it needs. */
#include "backend/ref/forward.h"

#include <stdio.h>
#include <stdlib.h>

static rr_status ref_probe(rr_error *err) {
    return RR_OK; /* plain C runs anywhere */
}

static rr_status ref_load(const rr__model *m, const rr__backend_opts *o, void **weights,
                          rr_error *err) {
    rr__ref *w;

    if (o->precision != RR__AUTO && o->precision != RR__FP32)
        return rr__fail(err, RR_E_UNSUPPORTED, "ref computes in fp32 only, not %s",
                        rr__precision_name(o->precision));
    w = calloc(1, sizeof *w);
    if (!w)
        return rr__fail(err, RR_E_NOMEM, "ref: out of memory");
    w->m = m; /* weights are read where the file is mapped */
    w->opts = *o;
    *weights = w;
    return RR_OK;
}

static void ref_close(void *instance) {
    rr__ref *r = instance;

    if (!r)
        return;
    free(r->pos);
    free(r->x);
    free(r->qkv);
    free(r->ctx);
    free(r->y);
    free(r->mid);
    free(r->first);
    free(r->head);
    free(r->prob);
    free(r->row);
    free(r->xt);
    free(r);
}

static size_t widest(const rr__model *m) {
    return (size_t)(m->d_ff > m->d_model ? m->d_ff : m->d_model);
}

static rr_status ref_open(void *weights, void **instance, rr_error *err) {
    const rr__ref *w = weights;
    const size_t   n = (size_t)w->opts.max_batch_tokens, s = (size_t)w->opts.max_batch_seqs;
    const size_t   d = (size_t)w->m->d_model, f = (size_t)w->m->d_ff, wide = widest(w->m);
    rr__ref       *r = calloc(1, sizeof *r);

    if (!r)
        return rr__fail(err, RR_E_NOMEM, "ref: out of memory");
    r->m = w->m;
    r->opts = w->opts;
    r->pos = calloc((size_t)w->m->max_length, sizeof *r->pos);
    r->x = calloc(n * d, sizeof *r->x);
    r->qkv = calloc(n * 3 * d, sizeof *r->qkv);
    r->ctx = calloc(n * d, sizeof *r->ctx);
    r->y = calloc(n * d, sizeof *r->y);
    r->mid = calloc(n * f, sizeof *r->mid);
    r->first = calloc(s * d, sizeof *r->first);
    r->head = calloc(s * d, sizeof *r->head);
    r->prob = calloc((size_t)w->m->max_length, sizeof *r->prob);
    r->row = calloc(wide, sizeof *r->row);
    r->xt = calloc(RR__REF_BLOCK * wide, sizeof *r->xt);
    if (!r->pos || !r->x || !r->qkv || !r->ctx || !r->y || !r->mid || !r->first || !r->head ||
        !r->prob || !r->row || !r->xt) {
        ref_close(r);
        return rr__fail(err, RR_E_NOMEM, "ref: no memory for batches of %d tokens",
                        (int)w->opts.max_batch_tokens);
    }
    *instance = r;
    return RR_OK;
}

static rr_status ref_observe(void *instance, const rr__batch *b, float *logits, rr__observe_fn fn,
                             void *user, rr_error *err) {
    rr__ref  *r = instance;
    rr_status s = rr__batch_check(b, r->m, &r->opts, err);

    if (s == RR_OK)
        rr__ref_forward(r, b, logits, fn, user);
    return s;
}

static rr_status ref_score(void *instance, const rr__batch *b, float *logits, rr_error *err) {
    return ref_observe(instance, b, logits, NULL, NULL, err);
}

static void ref_describe(const void *weights, rr__backend_info *out) {
    const rr__ref *w = weights;
    const uint64_t n = (uint64_t)w->opts.max_batch_tokens, s = (uint64_t)w->opts.max_batch_seqs;
    const uint64_t d = (uint64_t)w->m->d_model, f = (uint64_t)w->m->d_ff;

    *out = (rr__backend_info){.precision = RR__FP32, .weight_bytes = w->m->bytes};
    snprintf(out->device, sizeof out->device, "plain C, sums in double, 1 thread");
    out->instance_bytes = 4 * (n * (6 * d + f) + 2 * s * d) + 8 * RR__REF_BLOCK * widest(w->m) +
                          12 * (uint64_t)w->m->max_length;
}

static void ref_unload(void *weights) {
    free(weights);
}

extern const rr__backend rr__backend_ref;
const rr__backend        rr__backend_ref = {
           .abi = RR__BACKEND_ABI,
           .name = "ref",
           .precisions = 1u << RR__FP32,
           .probe = ref_probe,
           .load = ref_load,
           .open = ref_open,
           .score = ref_score,
           .observe = ref_observe,
           .describe = ref_describe,
           .close = ref_close,
           .unload = ref_unload,
};
