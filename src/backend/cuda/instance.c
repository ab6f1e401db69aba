/* instance.c - an instance: all its memory planned at open, graphs for small batches, and score.
 *
 * A small batch runs as a captured graph for its bucket of tokens: some 170 launches cost the host
 * more than the card needs for 512 tokens. The graph's grids are sized for the bucket; a batch is
 * padded with rows that belong to no sequence and tiles that say so. Rows never mix, so the padding
 * changes no bit of a logit. */
#include "backend/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int32_t buckets[] = {
    32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, RR__CU_LARGEST_GRAPH};
enum { N_BUCKET = sizeof buckets / sizeof *buckets };

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
    rr__cu_shape shape = rr__cu_shape_of(r->w, b);
    rr_status    s = RR_OK;
    int32_t      i = 0;

    while (i < r->n_graph && !(shape.n <= r->graph[i].shape.n && shape.s <= r->graph[i].shape.s &&
                               shape.n_tile <= r->graph[i].shape.n_tile))
        i++;
    RR__CU_TRY(cudaSetDevice(r->w->opts.device), err);
    if (i < r->n_graph && !watch) {
        rr__cu_stage(r->w, b, &r->graph[i].shape, r->stage_host, r->order);
        RR__CU_TRY(cudaGraphLaunch(r->graph[i].exec, r->stream), err);
    } else {
        rr__cu_stage(r->w, b, &shape, r->stage_host, r->order);
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
    watch.ctx = malloc((size_t)b->n_tok * d * sizeof(float));
    watch.before = malloc((size_t)b->n_tok * d * sizeof(float));
    s = watch.host && watch.ctx && watch.before ? run(r, b, logits, &watch, err)
                                                : rr__fail(err, RR_E_NOMEM, "cuda: out of memory");
    free(watch.host);
    free(watch.ctx);
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
    const rr__cu_shape c = rr__cu_capacity(r->w);
    const int32_t      most = rr__cu_wide_rows(r->w);
    rr__cu_shape       shape = rr__cu_whole(r->w, most, c.s < most ? c.s : most);
    rr_status          s = warm(r, &shape, err);

    for (int32_t i = 0; i < N_BUCKET && s == RR_OK && buckets[i] <= c.n; i++) {
        const int32_t seqs = buckets[i] < 256 ? 16 : buckets[i] / 16;

        shape = rr__cu_whole(r->w, buckets[i], seqs < c.s ? seqs : c.s);
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
    const rr__cu_shape c = rr__cu_capacity(r->w);
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
    rr__cu_plan(r, r->w, r->base);
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
