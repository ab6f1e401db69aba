/* calibration.c - the calibration file: one JSON document that a person can read and every backend reads.
 *
 *     {"rerank_calibration": 1, "format": "int8", "method": "mse", "percentile": 0,
 *      "smooth_alpha": 0, "per_token": false, "pairs": 256, "tokens": 41213, "model": "mini", "hash": "...",
 *      "products": [{"name": "0.qkv", "amax": 7.31, "max": 9.02, "columns": 384,
 *                    "keep_float": false, "sensitivity": 0.004, "smooth": [...]}, ...]} */
#include "model/calibration.h"

#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_out.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PRODUCTS = 4096, MAX_COLUMNS = 1 << 20 };

rr__calibration *rr__calibration_new(size_t n) {
    rr__calibration *c = calloc(1, sizeof *c);
    rr__arena       *arena = calloc(1, sizeof *arena);

    if (c && arena) {
        c->self = arena;
        c->n = n;
        c->product = rr__arena_calloc(arena, n, sizeof *c->product);
    }
    if (c && c->product)
        return c;
    if (arena)
        rr__arena_free(arena);
    free(arena);
    free(c);
    return NULL;
}

static const char *const roles[] = {"qkv", "out", "ffn1", "ffn2"};

rr__calibration *rr__calibration_plain(const rr__model *m) {
    rr__calibration *c = rr__calibration_new((size_t)m->n_layer * 4);

    if (!c)
        return NULL;
    c->per_token = 1;
    snprintf(c->model, sizeof c->model, "%s", m->dir);
    rr__model_hash(m, c->hash);
    for (size_t i = 0; i < c->n; i++) {
        rr__calibrated *p = &c->product[i];

        snprintf(p->name, sizeof p->name, "%zu.%s", i / 4, roles[i % 4]);
        p->amax = p->max = 1;
        p->cols = i % 4 == 3 ? m->d_ff : m->d_model;
        p->sensitivity = -1;
    }
    return c;
}

float *rr__calibration_floats(rr__calibration *c, const float *v, size_t n) {
    float *p = rr__arena_alloc(c->self, n * sizeof *p);

    if (p)
        memcpy(p, v, n * sizeof *p);
    return p;
}

void rr__calibration_free(rr__calibration *c) {
    if (!c)
        return;
    rr__arena_free(c->self);
    free(c->self);
    free(c);
}

const rr__calibrated *rr__calibration_find(const rr__calibration *c, const char *name) {
    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->product[i].name, name) == 0)
            return &c->product[i];
    return NULL;
}

static const char *const method_names[RR__QUANT_N_METHOD] = {"max", "percentile", "entropy", "mse"};

const char *rr__quant_method_name(rr__quant_method m) {
    return (unsigned)m < RR__QUANT_N_METHOD ? method_names[m] : "?";
}

rr__quant_method rr__quant_method_parse(const char *name) {
    int i = 0;

    while (i < RR__QUANT_N_METHOD && strcmp(name, method_names[i]) != 0)
        i++;
    return (rr__quant_method)i;
}

const char *rr__quant_format_name(rr__quant_format f) {
    return f == RR__QUANT_FP8 ? "fp8" : "int8";
}

/* ---- write ---------------------------------------------------------------- */

static void put_product(rr__json_out *o, const rr__calibrated *p) {
    rr__out_raw(o, "\n  ", 3);
    rr__out_object(o);
    rr__out_key(o, "name");
    rr__out_cstr(o, p->name);
    rr__out_key(o, "amax");
    rr__out_f32(o, p->amax);
    rr__out_key(o, "max");
    rr__out_f32(o, p->max);
    rr__out_key(o, "columns");
    rr__out_i64(o, p->cols);
    rr__out_key(o, "keep_float");
    rr__out_bool(o, p->keep_float);
    rr__out_key(o, "sensitivity");
    rr__out_f64(o, p->sensitivity);
    if (p->smooth) {
        rr__out_key(o, "smooth");
        rr__out_array(o);
        for (int32_t i = 0; i < p->cols; i++)
            rr__out_f32(o, p->smooth[i]);
        rr__out_end_array(o);
    }
    rr__out_end_object(o);
}

