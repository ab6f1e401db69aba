/* instance.c - an instance: all its memory planned at open, graphs for small batches, start and
 * finish.
 *
 * Two batches may be under way. The second is staged in a slot of its own, goes up on a stream of
 * its own, and its kernels stand in the queue behind those of the first, so that the device goes
 * from one to the other without the host. One thread may start while another waits in finish.
 *
 * A small batch runs as a captured graph for its bucket of tokens: some 170 launches cost the host
 * more than the card needs for 512 tokens. The graph's grids are sized for the bucket; a batch is
 * padded with rows that belong to no sequence and tiles that say so. Rows never mix, so the
 * padding changes no bit of a logit. The upload, 16 KB at most, is part of the graph. Who waits
 * for a small batch spins, as waking up would be part of its latency; a large one leaves the core to
 * others. */
#include "backend/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int32_t buckets[] = {
    32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, RR__CU_LARGEST_GRAPH};
enum { N_BUCKET = sizeof buckets / sizeof *buckets };

/* ---- score ---------------------------------------------------------------------- */

static rr_status upload(const rr__cu_slot *slot, const rr__cu_shape *shape, cudaStream_t stream,
                        rr_error *err) {
    RR__CU_TRY(cudaMemcpyAsync(slot->stage_dev, slot->stage_host,
                               rr__cu_staging_at(NULL, shape).bytes, cudaMemcpyHostToDevice,
                               stream),
               err);
    return RR_OK;
}

/* Pass and download. */
static rr_status compute(rr__cu_instance *r, const rr__cu_slot *slot, const rr__cu_shape *shape,
                         rr__cu_watcher *watch, rr_error *err) {
    RR__TRY(rr__cu_forward(r, slot, shape, watch, err));
    RR__CU_TRY(cudaMemcpyAsync(slot->logits_host, r->logits, (size_t)shape->s * sizeof(float),
                               cudaMemcpyDeviceToHost, r->stream),
               err);
    return RR_OK;
}

/* All of it on the stream; what a graph captures. */
static rr_status enqueue(rr__cu_instance *r, const rr__cu_slot *slot, const rr__cu_shape *shape,
                         rr__cu_watcher *watch, rr_error *err) {
    RR__TRY(upload(slot, shape, r->stream, err));
    return compute(r, slot, shape, watch, err);
}

/* The same while another batch runs: the upload does not wait for it. */
static rr_status enqueue_behind(rr__cu_instance *r, const rr__cu_slot *slot,
                                const rr__cu_shape *shape, rr_error *err) {
    RR__TRY(upload(slot, shape, r->copies, err));
    RR__CU_TRY(cudaEventRecord(slot->uploaded, r->copies), err);
    RR__CU_TRY(cudaStreamWaitEvent(r->stream, slot->uploaded, 0), err);
    return compute(r, slot, shape, NULL, err);
}

/* The smallest graph the batch fits in; n_graph if there is none. */
static int32_t graph_for(const rr__cu_slot *slot, const rr__cu_shape *shape) {
    int32_t i = 0;

    while (i < slot->n_graph &&
           !(shape->n <= slot->graph[i].shape.n && shape->s <= slot->graph[i].shape.s &&
             shape->n_tile <= slot->graph[i].shape.n_tile))
        i++;
    return i;
}

static rr_status start(rr__cu_instance *r, const rr__batch *b, rr__cu_watcher *watch,
                       rr_error *err) {
    const rr__cu_shape  shape = rr__cu_shape_of(r->w, b);
    const uint_fast64_t n = atomic_load(&r->started);
    rr__cu_slot        *slot = &r->slot[n % RR__CU_SLOTS];
    const uint_fast64_t under_way = n - atomic_load(&r->finished);
    const int32_t       i = watch ? slot->n_graph : graph_for(slot, &shape);
    const rr__cu_shape *staged = i < slot->n_graph ? &slot->graph[i].shape : &shape;

    if (under_way == RR__CU_SLOTS)
        return rr__fail(err, RR_E_ARG, "cuda: two batches are under way already");
    RR__CU_TRY(cudaSetDevice(r->w->opts.device), err);
    slot->n_seq = b->n_seq;
    slot->end = i < slot->n_graph ? slot->spun_on : slot->slept_on;
    rr__cu_stage(r->w, b, staged, slot->stage_host, r->order);
    if (i < slot->n_graph)
        RR__CU_TRY(cudaGraphLaunch(slot->graph[i].exec, r->stream), err);
    else if (under_way)
        RR__TRY(enqueue_behind(r, slot, &shape, err));
    else
        RR__TRY(enqueue(r, slot, &shape, watch, err));
    RR__CU_TRY(cudaEventRecord(slot->end, r->stream), err);
    atomic_store(&r->started, n + 1);
    return RR_OK;
}

