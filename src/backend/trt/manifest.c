/* manifest.c - see manifest.h. One JSON document that a person can read:
 *
 *     {"rerank_engine": 2, "library": "TensorRT-RTX 1.7.1", "headers": 110100, "model": "models/mini",
 *      "model_hash": "...", "precision": "fp16", "calibration": "", "opset": 17, "bytes": 77732580,
 *      "plan_hash": "...", "workspace": 0, "seconds": 10.0, "for": "", "gpu": "NVIDIA L4",
 *      "sm": "sm_89", "cuda": 13000, "driver": "580.159.04",
 *      "profiles": [{"min": [1, 1], "opt": [8, 512], "max": [16, 512]}, ...]} */
#include "backend/trt/manifest.h"

#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BATCH = 4096, MAX_LENGTH = 1 << 20 };

int32_t rr__trt_sm_parse(const char *text) {
    const char *p = strncmp(text, "sm_", 3) == 0 ? text + 3 : text;
    int32_t     sm = 0;

    for (int digits = 0; *p; p++) {
        if (*p == '.' && p == text + digits && digits > 0 && p[1] && !p[2])
            continue; /* "8.6", "12.0" */
        if (*p < '0' || *p > '9' || ++digits > 3)
            return 0;
        sm = sm * 10 + (*p - '0');
    }
    return sm >= 10 ? sm : 0;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* A string of fewer than size bytes without NUL, so that what is read is what was written. */
static void text(rr__json *j, char *out, size_t size) {
    rr_str s;

    if (!rr__json_string(j, &s))
        return;
    if (s.len >= size || memchr(s.ptr, '\0', s.len)) {
        rr__json_error(j, "too long a string, or one with NUL");
        return;
    }
    memcpy(out, s.ptr, s.len);
    out[s.len] = '\0';
}

static void hash(rr__json *j, char out[17]) {
    text(j, out, 17);
    if (strlen(out) != 16 || strspn(out, "0123456789abcdef") != 16)
        rr__json_error(j, "a hash is 16 hex digits");
}

static int64_t whole(rr__json *j, int64_t low, int64_t high) {
    int64_t v = low;

    if (rr__json_i64(j, &v) && (v < low || v > high)) {
        rr__json_error(j, "a number out of range");
        v = low;
    }
    return v;
}

/* "sm_89", or "" for none. */
static int32_t capability(rr__json *j) {
    char    name[16] = "";
    int32_t sm = 0;

    text(j, name, sizeof name);
    if (*name && !(sm = rr__trt_sm_parse(name)))
        rr__json_error(j, "a compute capability is sm_ and its number");
    return sm;
}

static void shape(rr__json *j, int32_t out[2]) {
    rr__json_array(j);
    if (rr__json_next(j))
        out[0] = (int32_t)whole(j, 1, MAX_BATCH);
    if (rr__json_next(j))
        out[1] = (int32_t)whole(j, 1, MAX_LENGTH);
    if (rr__json_next(j))
        rr__json_error(j, "a shape is [batch, length]");
}

static void profiles(rr__json *j, rr__trt_manifest *m) {
    m->n_profile = 0;
    rr__json_array(j);
    while (rr__json_next(j)) {
        rr__trt_profile p = {{0, 0}, {0, 0}, {0, 0}};
        rr_str          key;

        rr__json_object(j);
        while (rr__json_key(j, &key)) {
            if (rr__json_eq(key, "min"))
                shape(j, p.min);
            else if (rr__json_eq(key, "opt"))
                shape(j, p.opt);
            else if (rr__json_eq(key, "max"))
                shape(j, p.max);
            else
                rr__json_skip(j);
        }
        for (int i = 0; i < 2; i++)
            if (p.min[i] < 1 || p.min[i] > p.opt[i] || p.opt[i] > p.max[i])
                rr__json_error(j, "a profile is min <= opt <= max");
        if (m->n_profile == RR__TRT_PROFILES)
            rr__json_error(j, "too many profiles");
        else
            m->profile[m->n_profile++] = p;
        if (j->what)
            return;
    }
}

static void precision(rr__json *j, char out[8]) {
    static const char *const known[] = {"fp32", "fp16", "bf16", "int8", "fp8"};

    text(j, out, 8);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(out, known[i]) == 0)
            return;
    rr__json_error(j, "unknown precision");
}

