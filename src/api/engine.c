/* engine.c - a model on its devices, with the scheduler before them. */
#include "api/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROBE_US = 50000 }; /* measuring the device at open may take this long */

/* Load the weights on each device; "all" is every ordinal that loads, and what does not is left out:
 * one broken card must not keep the others from serving. */
static rr_status load(rr_engine *e, const rr_engine_opts *o, rr_error *err) {
    int32_t   ordinal[RR__MAX_DEVICES] = {0}, n = 1;
    int       all = 0;
    rr_status s = rr__devices_parse(o->devices, ordinal, &n, &all, err);
    int       one = strcmp(e->backend->name, "cpu") == 0 || strcmp(e->backend->name, "ref") == 0;
    rr_status first = RR_OK;

    if (s != RR_OK)
        return s;
    all = all && !one;
    if (one || all) {
        n = one ? 1 : RR__MAX_DEVICES;
        for (int32_t i = 0; i < n; i++)
            ordinal[i] = i;
    }
    for (int32_t i = 0; i < n; i++) {
        rr_error why = {RR_OK, ""};

        e->backend_opts.device = ordinal[i];
        s = e->backend->load(e->model->weights, &e->backend_opts, &e->weights[e->n_device], &why);
        if (s == RR_OK) {
            e->n_device++;
            continue;
        }
        if (all && i > 0 && s == RR_E_ARG)
            break; /* the ordinals end here */
        if (!all)
            return rr__fail(err, s, "%s", why.text);
        if (!e->left_out[0]) {
            first = s;
            snprintf(e->left_out, sizeof e->left_out, "device %d: %s", (int)i, why.text);
        }
    }
    if (e->n_device == 0)
        return rr__fail(err, first, "%s", e->left_out);
    e->backend->describe(e->weights[0], &e->info);
    snprintf(e->device, sizeof e->device, "%s", e->info.device);
    if (e->n_device > 1)
        snprintf(e->device, sizeof e->device, "%d x %s", (int)e->n_device, e->info.device);
    return RR_OK;
}

/* Start the scheduler; the pair it watches is a plain question with its answer. */
static rr_status start(rr_engine *e, const rr_engine_opts *o, rr_error *err) {
    const rr_str   query = RR_STR("capital of France");
    const rr_str   doc = RR_STR("Paris is the capital of France.");
    rr__pair_opts  pair;
    rr__ids        q = {0}, canary = {0};
    rr_doc_info    info;
    int32_t        seg;
    rr__sched_opts so;
    rr_status      s;

    s = rr__pair_options(e->model->tok, NULL, &e->defaults, e->max_length, &pair, err);
    if (s == RR_OK)
        s = rr__tokenizer_encode(e->model->tok, query, &q, err);
    pair.truncation = RR_TRUNC_ONLY_SECOND;
    if (s == RR_OK)
        s = rr__pair_encode(e->model->tok, q.id, q.n, doc, &pair, &canary, &seg, &info, err);
    if (s == RR_OK) {
        so = (rr__sched_opts){.backend = e->backend,
                              .weights = e->weights,
                              .n_device = e->n_device,
                              .instances = o->instances,
                              .max_batch_tokens = o->max_batch_tokens,
                              .max_batch_seqs = o->max_batch_seqs,
                              .max_length = e->max_length,
                              .max_queue_tokens = o->max_queue_tokens,
                              .max_wait_us = o->max_wait_us,
                              .canary = canary.id,
                              .n_canary = (int32_t)canary.n,
                              .probe_us = PROBE_US};
        s = rr__sched_open(&so, &e->sched, err);
    }
    rr__ids_free(&q);
    rr__ids_free(&canary);
    return s;
}

