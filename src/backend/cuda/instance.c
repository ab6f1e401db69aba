/* instance.c - an instance: all its memory planned at open, batches staged in one copy, graphs for
 * small batches, and score.
 *
 * A small batch runs as a captured graph for its bucket of tokens: some 170 launches cost the host
 * more than the card needs for 512 tokens. The graph's grids are sized for the bucket; a batch is
 * padded with rows that belong to no sequence and tiles that say so. Rows never mix, so the padding
 * changes no bit of a logit. */
#include "backend/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256 };

static const int32_t buckets[] = {32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048};
enum { N_BUCKET = sizeof buckets / sizeof *buckets };

/* ---- memory ------------------------------------------------------------------ */

/* What max_batch_tokens and max_batch_seqs amount to. */
static rr__cu_shape capacity(const rr__cu_weights *w) {
    rr__cu_shape c = {.n = w->opts.max_batch_tokens, .s = w->opts.max_batch_seqs};

    c.s = c.s < c.n ? c.s : c.n;
    c.n_tile = c.n / w->tile_rows + c.s;
    return c;
}

rr__cu_staging rr__cu_staging_at(char *base, const rr__cu_shape *shape) {
    const size_t   n = (size_t)shape->n, s = (size_t)shape->s;
    rr__cu_staging g = {.tok = (int32_t *)base};

    g.pos = g.tok + n;
    g.tile = (rr__cu_tile *)(g.pos + n);
    g.cu = (int32_t *)(g.tile + shape->n_tile);
    g.bytes = (2 * n + s + 1) * sizeof(int32_t) + (size_t)shape->n_tile * sizeof(rr__cu_tile);
    return g;
}

