/* instance.c - one worker over a loaded engine: its contexts, its memory, and a batch through them.
 *
 * There is a context for each profile, so that no batch waits for a switch; they never run at once and
 * share one scratch. A batch is cut into groups (group.h). Each is written, padded, into one of two
 * pinned buffers while the device still works on the one before it, sent, run, and its logits are
 * fetched; the host waits only for the last. Padding is the model's pad id under a mask of 0. */
#include "backend/trt/instance.h"

#include "backend/trt/group.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 2 };

typedef struct instance {
    rr__trt_weights *w;
    rr__trt_groups   groups;
    rr__trt_context *context[RR__TRT_PROFILES];
    void            *stream;
    rr__devptr       input[3]; /* [cells] int64: ids, mask, types */
    rr__devptr       output;   /* [rows] float                    */
    rr__devptr       scratch;
    int64_t         *pinned[SLOTS];  /* [3, cells]                           */
    void            *written[SLOTS]; /* event: its copies are through        */
    float           *logits;         /* [max_batch_seqs], pinned, in groups' order */
    int32_t          counted;        /* among w->instances                     */
} instance;

static int inputs(const rr__trt_weights *w) {
    return w->info.types ? 3 : 2;
}

static size_t output_bytes(const rr__trt_weights *w) {
    return (size_t)rr__trt_most_rows(w->info.profile, w->info.n_profile) * sizeof(float);
}

static size_t input_bytes(const rr__trt_weights *w) {
    return rr__trt_cells(w->info.profile, w->info.n_profile) * sizeof(int64_t);
}

uint64_t rr__trt_instance_bytes(const rr__trt_weights *w) {
    return (uint64_t)w->info.scratch + (uint64_t)inputs(w) * input_bytes(w) + output_bytes(w);
}

/* ---- opening ----------------------------------------------------------------------------------- */

static void *pointer(rr__devptr p) {
    return (void *)(uintptr_t)p;
}

/* to: an object pointer of any type */
static rr_status pin(void *to, const rr__driver *d, size_t bytes, rr_error *err) {
    void     *p = NULL;
    rr_status s = rr__driver_check(d->host_alloc(&p, bytes, 0), "cuMemHostAlloc", err);

    memcpy(to, &p, sizeof p);
    return s;
}

static rr_status allocate(instance *x, rr_error *err) {
    const rr__trt_weights *w = x->w;
    const rr__driver      *d = w->driver;
    const size_t           bytes = input_bytes(w);
    rr_status s = rr__driver_check(d->stream_create(&x->stream, 1), "cuStreamCreate", err);

    for (int i = 0; i < inputs(w) && s == RR_OK; i++)
        s = rr__driver_check(d->alloc(&x->input[i], bytes), "cuMemAlloc (inputs)", err);
    if (s == RR_OK)
        s = rr__driver_check(d->alloc(&x->output, output_bytes(w)), "cuMemAlloc (logits)", err);
    if (s == RR_OK && w->info.scratch)
        s = rr__driver_check(d->alloc(&x->scratch, (size_t)w->info.scratch),
                             "cuMemAlloc (activations)", err);
    for (int i = 0; i < SLOTS && s == RR_OK; i++) {
        s = pin(&x->pinned[i], d, 3 * bytes, err);
        if (s == RR_OK)
            s = rr__driver_check(d->event_create(&x->written[i], 2), "cuEventCreate", err);
    }
    if (s == RR_OK)
        s = pin(&x->logits, d, (size_t)w->opts.max_batch_seqs * sizeof(float), err);
    return s;
}

static rr_status run(instance *x, const rr__trt_group *g, int slot, rr_error *err);

/* Each profile once at what it is tuned for: what TensorRT does lazily happens now. */
static rr_status warm(instance *x, rr_error *err) {
    const rr__trt_engine_info *info = &x->w->info;
    rr_status                  s = RR_OK;

    for (int32_t p = 0; p < info->n_profile && s == RR_OK; p++) {
        const int32_t      *opt = info->profile[p].opt;
        const rr__trt_group g = {0, 0, p, opt[0], opt[1]};
        const size_t        cells = (size_t)opt[0] * (size_t)opt[1];

        for (size_t i = 0; i < 3 * cells; i++)
            x->pinned[0][i] = i < 2 * cells; /* token 1, visible, of type 0 */
        s = run(x, &g, 0, err);
        if (s == RR_OK)
            s = rr__driver_check(x->w->driver->stream_wait(x->stream), "a first pass", err);
    }
    return s;
}

rr_status rr__trt_instance_open(void *weights, void **out, rr_error *err) {
    rr__trt_weights *w = weights;
    const uint64_t   each = rr__trt_instance_bytes(w);
    instance        *x = calloc(1, sizeof *x);
    rr_status        s;

    if (!x)
        return rr__fail(err, RR_E_NOMEM, "trt: out of memory");
    x->w = w;
    x->counted = atomic_fetch_add(&w->instances, 1) + 1;
    if (w->opts.memory_limit &&
        w->manifest.bytes + (uint64_t)x->counted * each > w->opts.memory_limit)
        s = rr__fail(err, RR_E_NOMEM,
                     "trt: instance %d takes %.0f MB more; weights and %d others already take "
                     "%.0f MB of the %.0f MB allowed",
                     (int)x->counted, (double)each / 1e6, (int)x->counted - 1,
                     (double)(w->manifest.bytes + (uint64_t)(x->counted - 1) * each) / 1e6,
                     (double)w->opts.memory_limit / 1e6);
    else
        s = rr__driver_check(w->driver->set_current(w->context), "cuCtxSetCurrent", err);
    if (s == RR_OK)
        s = rr__trt_groups_open(&x->groups, w->opts.max_batch_seqs, w->info.profile,
                                w->info.n_profile, err);
    if (s == RR_OK)
        s = allocate(x, err);
    for (int32_t p = 0; p < w->info.n_profile && s == RR_OK; p++) {
        const rr__trt_memory m = {pointer(x->input[0]), pointer(x->input[1]), pointer(x->input[2]),
                                  pointer(x->output),   pointer(x->scratch),  w->info.scratch};

        s = rr__trt_context_open(w->engine, p, &m, x->stream, &x->context[p], err);
    }
    if (s == RR_OK)
        s = warm(x, err);
    if (s != RR_OK) {
        rr__trt_instance_close(x);
        return s;
    }
    *out = x;
    return RR_OK;
}