static rr_status open_parts(rr_engine *e, const rr_engine_opts *opts, rr_error *err) {
    rr__calibration *calibration = NULL;
    rr_engine_opts   o;
    rr_status        s = rr__engine_defaults(e->model->weights, opts, &o, err);

    if (s == RR_OK)
        s = rr__backend_find(o.backend, &e->backend, err);
    if (s != RR_OK)
        return s;
    if (o.threads == 0 && o.instances > 1)
        o.threads = rr__cores() / o.instances > 1 ? rr__cores() / o.instances : 1;
    e->backend_opts = (rr__backend_opts){.precision = rr__precision_parse(o.precision),
                                         .threads = o.threads,
                                         .max_batch_tokens = o.max_batch_tokens,
                                         .max_batch_seqs = o.max_batch_seqs,
                                         .memory_limit = o.memory_limit,
                                         .plan_path = o.plan_path,
                                         .fast = o.fast};
    e->instances = o.instances;
    e->max_queue_tokens = o.max_queue_tokens;
    e->max_length = e->model->weights->max_length;
    if (e->max_length > o.max_batch_tokens)
        e->max_length = o.max_batch_tokens;
    e->defaults.max_length = o.max_length;
    e->defaults.truncation = o.truncation;
    e->defaults.side = o.side;
    s = rr__backend_calibration(e->backend, e->backend_opts.precision, e->model->weights,
                                o.calibration_path, &calibration, err);
    e->backend_opts.calibration = calibration;
    if (s == RR_OK)
        s = load(e, &o, err);
    e->backend_opts.calibration = NULL;
    rr__calibration_free(calibration);
    if (s == RR_OK && e->info.max_length)
        s = rr__lengths_within(opts ? opts->max_length : 0, e->info.max_length,
                               &e->defaults.max_length, &e->max_length, err);
    if (s == RR_OK && o.tokenize_threads > 1)
        s = rr__pool_open(o.tokenize_threads, 0, &e->pool, err);
    if (s == RR_OK && o.cache_tokens > 0)
        s = rr__cache_open(o.cache_tokens, &e->cache, err);
    if (s == RR_OK)
        s = start(e, &o, err);
    return s;
}

rr_status rr_engine_open(rr_model *model, const rr_engine_opts *opts, rr_engine **out,
                         rr_error *err) {
    rr_engine *e;
    rr_status  s;

    if (!model || !out)
        return rr__fail(err, RR_E_ARG, "engine: model and out must not be NULL");
    if (!model->weights)
        return rr__fail(err, RR_E_ARG, "engine: %s was opened for its tokenizer only", model->dir);
    e = calloc(1, sizeof *e);
    if (!e)
        return rr__fail(err, RR_E_NOMEM, "engine: out of memory");
    rr__model_ref(model);
    e->model = model;
    s = open_parts(e, opts, err);
    if (s != RR_OK) {
        rr_engine_close(e);
        return s;
    }
    *out = e;
    return RR_OK;
}

void rr_engine_close(rr_engine *e) {
    if (!e)
        return;
    if (!rr__sched_close(e->sched))
        return; /* a device hangs in a call and may still use all of it */
    rr__pool_close(e->pool);
    rr__cache_close(e->cache);
    for (int32_t i = 0; i < e->n_device; i++)
        e->backend->unload(e->weights[i]);
    rr_model_close(e->model);
    free(e);
}

void rr_engine_describe(const rr_engine *e, rr_engine_info *out) {
    if (!out)
        return;
    *out = (rr_engine_info){0};
    if (!e)
        return;
    out->backend = e->backend->name;
    out->precision = rr__precision_name(e->info.precision);
    out->device = e->device;
    out->left_out = e->left_out[0] ? e->left_out : NULL;
    out->n_instances = e->n_device * e->instances;
    out->threads = e->backend_opts.threads ? e->backend_opts.threads : rr__cores();
    out->max_batch_tokens = e->backend_opts.max_batch_tokens;
    out->max_length = e->defaults.max_length;
    out->weight_bytes = e->info.weight_bytes;
    out->instance_bytes = e->info.instance_bytes;
}

void rr_engine_stats(const rr_engine *e, rr_stats *out) {
    if (!out)
        return;
    *out = (rr_stats){0};
    if (!e)
        return;
    rr__sched_stats(e->sched, out);
    rr__cache_counts(e->cache, &out->cache_hits, &out->cache_misses);
}

int64_t rr_engine_backlog_us(const rr_engine *e) {
    return e ? rr__sched_backlog_us(e->sched) : 0;
}

rr_status rr_engine_check(rr_engine *e, int64_t timeout_us, rr_error *err) {
    if (!e || timeout_us < 0)
        return rr__fail(err, RR_E_ARG, "check: no engine, or a negative timeout");
    return rr__sched_check(e->sched, timeout_us, err);
}