rr_status rr__cu_start(void *instance, const rr__batch *b, rr_error *err) {
    rr__cu_instance *r = instance;

    RR__TRY(rr__batch_check(b, r->w->m, &r->w->opts, err));
    return start(r, b, NULL, err);
}

rr_status rr__cu_finish(void *instance, float *logits, rr_error *err) {
    rr__cu_instance    *r = instance;
    const uint_fast64_t n = atomic_load(&r->finished);
    const rr__cu_slot  *slot = &r->slot[n % RR__CU_SLOTS];
    cudaError_t         e = cudaSetDevice(r->w->opts.device);

    if (n == atomic_load(&r->started))
        return rr__fail(err, RR_E_ARG, "cuda: no batch is under way");
    if (e == cudaSuccess)
        e = cudaEventSynchronize(slot->end);
    if (e == cudaSuccess)
        memcpy(logits, slot->logits_host, (size_t)slot->n_seq * sizeof *logits);
    atomic_store(&r->finished, n + 1); /* failed or not, its slot is free */
    RR__CU_TRY(e, err);
    return RR_OK;
}

/* Start and finish, for a batch that has the instance to itself. */
static rr_status alone(rr__cu_instance *r, const rr__batch *b, float *logits, rr__cu_watcher *watch,
                       rr_error *err) {
    RR__TRY(rr__batch_check(b, r->w->m, &r->w->opts, err));
    if (atomic_load(&r->started) != atomic_load(&r->finished))
        return rr__fail(err, RR_E_ARG, "cuda: score between a start and its finish");
    RR__TRY(start(r, b, watch, err));
    return rr__cu_finish(r, logits, err);
}

rr_status rr__cu_score(void *instance, const rr__batch *b, float *logits, rr_error *err) {
    return alone(instance, b, logits, NULL, err);
}

rr_status rr__cu_observe(void *instance, const rr__batch *b, float *logits, rr__observe_fn fn,
                         void *user, rr_error *err) {
    rr__cu_instance *r = instance;
    const size_t     d = (size_t)r->w->m->d_model, f = (size_t)r->w->m->d_ff;
    rr__cu_watcher   watch = {.fn = fn, .user = user};
    rr_status        s = rr__batch_check(b, r->w->m, &r->w->opts, err);

    if (s != RR_OK || !fn)
        return s == RR_OK ? alone(r, b, logits, NULL, err) : s;
    watch.host = malloc((size_t)b->n_tok * (f > 3 * d ? f : 3 * d) * sizeof(float));
    watch.ctx = malloc((size_t)b->n_tok * d * sizeof(float));
    watch.before = malloc((size_t)b->n_tok * d * sizeof(float));
    s = watch.host && watch.ctx && watch.before ? alone(r, b, logits, &watch, err)
                                                : rr__fail(err, RR_E_NOMEM, "cuda: out of memory");
    free(watch.host);
    free(watch.ctx);
    free(watch.before);
    return s;
}

/* ---- open ------------------------------------------------------------------------ */

/* A batch of one-token sequences that fills a shape, to run kernels before they are captured (the
 * driver loads a kernel at its first launch) and before anybody waits for them. */
static rr_status warm(rr__cu_instance *r, const rr__cu_slot *slot, const rr__cu_shape *shape,
                      rr_error *err) {
    rr__cu_staging g = rr__cu_staging_at(slot->stage_host, shape);

    memset(slot->stage_host, 0, g.bytes);
    for (int32_t i = 0; i <= shape->s; i++)
        g.cu[i] = i;
    for (int32_t i = 0; i < shape->n_tile; i++)
        g.tile[i] = (rr__cu_tile){i < shape->s ? i : -1, 0};
    RR__TRY(enqueue(r, slot, shape, NULL, err));
    RR__CU_TRY(cudaStreamSynchronize(r->stream), err);
    return RR_OK;
}