void rr__trt_instance_close(void *self) {
    instance         *x = self;
    const rr__driver *d = x->w->driver;

    d->set_current(x->w->context);
    if (x->stream)
        d->stream_wait(x->stream);
    for (int32_t p = 0; p < RR__TRT_PROFILES; p++)
        rr__trt_context_close(x->context[p]);
    for (int i = 0; i < 3; i++)
        if (x->input[i])
            d->release(x->input[i]);
    if (x->output)
        d->release(x->output);
    if (x->scratch)
        d->release(x->scratch);
    for (int i = 0; i < SLOTS; i++) {
        if (x->pinned[i])
            d->host_free(x->pinned[i]);
        if (x->written[i])
            d->event_destroy(x->written[i]);
    }
    if (x->logits)
        d->host_free(x->logits);
    if (x->stream)
        d->stream_destroy(x->stream);
    rr__trt_groups_close(&x->groups);
    atomic_fetch_sub(&x->w->instances, 1);
    free(x);
}

/* ---- scoring ----------------------------------------------------------------------------------- */

/* Padded tensors of one group, end to end: ids, mask, types, each [rows, len]. Rows beyond the group's
 * sequences hold one visible pad token, since a row without any has no softmax. */
static void fill(const instance *x, const rr__trt_group *g, const rr__batch *b, int64_t *to) {
    const rr__model *m = x->w->model;
    const size_t     len = (size_t)g->len, cells = (size_t)g->rows * len;
    const int64_t    pad = m->pad_id >= 0 ? m->pad_id : 0;

    for (int32_t r = 0; r < g->rows; r++) {
        int64_t *ids = to + (size_t)r * len, *mask = ids + cells, *types = mask + cells;
        int32_t  s = r < g->n ? x->groups.order[g->first + r] : -1;
        int32_t  n = s >= 0 ? b->cu[s + 1] - b->cu[s] : 0;
        int32_t  first = s >= 0 && b->seg && m->n_type > 1 ? b->seg[s] : n;

        for (int32_t t = 0; t < n; t++) {
            ids[t] = b->tok[b->cu[s] + t];
            mask[t] = 1;
        }
        for (size_t t = (size_t)n; t < len; t++) {
            ids[t] = pad;
            mask[t] = 0;
        }
        mask[0] = 1;
        for (int32_t t = 0; x->w->info.types && t < g->len; t++)
            types[t] = t >= first && t < n;
    }
}

/* Send the slot's tensors, run them, fetch the group's logits; nothing of it is waited for. */
static rr_status run(instance *x, const rr__trt_group *g, int slot, rr_error *err) {
    const rr__driver *d = x->w->driver;
    const size_t      cells = (size_t)g->rows * (size_t)g->len;
    rr_status         s = RR_OK;

    for (int i = 0; i < inputs(x->w) && s == RR_OK; i++)
        s = rr__driver_check(d->to_device(x->input[i], x->pinned[slot] + (size_t)i * cells,
                                          cells * sizeof(int64_t), x->stream),
                             "sending ids", err);
    if (s == RR_OK)
        s = rr__driver_check(d->event_record(x->written[slot], x->stream), "cuEventRecord", err);
    if (s == RR_OK)
        s = rr__trt_context_run(x->context[g->profile], g->rows, g->len, x->stream, err);
    if (s == RR_OK && g->n)
        s = rr__driver_check(
            d->to_host(x->logits + g->first, x->output, (size_t)g->n * sizeof(float), x->stream),
            "fetching logits", err);
    return s;
}

rr_status rr__trt_instance_score(void *self, const rr__batch *b, float *logits, rr_error *err) {
    instance              *x = self;
    const rr__trt_weights *w = x->w;
    const rr__driver      *d = w->driver;
    rr_status              s = rr__batch_check(b, w->model, &w->opts, err), t;

    if (s == RR_OK)
        s = rr__trt_groups_plan(&x->groups, b->cu, b->n_seq, w->info.profile, w->info.n_profile,
                                err);
    if (s == RR_OK)
        s = rr__driver_check(d->set_current(w->context), "cuCtxSetCurrent", err);
    if (s != RR_OK)
        return s;
    for (int32_t i = 0; i < x->groups.n_group && s == RR_OK; i++) {
        const int slot = i % SLOTS;

        if (i >= SLOTS)
            s = rr__driver_check(d->event_wait(x->written[slot]), "sending ids", err);
        if (s != RR_OK)
            break;
        fill(x, &x->groups.group[i], b, x->pinned[slot]);
        s = run(x, &x->groups.group[i], slot, err);
    }
    t = rr__driver_check(d->stream_wait(x->stream), "a pass", s == RR_OK ? err : NULL);
    s = s != RR_OK ? s : t;
    for (int32_t i = 0; i < b->n_seq && s == RR_OK; i++)
        logits[x->groups.order[i]] = x->logits[i];
    return s;
}