static void put(rr__json_out *o, const rr__calibration *c) {
    rr__out_object(o);
    rr__out_key(o, "rerank_calibration");
    rr__out_i64(o, 1);
    rr__out_key(o, "format");
    rr__out_cstr(o, rr__quant_format_name(c->format));
    rr__out_key(o, "method");
    rr__out_cstr(o, rr__quant_method_name(c->method));
    rr__out_key(o, "percentile");
    rr__out_f64(o, c->percentile);
    rr__out_key(o, "smooth_alpha");
    rr__out_f64(o, c->smooth_alpha);
    rr__out_key(o, "per_token");
    rr__out_bool(o, c->per_token);
    rr__out_key(o, "pairs");
    rr__out_i64(o, c->n_pair);
    rr__out_key(o, "tokens");
    rr__out_i64(o, c->n_token);
    rr__out_key(o, "model");
    rr__out_cstr(o, c->model);
    rr__out_key(o, "hash");
    rr__out_cstr(o, c->hash);
    rr__out_key(o, "products");
    rr__out_array(o);
    for (size_t i = 0; i < c->n; i++)
        put_product(o, &c->product[i]);
    rr__out_end_array(o);
    rr__out_end_object(o);
    rr__out_raw(o, "\n", 1);
}

rr_status rr__calibration_write(const rr__calibration *c, const char *path, rr_error *err) {
    rr__json_out o = {0};
    rr_status    s;

    put(&o, c);
    s = rr__out_save(&o, path, err);
    rr__out_free(&o);
    return s;
}

/* ---- read ----------------------------------------------------------------- */

static void text(rr__json *j, char *out, size_t size) {
    rr_str s;

    if (!rr__json_string(j, &s))
        return;
    if (s.len >= size || memchr(s.ptr, '\0', s.len)) {
        rr__json_error(j, "text is too long");
        return;
    }
    memcpy(out, s.ptr, s.len);
    out[s.len] = '\0';
}

/* A number in [lo, hi]. */
static double number(rr__json *j, double lo, double hi) {
    double v = lo;

    if (rr__json_f64(j, &v) && !(v >= lo && v <= hi)) {
        rr__json_error(j, "number out of range");
        v = lo;
    }
    return v;
}

static void smooth(rr__json *j, rr__calibration *c, rr__calibrated *p, float *row) {
    int32_t n = 0;

    rr__json_array(j);
    while (rr__json_next(j)) {
        if (n == MAX_COLUMNS) {
            rr__json_error(j, "too many smoothing factors");
            return;
        }
        row[n++] = (float)number(j, 1e-6, 1e6);
    }
    if (p->cols && n != p->cols)
        rr__json_error(j, "smoothing factors do not match columns");
    p->cols = n;
    p->smooth = rr__calibration_floats(c, row, (size_t)n);
    if (!p->smooth)
        rr__json_error(j, "out of memory");
}

static void product(rr__json *j, rr__calibration *c, rr__calibrated *p, float *row) {
    rr_str key;

    p->sensitivity = -1;
    rr__json_object(j);
    while (rr__json_key(j, &key)) {
        if (rr__json_eq(key, "name"))
            text(j, p->name, sizeof p->name);
        else if (rr__json_eq(key, "amax"))
            p->amax = (float)number(j, FLT_MIN, FLT_MAX);
        else if (rr__json_eq(key, "max"))
            p->max = (float)number(j, 0, FLT_MAX);
        else if (rr__json_eq(key, "columns"))
            p->cols =
                (int32_t)number(j, p->smooth ? p->cols : 1, p->smooth ? p->cols : MAX_COLUMNS);
        else if (rr__json_eq(key, "keep_float"))
            rr__json_bool(j, &p->keep_float);
        else if (rr__json_eq(key, "sensitivity"))
            p->sensitivity = number(j, -1, 1e30);
        else if (rr__json_eq(key, "smooth"))
            smooth(j, c, p, row);
        else
            rr__json_skip(j);
    }
    if (!p->name[0] || !(p->amax > 0) || p->cols < 1)
        rr__json_error(j, "a product needs name, amax and columns");
}

static void method(rr__json *j, rr__calibration *c) {
    char name[32] = "";

    text(j, name, sizeof name);
    c->method = rr__quant_method_parse(name);
    if (c->method == RR__QUANT_N_METHOD)
        rr__json_error(j, "unknown method");
}

static void format(rr__json *j, rr__calibration *c) {
    char name[32] = "";

    text(j, name, sizeof name);
    c->format = strcmp(name, "fp8") == 0 ? RR__QUANT_FP8 : RR__QUANT_INT8;
    if (strcmp(name, rr__quant_format_name(c->format)) != 0)
        rr__json_error(j, "unknown format");
}