static rr_status capture(rr__cu_instance *r, rr__cu_slot *slot, const rr__cu_shape *shape,
                         rr_error *err) {
    cudaGraph_t graph = NULL;
    cudaError_t e;
    rr_status   s;

    RR__CU_TRY(cudaStreamBeginCapture(r->stream, cudaStreamCaptureModeThreadLocal), err);
    s = enqueue(r, slot, shape, NULL, err);
    e = cudaStreamEndCapture(r->stream, &graph);
    if (s == RR_OK && e == cudaSuccess)
        e = cudaGraphInstantiate(&slot->graph[slot->n_graph].exec, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    if (s != RR_OK)
        return s;
    RR__CU_TRY(e, err);
    slot->graph[slot->n_graph++].shape = *shape;
    return RR_OK;
}

static rr_status capture_all(rr__cu_instance *r, rr_error *err) {
    const rr__cu_shape c = rr__cu_capacity(r->w);
    const int32_t      most = rr__cu_wide_rows(r->w);
    rr__cu_shape       shape = rr__cu_whole(r->w, most, c.s < most ? c.s : most);

    RR__TRY(warm(r, &r->slot[0], &shape, err));
    for (int32_t i = 0; i < N_BUCKET && buckets[i] <= c.n; i++) {
        const int32_t seqs = buckets[i] < 256 ? 16 : buckets[i] / 16;

        shape = rr__cu_whole(r->w, buckets[i], seqs < c.s ? seqs : c.s);
        RR__TRY(warm(r, &r->slot[0], &shape, err));
        for (int k = 0; k < RR__CU_SLOTS; k++)
            RR__TRY(capture(r, &r->slot[k], &shape, err));
    }
    return RR_OK;
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

static rr_status open_slot(rr__cu_slot *slot, const rr__cu_shape *c, rr_error *err) {
    RR__CU_TRY(cudaMallocHost((void **)&slot->stage_host, rr__cu_staging_at(NULL, c).bytes), err);
    RR__CU_TRY(cudaMallocHost((void **)&slot->logits_host, (size_t)c->s * sizeof(float)), err);
    RR__CU_TRY(cudaEventCreateWithFlags(&slot->uploaded, cudaEventDisableTiming), err);
    RR__CU_TRY(cudaEventCreateWithFlags(&slot->spun_on, cudaEventDisableTiming), err);
    RR__CU_TRY(
        cudaEventCreateWithFlags(&slot->slept_on, cudaEventDisableTiming | cudaEventBlockingSync),
        err);
    return RR_OK;
}

static void close_slot(rr__cu_slot *slot) {
    for (int32_t i = 0; i < slot->n_graph; i++)
        cudaGraphExecDestroy(slot->graph[i].exec);
    if (slot->uploaded)
        cudaEventDestroy(slot->uploaded);
    if (slot->spun_on)
        cudaEventDestroy(slot->spun_on);
    if (slot->slept_on)
        cudaEventDestroy(slot->slept_on);
    cudaFreeHost(slot->stage_host);
    cudaFreeHost(slot->logits_host);
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
    RR__CU_TRY(cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking), err);
    RR__CU_TRY(cudaStreamCreateWithFlags(&r->copies, cudaStreamNonBlocking), err);
    for (int i = 0; i < RR__CU_SLOTS; i++)
        RR__TRY(open_slot(&r->slot[i], &c, err));
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
    if (r->stream)
        cudaStreamSynchronize(r->stream); /* a start that failed half way may have left work */
    for (int i = 0; i < RR__CU_SLOTS; i++)
        close_slot(&r->slot[i]);
    if (r->stream)
        cudaStreamDestroy(r->stream);
    if (r->copies)
        cudaStreamDestroy(r->copies);
    cudaFree(r->base);
    atomic_fetch_sub(&r->w->instance_bytes, r->bytes);
    free(r->order);
    free(r);
}