static void *place(char *base, size_t *used, size_t bytes) {
    char *p = base ? base + *used : NULL;

    *used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

/* Set the pointers of r into base, or only add up the bytes if base is NULL. */
static size_t plan(rr__cu_instance *r, const rr__cu_weights *w, char *base) {
    const rr__cu_shape c = capacity(w);
    const size_t       n = (size_t)c.n, s = (size_t)c.s, e = rr__cu_type_size(w->act);
    const size_t       d = (size_t)w->m->d_model, f = (size_t)w->m->d_ff;
    const int          quantised = rr__cu_is_8bit(w->type);
    const size_t       mid = f * w->mid_size;
    size_t             wide = n * 3 * d * e, used = 0, chunk;

    if (wide < 128 * mid)
        wide = 128 * mid;
    chunk = wide / mid / 128 * 128;
    r->chunk = (int32_t)chunk;
    r->x = place(base, &used, (n + 1) * d * e);
    r->x8 = quantised ? place(base, &used, (n + 1) * d) : NULL;
    r->x_scale = quantised ? place(base, &used, (n + 1) * sizeof(float)) : NULL;
    r->wide = place(base, &used, wide);
    r->mid_scale = w->type == RR__CU_S8 ? place(base, &used, chunk * sizeof(float)) : NULL;
    r->x_note = w->notes ? place(base, &used, (n + 1) * sizeof(rr__cu_note)) : NULL;
    r->mid_note = w->notes ? place(base, &used, chunk * sizeof(rr__cu_note)) : NULL;
    r->first = place(base, &used, s * d * e);
    r->first8 = w->type == RR__CU_E4M3 ? place(base, &used, s * d) : NULL;
    r->first_scale = w->type == RR__CU_E4M3 ? place(base, &used, s * sizeof(float)) : NULL;
    r->first_q = r->x; /* in the last layer, when first has what is needed of x */
    r->head = r->wide; /* when mid is read */
    r->logits = place(base, &used, s * sizeof(float));
    r->stage_dev = place(base, &used, rr__cu_staging_at(NULL, &c).bytes);
    return used;
}

size_t rr__cu_instance_bytes(const rr__cu_weights *w) {
    rr__cu_instance r;

    return plan(&r, w, NULL);
}

/* ---- staging ------------------------------------------------------------------- */

/* The smallest shape that holds the batch as it is. */
static rr__cu_shape shape_of(const rr__cu_weights *w, const rr__batch *b) {
    rr__cu_shape shape = {b->n_tok, b->n_seq, 0};

    for (int32_t i = 0; i < b->n_seq; i++)
        shape.n_tile += (b->cu[i + 1] - b->cu[i] + w->tile_rows - 1) / w->tile_rows;
    return shape;
}

static int longest_first(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* Query tiles, those of the longest sequences first, so that the last blocks to run are short. */
static void stage_tiles(rr__cu_instance *r, const rr__batch *b, const rr__cu_shape *shape,
                        rr__cu_tile *tile) {
    const int32_t rows = r->w->tile_rows;
    int64_t      *order = r->order;
    int32_t       n = 0;

    for (int32_t i = 0; i < b->n_seq; i++)
        order[i] = (int64_t)(b->cu[i + 1] - b->cu[i]) << 32 | i;
    qsort(order, (size_t)b->n_seq, sizeof *order, longest_first);
    for (int32_t i = 0; i < b->n_seq; i++)
        for (int32_t row = 0; row < (int32_t)(order[i] >> 32); row += rows)
            tile[n++] = (rr__cu_tile){(int32_t)(order[i] & INT32_MAX), row};
    for (; n < shape->n_tile; n++)
        tile[n] = (rr__cu_tile){-1, 0};
}

/* The batch in pinned memory, padded to the shape: spare rows are token 0 at position 0, spare
 * sequences are empty and begin at the spare row. */
static void stage(rr__cu_instance *r, const rr__batch *b, const rr__cu_shape *shape) {
    const rr__model *m = r->w->m;
    rr__cu_staging   g = rr__cu_staging_at(r->stage_host, shape);
    const size_t     spare = (size_t)(shape->n - b->n_tok) * sizeof(int32_t);

    memcpy(g.tok, b->tok, (size_t)b->n_tok * sizeof *g.tok);
    memset(g.tok + b->n_tok, 0, spare);
    memset(g.pos + b->n_tok, 0, spare);
    for (int32_t i = 0; i < b->n_seq; i++) {
        int32_t first = b->cu[i], n = b->cu[i + 1] - first;

        rr__model_positions(m, b->tok + first, n, g.pos + first);
        for (int32_t t = m->n_type > 1 && b->seg ? b->seg[i] : n; t < n; t++)
            g.pos[first + t] |= RR__CU_TYPE1;
    }
    memcpy(g.cu, b->cu, ((size_t)b->n_seq + 1) * sizeof *g.cu);
    for (int32_t i = b->n_seq + 1; i <= shape->s; i++)
        g.cu[i] = b->n_tok;
    stage_tiles(r, b, shape, g.tile);
}

/* ---- score ---------------------------------------------------------------------- */

/* Upload, pass, download, all on the stream; what a graph captures. */
static rr_status enqueue(rr__cu_instance *r, const rr__cu_shape *shape, rr__cu_watcher *watch,
                         rr_error *err) {
    rr_status s;

    RR__CU_TRY(cudaMemcpyAsync(r->stage_dev, r->stage_host, rr__cu_staging_at(NULL, shape).bytes,
                               cudaMemcpyHostToDevice, r->stream),
               err);
    s = rr__cu_forward(r, shape, watch, err);
    if (s != RR_OK)
        return s;
    RR__CU_TRY(cudaMemcpyAsync(r->logits_host, r->logits, (size_t)shape->s * sizeof(float),
                               cudaMemcpyDeviceToHost, r->stream),
               err);
    return RR_OK;
}

static rr_status run(rr__cu_instance *r, const rr__batch *b, float *logits, rr__cu_watcher *watch,
                     rr_error *err) {
    rr__cu_shape shape = shape_of(r->w, b);
    rr_status    s = RR_OK;
    int32_t      i = 0;

    while (i < r->n_graph && !(shape.n <= r->graph[i].shape.n && shape.s <= r->graph[i].shape.s &&
                               shape.n_tile <= r->graph[i].shape.n_tile))
        i++;
    RR__CU_TRY(cudaSetDevice(r->w->opts.device), err);
    if (i < r->n_graph && !watch) {
        stage(r, b, &r->graph[i].shape);
        RR__CU_TRY(cudaGraphLaunch(r->graph[i].exec, r->stream), err);
    } else {
        stage(r, b, &shape);
        s = enqueue(r, &shape, watch, err);
    }
    if (s == RR_OK)
        RR__CU_TRY(cudaStreamSynchronize(r->stream), err);
    if (s == RR_OK)
        memcpy(logits, r->logits_host, (size_t)b->n_seq * sizeof *logits);
    return s;
}

rr_status rr__cu_score(void *instance, const rr__batch *b, float *logits, rr_error *err) {
    rr__cu_instance *r = instance;
    rr_status        s = rr__batch_check(b, r->w->m, &r->w->opts, err);

    return s == RR_OK ? run(r, b, logits, NULL, err) : s;
}

rr_status rr__cu_observe(void *instance, const rr__batch *b, float *logits, rr__observe_fn fn,
                         void *user, rr_error *err) {
    rr__cu_instance *r = instance;
    const size_t     d = (size_t)r->w->m->d_model, f = (size_t)r->w->m->d_ff;
    rr__cu_watcher   watch = {.fn = fn, .user = user};
    rr_status        s = rr__batch_check(b, r->w->m, &r->w->opts, err);

    if (s != RR_OK || !fn)
        return s == RR_OK ? run(r, b, logits, NULL, err) : s;
    watch.host = malloc((size_t)b->n_tok * (f > 3 * d ? f : 3 * d) * sizeof(float));
    watch.before = malloc((size_t)b->n_tok * d * sizeof(float));
    s = watch.host && watch.before ? run(r, b, logits, &watch, err)
                                   : rr__fail(err, RR_E_NOMEM, "cuda: out of memory");
    free(watch.host);
    free(watch.before);
    return s;
}

/* ---- open ------------------------------------------------------------------------ */

/* A batch of one-token sequences that fills a shape, to run kernels before they are captured (the
 * driver loads a kernel at its first launch) and before anybody waits for them. */
static rr_status warm(rr__cu_instance *r, const rr__cu_shape *shape, rr_error *err) {
    rr__cu_staging g = rr__cu_staging_at(r->stage_host, shape);
    rr_status      s;

    memset(r->stage_host, 0, g.bytes);
    for (int32_t i = 0; i <= shape->s; i++)
        g.cu[i] = i;
    for (int32_t i = 0; i < shape->n_tile; i++)
        g.tile[i] = (rr__cu_tile){i < shape->s ? i : -1, 0};
    s = enqueue(r, shape, NULL, err);
    if (s == RR_OK)
        RR__CU_TRY(cudaStreamSynchronize(r->stream), err);
    return s;
}

static rr_status capture(rr__cu_instance *r, const rr__cu_shape *shape, rr_error *err) {
    cudaGraph_t graph = NULL;
    cudaError_t e;
    rr_status   s = warm(r, shape, err);

    if (s != RR_OK)
        return s;
    RR__CU_TRY(cudaStreamBeginCapture(r->stream, cudaStreamCaptureModeThreadLocal), err);
    s = enqueue(r, shape, NULL, err);
    e = cudaStreamEndCapture(r->stream, &graph);
    if (s == RR_OK && e == cudaSuccess)
        e = cudaGraphInstantiate(&r->graph[r->n_graph].exec, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    if (s != RR_OK)
        return s;
    RR__CU_TRY(e, err);
    r->graph[r->n_graph++].shape = *shape;
    return RR_OK;
}

static rr_status capture_all(rr__cu_instance *r, rr_error *err) {
    const rr__cu_shape c = capacity(r->w);
    rr_status          s = warm(r, &c, err);

    for (int32_t i = 0; i < N_BUCKET && s == RR_OK && buckets[i] <= c.n; i++) {
        rr__cu_shape shape = {.n = buckets[i], .s = buckets[i] < 256 ? 16 : buckets[i] / 16};

        if (shape.s > c.s)
            shape.s = c.s;
        shape.n_tile = shape.n / r->w->tile_rows + shape.s;
        s = capture(r, &shape, err);
    }
    return s;
}

/* Refuse an instance that would take more than memory_limit or than is free. */
static rr_status check_memory(rr__cu_weights *w, size_t bytes, rr_error *err) {
    const size_t taken = w->bytes + atomic_load(&w->instance_bytes), limit = w->opts.memory_limit;
    size_t       room = 0, total = 0;

    RR__CU_TRY(cudaMemGetInfo(&room, &total), err);
    if (limit && taken + bytes > limit)
        return rr__fail(err, RR_E_NOMEM,
                        "cuda: an instance takes %.0f MB; %.0f of the %.0f MB allowed are in use",
                        bytes / 1e6, taken / 1e6, limit / 1e6);
    if (bytes > room)
        return rr__fail(err, RR_E_NOMEM, "cuda: an instance takes %.0f MB; %.0f MB are free",
                        bytes / 1e6, room / 1e6);
    return RR_OK;
}

static rr_status fill(rr__cu_instance *r, rr_error *err) {
    const rr__cu_shape c = capacity(r->w);
    const size_t       bytes = rr__cu_instance_bytes(r->w);
    rr_status          s;

    RR__CU_TRY(cudaSetDevice(r->w->opts.device), err);
    s = check_memory(r->w, bytes, err);
    if (s != RR_OK)
        return s;
    r->order = malloc((size_t)c.s * sizeof *r->order);
    if (!r->order)
        return rr__fail(err, RR_E_NOMEM, "cuda: out of memory");
    RR__CU_TRY(cudaMalloc((void **)&r->base, bytes), err);
    r->bytes = bytes;
    atomic_fetch_add(&r->w->instance_bytes, bytes);
    plan(r, r->w, r->base);
    RR__CU_TRY(cudaMemset(r->base, 0, bytes), err); /* spare rows start finite */
    RR__CU_TRY(cudaMallocHost((void **)&r->stage_host, rr__cu_staging_at(NULL, &c).bytes), err);
    RR__CU_TRY(cudaMallocHost((void **)&r->logits_host, (size_t)c.s * sizeof(float)), err);
    RR__CU_TRY(cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking), err);
    RR__CU_TRY(cudaDeviceSynchronize(), err);
    return capture_all(r, err);
}

rr_status rr__cu_open(void *weights, void **instance, rr_error *err) {
    rr__cu_instance *r = calloc(1, sizeof *r);
    rr_status        s;

    if (!r)
        return rr__fail(err, RR_E_NOMEM, "cuda: out of memory");
    r->w = weights;
    s = fill(r, err);
    if (s != RR_OK) {
        rr__cu_close(r);
        return s;
    }
    *instance = r;
    return RR_OK;
}

void rr__cu_close(void *instance) {
    rr__cu_instance *r = instance;

    if (!r)
        return;
    cudaSetDevice(r->w->opts.device);
    for (int32_t i = 0; i < r->n_graph; i++)
        cudaGraphExecDestroy(r->graph[i].exec);
    if (r->stream)
        cudaStreamDestroy(r->stream);
    cudaFreeHost(r->stage_host);
    cudaFreeHost(r->logits_host);
    cudaFree(r->base);
    atomic_fetch_sub(&r->w->instance_bytes, r->bytes);
    free(r->order);
    free(r);
}