static size_t count_products(const void *bytes, size_t size) {
    rr__json  j;
    rr__arena arena = {0};
    rr_str    key;
    size_t    n = 0;

    rr__json_init(&j, bytes, size, &arena);
    rr__json_object(&j);
    while (rr__json_key(&j, &key)) {
        if (!rr__json_eq(key, "products")) {
            rr__json_skip(&j);
            continue;
        }
        rr__json_array(&j);
        for (n = 0; rr__json_next(&j); n++)
            rr__json_skip(&j);
    }
    rr__arena_free(&arena);
    return n;
}

static void document(rr__json *j, rr__calibration *c, float *row) {
    rr_str key;
    double version = 0;
    size_t n = 0;

    rr__json_object(j);
    while (rr__json_key(j, &key)) {
        if (rr__json_eq(key, "rerank_calibration"))
            version = number(j, 1, 1);
        else if (rr__json_eq(key, "format"))
            format(j, c);
        else if (rr__json_eq(key, "method"))
            method(j, c);
        else if (rr__json_eq(key, "percentile"))
            c->percentile = number(j, 0, 100);
        else if (rr__json_eq(key, "smooth_alpha"))
            c->smooth_alpha = number(j, 0, 1);
        else if (rr__json_eq(key, "per_token"))
            rr__json_bool(j, &c->per_token);
        else if (rr__json_eq(key, "pairs"))
            c->n_pair = (int64_t)number(j, 0, 1e15);
        else if (rr__json_eq(key, "tokens"))
            c->n_token = (int64_t)number(j, 0, 1e15);
        else if (rr__json_eq(key, "model"))
            text(j, c->model, sizeof c->model);
        else if (rr__json_eq(key, "hash"))
            text(j, c->hash, sizeof c->hash);
        else if (rr__json_eq(key, "products")) {
            rr__json_array(j);
            for (n = 0; rr__json_next(j) && n < c->n; n++)
                product(j, c, &c->product[n], row);
        } else
            rr__json_skip(j);
    }
    if (version != 1)
        rr__json_error(j, "not a calibration file (rerank_calibration is not 1)");
}

rr_status rr__calibration_parse(const void *bytes, size_t size, const char *name,
                                rr__calibration **out, rr_error *err) {
    size_t           n = count_products(bytes, size);
    rr__json         j;
    rr__arena        arena = {0};
    rr__calibration *c = NULL;
    float           *row = malloc(MAX_COLUMNS * sizeof *row);
    rr_status        s = RR_OK;

    if (n > MAX_PRODUCTS) {
        s = rr__fail(err, RR_E_FORMAT, "%s: %zu products", name, n);
        goto done;
    }
    c = rr__calibration_new(n ? n : 1);
    if (!c || !row) {
        s = rr__fail(err, RR_E_NOMEM, "%s", name);
        goto done;
    }
    c->n = n;
    rr__json_init(&j, bytes, size, &arena);
    document(&j, c, row);
    if (!rr__json_done(&j))
        s = rr__json_fail(&j, name, err);
    else if (!n)
        s = rr__fail(err, RR_E_FORMAT, "%s: no products", name);
done:
    rr__arena_free(&arena);
    free(row);
    if (s)
        rr__calibration_free(c);
    else
        *out = c;
    return s;
}

rr_status rr__calibration_read(const char *path, rr__calibration **out, rr_error *err) {
    rr__file  file;
    rr_status s = rr__file_map(path, &file, err);

    if (s)
        return s;
    s = rr__calibration_parse(file.ptr, file.size, path, out, err);
    rr__file_unmap(&file);
    return s;
}

rr_status rr__calibration_fits(const rr__calibration *c, const rr__model *m, rr_error *err) {
    char name[24], hash[17];

    rr__model_hash(m, hash);
    if (c->hash[0] && strcmp(c->hash, hash) != 0)
        return rr__fail(
            err, RR_E_ARG,
            "calibration of \"%s\" is of other weights (%s) than those of %s (%s); make "
            "one with rerank calibrate",
            c->model, c->hash, m->dir, hash);
    for (int32_t l = 0; l < m->n_layer; l++)
        for (int r = 0; r < 4; r++) {
            const rr__calibrated *p;
            int32_t               cols = r == 3 ? m->d_ff : m->d_model;

            snprintf(name, sizeof name, "%d.%s", (int)l, roles[r]);
            p = rr__calibration_find(c, name);
            if (!p || p->cols != cols)
                return rr__fail(err, RR_E_ARG,
                                "calibration of \"%s\" has %s for product %s of %s; make one with "
                                "rerank calibrate",
                                c->model, p ? "other columns" : "nothing", name, m->dir);
        }
    return RR_OK;
}