static void field(rr__json *j, rr_str key, rr__trt_manifest *m, int64_t *version) {
    if (rr__json_eq(key, "rerank_engine"))
        rr__json_i64(j, version);
    else if (rr__json_eq(key, "library"))
        text(j, m->library, sizeof m->library);
    else if (rr__json_eq(key, "headers"))
        m->headers = (int32_t)whole(j, 0, INT32_MAX);
    else if (rr__json_eq(key, "model"))
        text(j, m->model, sizeof m->model);
    else if (rr__json_eq(key, "model_hash"))
        hash(j, m->model_hash);
    else if (rr__json_eq(key, "plan_hash"))
        hash(j, m->plan_hash);
    else if (rr__json_eq(key, "precision"))
        precision(j, m->precision);
    else if (rr__json_eq(key, "calibration"))
        text(j, m->calibration, sizeof m->calibration);
    else if (rr__json_eq(key, "opset"))
        m->opset = (int32_t)whole(j, 1, 1000);
    else if (rr__json_eq(key, "bytes"))
        m->bytes = (uint64_t)whole(j, 1, INT64_MAX);
    else if (rr__json_eq(key, "workspace"))
        m->workspace = (uint64_t)whole(j, 0, (int64_t)1 << 40);
    else if (rr__json_eq(key, "seconds"))
        rr__json_f64(j, &m->seconds);
    else if (rr__json_eq(key, "for"))
        m->target = capability(j);
    else if (rr__json_eq(key, "gpu"))
        text(j, m->gpu, sizeof m->gpu);
    else if (rr__json_eq(key, "sm"))
        m->sm = capability(j);
    else if (rr__json_eq(key, "cuda"))
        m->cuda = (int32_t)whole(j, 0, INT32_MAX);
    else if (rr__json_eq(key, "driver"))
        text(j, m->driver, sizeof m->driver);
    else if (rr__json_eq(key, "profiles"))
        profiles(j, m);
    else
        rr__json_skip(j);
}

rr_status rr__trt_manifest_parse(const void *bytes, size_t size, const char *name,
                                 rr__trt_manifest *out, rr_error *err) {
    rr__arena        arena = {0};
    rr__json         j;
    rr__trt_manifest m = {.n_profile = 0};
    rr_str           key;
    int64_t          version = 0;
    rr_status        s = RR_OK;

    rr__json_init(&j, bytes, size, &arena);
    rr__json_object(&j);
    while (rr__json_key(&j, &key))
        field(&j, key, &m, &version);
    if (!j.what && version != RR__TRT_MANIFEST_VERSION)
        s = rr__fail(err, RR_E_FORMAT,
                     "%.120s: not the manifest of an engine of this version (rerank_engine is not "
                     "%d); make the engine anew with rerank build",
                     name, RR__TRT_MANIFEST_VERSION);
    else if (!j.what && (!m.library[0] || !m.model_hash[0] || !m.plan_hash[0] || !m.precision[0] ||
                         !m.bytes || !m.n_profile || !m.opset))
        rr__json_error(&j, "library, model_hash, plan_hash, precision, bytes, opset and profiles "
                           "are all needed");
    if (s == RR_OK && !rr__json_done(&j))
        s = rr__json_fail(&j, name, err);
    if (s == RR_OK)
        *out = m;
    rr__arena_free(&arena);
    return s;
}

