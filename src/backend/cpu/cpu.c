/* cpu.c - the cpu backend behind the table of backend.h, and the memory of its instances. */
#include "backend/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>

/* Between two phases of a pass a thread waits a few microseconds: looking is cheaper than sleeping. */
enum { SPIN_US = 50 };

/* Rows behind the last that a block of tiles may read, though nobody looks at what it makes of them. */
enum { SPARE = 32 };

static rr_status cpu_probe(rr_error *err) {
    return rr__kernels_pick(err) ? RR_OK : RR_E_UNSUPPORTED;
}

static void layout_worker(rr__plan *p, const rr__cpu_weights *w, rr__cpu_worker *k) {
    const rr__model *m = w->m;
    const size_t     d = (size_t)m->d_model, f = (size_t)m->d_ff, wide = d > f ? d : f;
    const size_t     nr = (size_t)w->kx->nr, keys = ((size_t)m->max_length + nr - 1) / nr * nr;
    const size_t     width = (d / (size_t)m->n_head + nr - 1) / nr * nr;
    const size_t     tile = (size_t)w->kx->tile + SPARE;
    const size_t     terms = w->kx->exact == RR__K_BF16X3 ? 3 : 2; /* of 16 bits; fp32 is as two */

    k->a = rr__plan_take(p, tile * (wide * terms / 2 + 64), sizeof *k->a);
    k->note = rr__plan_take(p, tile, sizeof *k->note);
    k->y = rr__plan_take(p, tile * rr__cpu_ld(m->d_model), sizeof *k->y);
    k->mid = rr__plan_take(p, tile * rr__cpu_ld(m->d_ff), sizeof *k->mid);
    k->scores = rr__plan_take(p, (size_t)w->kx->mr * (keys + 16), sizeof *k->scores);
    k->kp = rr__plan_take(p, keys * width * terms / 2, sizeof *k->kp);
    k->vp = rr__plan_take(p, keys * width * terms / 2, sizeof *k->vp);
    k->qt = rr__plan_take(p, (size_t)w->kx->mr * (width * terms / 2 + 16), sizeof *k->qt);
    k->probs = rr__plan_take(p, (size_t)w->kx->mr * (keys * terms / 2 + 16), sizeof *k->probs);
}

/* Bytes of an element of q, k, v and ctx: the largest of any layer. */
static size_t element(const rr__cpu_weights *w) {
    for (int32_t l = 0; l < w->m->n_layer; l++)
        if (w->layer[l].attend != RR__K_BF16)
            return 4;
    return 2;
}

static void layout(rr__cpu *c, rr__plan *p) {
    const rr__cpu_weights *w = c->w;
    const size_t           n = (size_t)w->opts.max_batch_tokens, s = (size_t)w->opts.max_batch_seqs;
    const int32_t          d = w->m->d_model;
    const size_t           ld = rr__cpu_ld(d), size = element(w);

    for (int32_t i = 0; i < c->threads; i++)
        layout_worker(p, w, &c->worker[i]);
    c->pos = rr__plan_take(p, n, sizeof *c->pos);
    c->seq = rr__plan_take(p, n, sizeof *c->seq);
    c->x = rr__plan_take(p, n * ld, sizeof *c->x);
    c->qkv = rr__plan_take(p, (n + SPARE) * rr__cpu_ld(3 * d), size);
    c->ctx = rr__plan_take(p, (n + SPARE) * ld, size);
    c->xs = rr__plan_take(p, s * ld, sizeof *c->xs);
    c->qs = rr__plan_take(p, (s + SPARE) * ld, size);
    c->head = rr__plan_take(p, s * (size_t)d, sizeof *c->head);
}

static void cpu_close(void *instance) {
    rr__cpu *c = instance;

    if (!c)
        return;
    rr__pool_close(c->pool);
    free(c->plan.base);
    free(c->worker);
    free(c);
}

static int32_t threads_of(const rr__cpu_weights *w) {
    return w->opts.threads > 0 ? w->opts.threads : rr__cores();
}

static rr_status cpu_open(void *weights, void **instance, rr_error *err) {
    const rr__cpu_weights *w = weights;
    rr__cpu               *c = calloc(1, sizeof *c);
    rr_status              s;

    if (!c)
        return rr__fail(err, RR_E_NOMEM, "cpu: out of memory");
    c->w = w;
    c->threads = threads_of(w);
    c->worker = calloc((size_t)c->threads, sizeof *c->worker);
    if (!c->worker) {
        cpu_close(c);
        return rr__fail(err, RR_E_NOMEM, "cpu: out of memory");
    }
    layout(c, &c->plan);
    s = rr__plan_alloc(&c->plan, "a batch", err);
    if (s == RR_OK) {
        layout(c, &c->plan);
        s = rr__pool_open(c->threads, SPIN_US, &c->pool, err);
    }
    if (s != RR_OK) {
        cpu_close(c);
        return s;
    }
    *instance = c;
    return RR_OK;
}

static rr_status cpu_score(void *instance, const rr__batch *b, float *logits, rr_error *err) {
    rr__cpu  *c = instance;
    rr_status s = rr__batch_check(b, c->w->m, &c->w->opts, err);

    if (s == RR_OK)
        rr__cpu_forward(c, b, logits);
    return s;
}

static void cpu_describe(const void *weights, rr__backend_info *out) {
    const rr__cpu_weights *w = weights;
    rr__cpu                c = {.w = w, .threads = threads_of(w)};
    rr__plan               p = {0};
    rr__cpu_worker         k;

    c.worker = &k;
    *out = (rr__backend_info){.precision = w->precision, .weight_bytes = w->plan.used};
    snprintf(out->device, sizeof out->device, "%s, %d threads", w->kx->name, (int)c.threads);
    c.threads = 0;
    layout(&c, &p);
    for (int32_t i = 0; i < threads_of(w); i++)
        layout_worker(&p, w, &k);
    out->instance_bytes = p.used;
}

extern const rr__backend rr__backend_cpu;
const rr__backend        rr__backend_cpu = {
           .abi = RR__BACKEND_ABI,
           .name = "cpu",
           .precisions = 1u << RR__FP32 | 1u << RR__BF16 | 1u << RR__INT8,
           .calibrated = 1u << RR__INT8,
           .probe = cpu_probe,
           .load = rr__cpu_load,
           .open = cpu_open,
           .score = cpu_score,
           .observe = rr__cpu_observe,
           .describe = cpu_describe,
           .close = cpu_close,
           .unload = rr__cpu_unload,
};