rr_status rr__trt_manifest_read(const char *plan_path, rr__trt_manifest *out, rr_error *err) {
    rr__file  file = {NULL, 0};
    char      path[4096];
    rr_status s;

    if (snprintf(path, sizeof path, "%s.json", plan_path) >= (int)sizeof path)
        return rr__fail(err, RR_E_ARG, "the path of the engine is too long");
    s = rr__file_map(path, &file, err);
    if (s != RR_OK)
        return rr__fail_prefix(err, s, "the engine's manifest");
    s = rr__trt_manifest_parse(file.ptr, file.size, path, out, err);
    rr__file_unmap(&file);
    return s;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void put_text(rr__json_out *o, const char *key, const char *value) {
    rr__out_key(o, key);
    rr__out_cstr(o, value);
}

static void put_number(rr__json_out *o, const char *key, uint64_t value) {
    rr__out_key(o, key);
    rr__out_u64(o, value);
}

static void put_sm(rr__json_out *o, const char *key, int32_t sm) {
    char name[16] = "";

    if (sm)
        snprintf(name, sizeof name, "sm_%d", (int)sm);
    put_text(o, key, name);
}

static void put_shape(rr__json_out *o, const char *key, const int32_t v[2]) {
    rr__out_key(o, key);
    rr__out_array(o);
    rr__out_i64(o, v[0]);
    rr__out_i64(o, v[1]);
    rr__out_end_array(o);
}

rr_status rr__trt_manifest_write(const rr__trt_manifest *m, const char *plan_path, rr_error *err) {
    rr__json_out o = {0};
    char         path[4096];
    rr_status    s;

    if (snprintf(path, sizeof path, "%s.json", plan_path) >= (int)sizeof path)
        return rr__fail(err, RR_E_ARG, "the path of the engine is too long");
    rr__out_object(&o);
    put_number(&o, "rerank_engine", RR__TRT_MANIFEST_VERSION);
    put_text(&o, "library", m->library);
    put_number(&o, "headers", (uint64_t)m->headers);
    put_text(&o, "model", m->model);
    put_text(&o, "model_hash", m->model_hash);
    put_text(&o, "precision", m->precision);
    put_text(&o, "calibration", m->calibration);
    put_number(&o, "opset", (uint64_t)m->opset);
    put_number(&o, "bytes", m->bytes);
    put_text(&o, "plan_hash", m->plan_hash);
    put_number(&o, "workspace", m->workspace);
    rr__out_key(&o, "seconds");
    rr__out_f64(&o, m->seconds);
    put_sm(&o, "for", m->target);
    put_text(&o, "gpu", m->gpu);
    put_sm(&o, "sm", m->sm);
    put_number(&o, "cuda", (uint64_t)m->cuda);
    put_text(&o, "driver", m->driver);
    rr__out_key(&o, "profiles");
    rr__out_array(&o);
    for (int32_t i = 0; i < m->n_profile; i++) {
        rr__out_object(&o);
        put_shape(&o, "min", m->profile[i].min);
        put_shape(&o, "opt", m->profile[i].opt);
        put_shape(&o, "max", m->profile[i].max);
        rr__out_end_object(&o);
    }
    rr__out_end_array(&o);
    rr__out_end_object(&o);
    rr__out_raw(&o, "\n", 1);
    s = o.failed ? rr__fail(err, RR_E_NOMEM, "%s: out of memory", path)
                 : rr__file_save(path, o.ptr, o.len, err);
    rr__out_free(&o);
    return s;
}

/* ---- is it still right? ---------------------------------------------------------------------- */

/* The number before the first point: NVIDIA's release branch. */
static long branch(const char *driver) {
    return strtol(driver, NULL, 10);
}

rr_status rr__trt_fresh(const rr__trt_manifest *m, const rr__trt_here *h, const char *name,
                        rr_error *err) {
    const char *const remedy = "make it anew: --rebuild, or rerank build";
    const int         rtx = strncmp(m->library, "TensorRT-RTX", 12) == 0;

    if (strcmp(m->model_hash, h->model_hash) != 0)
        return rr__fail(err, RR_E_ARG,
                        "%.80s was made from other weights (%s) than this model's (%s); %s", name,
                        m->model_hash, h->model_hash, remedy);
    if (strcmp(m->plan_hash, h->plan_hash) != 0)
        return rr__fail(err, RR_E_ARG, "%.80s is not the file that its manifest describes; %s",
                        name, remedy);
    if (*h->library && strcmp(m->library, h->library) != 0)
        return rr__fail(err, RR_E_ARG, "%.80s was made by %s, here is %s; %s", name, m->library,
                        h->library, remedy);
    if (!*h->gpu)
        return RR_OK;
    if (m->target && m->target != h->sm)
        return rr__fail(err, RR_E_ARG, "%.80s was made for sm_%d, %.60s is sm_%d; %s", name,
                        (int)m->target, h->gpu, (int)h->sm, remedy);
    /* TensorRT's kernels are chosen on the card; RTX's are compiled on the one that runs them. */
    if (!rtx && (m->sm != h->sm || strcmp(m->gpu, h->gpu) != 0))
        return rr__fail(err, RR_E_ARG, "%.60s was made on %.40s (sm_%d), here is %.40s (sm_%d); %s",
                        name, *m->gpu ? m->gpu : "no card", (int)m->sm, h->gpu, (int)h->sm, remedy);
    /* A newer driver runs what an older one did. */
    if (m->cuda > h->cuda)
        return rr__fail(err, RR_E_ARG,
                        "%.80s was made with CUDA %d.%d, the driver here knows %d.%d; update the "
                        "driver, or %s",
                        name, (int)m->cuda / 1000, (int)m->cuda % 1000 / 10, (int)h->cuda / 1000,
                        (int)h->cuda % 1000 / 10, remedy);
    if (branch(m->driver) > branch(h->driver))
        return rr__fail(err, RR_E_ARG,
                        "%.80s was made with driver %s, here is the older %s; update it, or %s",
                        name, m->driver, *h->driver ? h->driver : "(unknown)", remedy);
    return RR_OK;
}
