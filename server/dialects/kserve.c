/* kserve.c - KServe v2 (Triton's protocol): health, metadata, and infer with JSON or binary tensors.
 *
 *     query BYTES [1], documents BYTES [n]                       ->  scores FP32 [n], logits FP32 [n]
 *     input_ids INT64|INT32 [n, L], attention_mask (optional),
 *     token_type_ids (optional), padded on the right             ->  logits FP32 [n], scores
 *
 * Binary: the header Inference-Header-Content-Length says where the JSON ends; tensors follow it in
 * the order of the inputs, little-endian; BYTES elements have their length in front. Without
 * "outputs", text is answered with scores and tokens with logits. */
#include "server/info.h"
#include "server/request.h"

#include <stdio.h>
#include <string.h>

enum { MAX_RANK = 2, MAX_INPUTS = 8 };

typedef enum dtype { BYTES, INT64, INT32, OTHER } dtype;

typedef struct tensor {
    rr_str   name;
    dtype    type;
    int      rank;
    int64_t  shape[MAX_RANK];
    size_t   count;  /* product of shape                        */
    rr_str   data;   /* JSON, or the bytes of a binary tensor   */
    int64_t  binary; /* bytes; -1: data is JSON                 */
    rr_str  *texts;  /* [count] of BYTES, once read             */
    int32_t *ints;   /* [count] of the others, once read        */
} tensor;

typedef struct output {
    const char *name; /* "scores" or "logits" */
    int         binary;
} output;

typedef struct call {
    tensor in[MAX_INPUTS];
    int    n_in;
    output out[2];
    int    n_out, binary_default;
} call;

/* ---- reading --------------------------------------------------------------------------------- */

static int take_shape(rr__json *j, tensor *t) {
    int64_t v = 0;

    t->rank = 0;
    t->count = 1;
    if (!rr__json_array(j))
        return 0;
    while (rr__json_next(j)) {
        if (t->rank == MAX_RANK || !rr__json_i64(j, &v) || v < 0 || v > INT32_MAX)
            return 0;
        t->shape[t->rank++] = v;
        if (v && t->count > (size_t)INT32_MAX / (size_t)v)
            return 0;
        t->count *= (size_t)v;
    }
    return t->rank > 0;
}

/* One flag or number of a "parameters" object. */
static int find_param(rr_str params, rr__arena *arena, const char *name, int64_t *out) {
    rr__json j;
    rr_str   key;
    int      found = 0, b = 0;

    rr__json_init(&j, params.ptr, params.len, arena);
    if (!params.ptr || !rr__json_object(&j))
        return 0;
    while (rr__json_key(&j, &key)) {
        if (!rr__json_eq(key, name)) {
            rr__json_skip(&j);
        } else if (rr__json_peek(&j) == RR__JSON_BOOL) {
            found = rr__json_bool(&j, &b);
            *out = b;
        } else {
            found = rr__json_i64(&j, out);
        }
    }
    return found;
}

static int take_tensor(rr__request *r, rr__json *j, tensor *t) {
    rr_str key, type = {NULL, 0}, params = {NULL, 0};

    t->binary = -1;
    if (!rr__json_object(j))
        return rr__problem_set(r, RR__P_FIELD, "inputs: expected objects");
    while (rr__json_key(j, &key)) {
        if (rr__json_eq(key, "name")) {
            rr__json_string(j, &t->name);
        } else if (rr__json_eq(key, "datatype")) {
            rr__json_string(j, &type);
        } else if (rr__json_eq(key, "shape")) {
            if (!take_shape(j, t))
                return rr__problem_set(r, RR__P_FIELD, "inputs: shape: expected 1 or 2 sizes");
        } else if (rr__json_eq(key, "parameters")) {
            rr__json_raw(j, &params);
        } else if (rr__json_eq(key, "data")) {
            rr__json_raw(j, &t->data);
        } else {
            rr__json_skip(j);
        }
    }
    t->type = rr__json_eq(type, "BYTES")   ? BYTES
              : rr__json_eq(type, "INT64") ? INT64
              : rr__json_eq(type, "INT32") ? INT32
                                           : OTHER;
    if (!t->name.ptr || t->rank == 0 || t->type == OTHER)
        return rr__problem_set(
            r, RR__P_FIELD, "inputs: each needs name, shape, and datatype BYTES, INT64 or INT32");
    find_param(params, &r->arena, "binary_data_size", &t->binary);
    return 1;
}

/* Elements of a list, however deep it is nested: [[1, 2], [3]] is 1, 2, 3. */
static int read_json(rr__json *j, tensor *t, size_t *n, int depth) {
    int64_t v = 0;

    if (!rr__json_array(j))
        return 0;
    while (rr__json_next(j)) {
        if (rr__json_peek(j) == RR__JSON_ARRAY) {
            if (depth == MAX_RANK || !read_json(j, t, n, depth + 1))
                return 0;
            continue;
        }
        if (*n == t->count)
            return 0;
        if (t->type == BYTES) {
            if (!rr__json_string(j, &t->texts[*n]))
                return 0;
        } else {
            if (!rr__json_i64(j, &v) || v < INT32_MIN || v > INT32_MAX)
                return 0;
            t->ints[*n] = (int32_t)v;
        }
        ++*n;
    }
    return !j->what;
}

static uint64_t little(const char *p, size_t n) {
    uint64_t v = 0;

    for (size_t i = n; i-- > 0;)
        v = v << 8 | (unsigned char)p[i];
    return v;
}

static int read_binary(tensor *t) {
    const char *p = t->data.ptr, *end = p + t->data.len;
    size_t      width = t->type == INT64 ? 8 : 4;

    for (size_t i = 0; i < t->count; i++) {
        uint64_t v;

        if ((size_t)(end - p) < width)
            return 0;
        v = little(p, width);
        p += width;
        if (t->type == BYTES) {
            if (v > (uint64_t)(end - p))
                return 0;
            t->texts[i] = (rr_str){p, (size_t)v};
            p += v;
        } else {
            int64_t id = t->type == INT64 ? (int64_t)v : (int32_t)(uint32_t)v;

            if (id < INT32_MIN || id > INT32_MAX)
                return 0;
            t->ints[i] = (int32_t)id;
        }
    }
    return p == end;
}

/* Shape and bytes agree, then the elements. An element is at least one byte of the request, so
 * the shape cannot ask for more memory than the body earns. */
static int read_tensor(rr__request *r, tensor *t) {
    rr__json j;
    size_t   n = 0;
    int      ok = t->count <= t->data.len;

    if (ok && t->type == BYTES)
        ok = (t->texts = rr__arena_calloc(&r->arena, t->count, sizeof *t->texts)) != NULL;
    else if (ok)
        ok = (t->ints = rr__arena_calloc(&r->arena, t->count, sizeof *t->ints)) != NULL;
    if (ok && t->binary >= 0) {
        ok = read_binary(t);
    } else if (ok) {
        rr__json_init(&j, t->data.ptr, t->data.len, &r->arena);
        ok = read_json(&j, t, &n, 1) && n == t->count;
    }
    return ok || rr__problem_set(r, RR__P_FIELD, "input %.*s: the data does not match the shape",
                                 (int)(t->name.len < 40 ? t->name.len : 40), t->name.ptr);
}

static int take_inputs(rr__request *r, call *c) {
    size_t   at = r->header_len >= 0 ? (size_t)r->header_len : r->body_len;
    rr__json j;

    rr__json_init(&j, r->fields.inputs.ptr, r->fields.inputs.len, &r->arena);
    if (!r->fields.inputs.ptr || !rr__json_array(&j))
        return rr__problem_set(r, RR__P_FIELD, "inputs: expected a list");
    while (rr__json_next(&j)) {
        tensor *t = &c->in[c->n_in];

        if (c->n_in == MAX_INPUTS)
            return rr__problem_set(r, RR__P_FIELD, "inputs: more than %d", MAX_INPUTS);
        if (!take_tensor(r, &j, t))
            return 0;
        if (t->binary >= 0) {
            if ((uint64_t)t->binary > r->body_len - at)
                return rr__problem_set(r, RR__P_FIELD, "inputs: the body ends within a tensor");
            t->data = (rr_str){r->body + at, (size_t)t->binary};
            at += (size_t)t->binary;
        }
        c->n_in++;
        if (!read_tensor(r, t))
            return 0;
    }
    if (at != r->body_len)
        return rr__problem_set(r, RR__P_FIELD, "%zu bytes behind the last tensor",
                               r->body_len - at);
    return 1;
}

static int take_outputs(rr__request *r, call *c, int tokens) {
    rr__json j;
    int64_t  flag = 0;

    if (find_param(r->fields.parameters, &r->arena, "binary_data_output", &flag))
        c->binary_default = flag != 0;
    if (!r->fields.outputs.ptr) {
        c->out[0] = (output){tokens ? "logits" : "scores", c->binary_default};
        c->n_out = 1;
        return 1;
    }
    rr__json_init(&j, r->fields.outputs.ptr, r->fields.outputs.len, &r->arena);
    if (!rr__json_array(&j))
        return rr__problem_set(r, RR__P_FIELD, "outputs: expected a list");
    while (rr__json_next(&j)) {
        rr_str  key, name = {NULL, 0}, params = {NULL, 0};
        int64_t binary = c->binary_default;

        if (!rr__json_object(&j))
            return rr__problem_set(r, RR__P_FIELD, "outputs: expected objects");
        while (rr__json_key(&j, &key))
            if (rr__json_eq(key, "name"))
                rr__json_string(&j, &name);
            else if (rr__json_eq(key, "parameters"))
                rr__json_raw(&j, &params);
            else
                rr__json_skip(&j);
        find_param(params, &r->arena, "binary_data", &binary);
        if (c->n_out == 2 || !(rr__json_eq(name, "scores") || rr__json_eq(name, "logits")))
            return rr__problem_set(r, RR__P_FIELD, "outputs: there are scores and logits");
        c->out[c->n_out++] =
            (output){rr__json_eq(name, "scores") ? "scores" : "logits", binary != 0};
    }
    return c->n_out > 0 || rr__problem_set(r, RR__P_FIELD, "outputs: the list is empty");
}

/* ---- accepting ------------------------------------------------------------------------------- */

static tensor *find(call *c, const char *name, dtype a, dtype b) {
    for (int i = 0; i < c->n_in; i++)
        if (rr__json_eq(c->in[i].name, name) && (c->in[i].type == a || c->in[i].type == b))
            return &c->in[i];
    return NULL;
}

static int take_texts(rr__request *r, const tensor *query, const tensor *docs) {
    rr__texts list = {docs->texts, docs->count, 1, 0};

    if (query->count != 1)
        return rr__problem_set(r, RR__P_FIELD, "query: expected one element");
    r->query = query->texts[0];
    r->n_chars = r->query.len;
    return rr__take_docs(r, &list, "documents");
}

/* Rows of a padded matrix to ragged sequences. */
static int take_ids(rr__request *r, const tensor *ids, const tensor *mask, const tensor *types) {
    const size_t n = (size_t)ids->shape[0], len = ids->rank == 2 ? (size_t)ids->shape[1] : 0;
    int32_t     *tok = rr__arena_calloc(&r->arena, ids->count + 1, sizeof *tok);
    int32_t     *cu = rr__arena_calloc(&r->arena, n + 1, sizeof *cu);
    int32_t     *seg = rr__arena_calloc(&r->arena, n + 1, sizeof *seg);

    if (!tok || !cu || !seg)
        return rr__problem_set(r, RR__P_UNAVAILABLE, "out of memory");
    if (n == 0 || len == 0)
        return rr__problem_set(r, RR__P_EMPTY, "input_ids: expected shape [n, length]");
    if (n > (size_t)r->server->o.max_docs)
        return rr__problem_set(r, RR__P_TOO_LARGE, "input_ids: %zu sequences, the limit is %d", n,
                               r->server->o.max_docs);
    if ((mask && mask->count != ids->count) || (types && types->count != ids->count))
        return rr__problem_set(r, RR__P_FIELD, "attention_mask, token_type_ids: shape differs");
    for (size_t i = 0; i < n; i++) {
        size_t row = i * len, keep = 0;

        while (keep < len && (!mask || mask->ints[row + keep] != 0))
            keep++;
        for (size_t t = keep; t < len; t++)
            if (mask->ints[row + t] != 0)
                return rr__problem_set(r, RR__P_FIELD,
                                       "attention_mask: padding must be on the "
                                       "right");
        if (keep == 0)
            return rr__problem_set(r, RR__P_FIELD, "attention_mask: row %zu is empty", i);
        memcpy(tok + cu[i], ids->ints + row, keep * sizeof *tok);
        cu[i + 1] = cu[i] + (int32_t)keep;
        while ((size_t)seg[i] < keep && (!types || types->ints[row + (size_t)seg[i]] == 0))
            seg[i]++;
    }
    r->ids = tok;
    r->cu = cu;
    r->seg = seg;
    r->n = n;
    return 1;
}

static int right_model(rr__request *r) {
    return rr__json_eq(r->segment[0], r->server->model_name) ||
           rr__problem_set(r, RR__P_NOT_FOUND, "no such model, this is %.100s",
                           r->server->model_name);
}

static int kserve_accept(rr__request *r) {
    call   *c = rr__arena_calloc(&r->arena, 1, sizeof *c);
    tensor *ids, *query, *docs;
    int64_t us = 0;

    if (!c)
        return rr__problem_set(r, RR__P_UNAVAILABLE, "out of memory");
    r->extra = c;
    if (!right_model(r) || !take_inputs(r, c))
        return 0;
    if (find_param(r->fields.parameters, &r->arena, "timeout", &us) && us > 0)
        r->opts.deadline_us = r->start_us + us;
    ids = find(c, "input_ids", INT64, INT32);
    query = find(c, "query", BYTES, BYTES);
    docs = find(c, "documents", BYTES, BYTES);
    if (!take_outputs(r, c, ids != NULL))
        return 0;
    if (ids)
        return take_ids(r, ids, find(c, "attention_mask", INT64, INT32),
                        find(c, "token_type_ids", INT64, INT32));
    if (!query || !docs)
        return rr__problem_set(
            r, RR__P_FIELD, "inputs: expected query and documents (BYTES), or input_ids (INT64)");
    return take_texts(r, query, docs);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void pair_str(rr__json_out *o, const char *key, const char *value) {
    rr__out_key(o, key);
    rr__out_cstr(o, value);
}

static void write_output(rr__request *r, const output *out, const float *logits, size_t n) {
    rr__json_out *o = &r->out;

    rr__out_object(o);
    pair_str(o, "name", out->name);
    pair_str(o, "datatype", "FP32");
    rr__out_key(o, "shape");
    rr__out_array(o);
    rr__out_u64(o, n);
    rr__out_end_array(o);
    if (out->binary) {
        rr__out_key(o, "parameters");
        rr__out_object(o);
        rr__out_key(o, "binary_data_size");
        rr__out_u64(o, n * sizeof *logits);
        rr__out_end_object(o);
    } else {
        rr__out_key(o, "data");
        rr__out_array(o);
        for (size_t i = 0; i < n; i++)
            rr__out_f32(o, out->name[0] == 'l' ? logits[i] : rr_sigmoid(logits[i]));
        rr__out_end_array(o);
    }
    rr__out_end_object(o);
}

static void kserve_write(rr__request *r) {
    const call   *c = r->extra;
    size_t        n = 0;
    const float  *logits = rr_job_scores(r->job, &n);
    rr__json_out *o = &r->out;
    int           binary = 0;

    rr__out_object(o);
    rr__out_key(o, "id");
    rr__out_str(o, r->fields.id.ptr ? r->fields.id : (rr_str){r->id, strlen(r->id)});
    pair_str(o, "model_name", r->server->model_name);
    pair_str(o, "model_version", "1");
    rr__out_key(o, "outputs");
    rr__out_array(o);
    for (int k = 0; k < c->n_out; k++) {
        write_output(r, &c->out[k], logits, n);
        binary |= c->out[k].binary;
    }
    rr__out_end_array(o);
    rr__out_end_object(o);
    if (!binary)
        return;
    snprintf(r->extra_header, sizeof r->extra_header, "%zu", o->len);
    r->type = "application/octet-stream";
    for (int k = 0; k < c->n_out; k++)
        for (size_t i = 0; c->out[k].binary && i < n; i++) {
            float         v = c->out[k].name[0] == 'l' ? logits[i] : rr_sigmoid(logits[i]);
            uint32_t      u;
            unsigned char b[4];

            memcpy(&u, &v, 4);
            for (int s = 0; s < 4; s++)
                b[s] = (unsigned char)(u >> 8 * s);
            rr__out_raw(o, (const char *)b, 4);
        }
}

static int kserve_fail(rr__request *r) {
    int http = rr__problem_http(r->problem);

    rr__out_object(&r->out);
    pair_str(&r->out, "error", r->text);
    rr__out_end_object(&r->out);
    return r->route && r->route->fn == rr__kserve_ready ? 400 : http; /* KServe's "not ready" */
}

const rr__dialect rr__kserve = {"kserve", kserve_accept, kserve_write, kserve_fail};

/* ---- health and metadata --------------------------------------------------------------------- */

void rr__kserve_live(rr__request *r) {
    rr__get_health(r);
}

void rr__kserve_ready(rr__request *r) {
    if (!r->segment[0].ptr || right_model(r))
        rr__get_ready(r);
}

void rr__kserve_server(rr__request *r) {
    rr__json_out *o = &r->out;

    rr__out_object(o);
    pair_str(o, "name", "rerank.c");
    pair_str(o, "version", rr_version());
    rr__out_key(o, "extensions");
    rr__out_array(o);
    rr__out_cstr(o, "binary_tensor_data");
    rr__out_end_array(o);
    rr__out_end_object(o);
}

static void write_spec(rr__json_out *o, const char *name, const char *type, int rank) {
    rr__out_object(o);
    pair_str(o, "name", name);
    pair_str(o, "datatype", type);
    rr__out_key(o, "shape");
    rr__out_array(o);
    for (int i = 0; i < rank; i++)
        rr__out_i64(o, -1);
    rr__out_end_array(o);
    rr__out_end_object(o);
}

void rr__kserve_model(rr__request *r) {
    rr__json_out *o = &r->out;

    if (!right_model(r))
        return;
    rr__out_object(o);
    pair_str(o, "name", r->server->model_name);
    rr__out_key(o, "versions");
    rr__out_array(o);
    rr__out_cstr(o, "1");
    rr__out_end_array(o);
    pair_str(o, "platform", "rerank.c");
    rr__out_key(o, "inputs");
    rr__out_array(o);
    write_spec(o, "query", "BYTES", 1);
    write_spec(o, "documents", "BYTES", 1);
    write_spec(o, "input_ids", "INT64", 2);
    write_spec(o, "attention_mask", "INT64", 2);
    write_spec(o, "token_type_ids", "INT64", 2);
    rr__out_end_array(o);
    rr__out_key(o, "outputs");
    rr__out_array(o);
    write_spec(o, "scores", "FP32", 1);
    write_spec(o, "logits", "FP32", 1);
    rr__out_end_array(o);
    rr__out_end_object(o);
}

void rr__kserve_config(rr__request *r) {
    rr__json_out *o = &r->out;

    if (!right_model(r))
        return;
    rr__out_object(o);
    pair_str(o, "name", r->server->model_name);
    pair_str(o, "platform", "rerank.c");
    pair_str(o, "backend", r->server->engine_info.backend);
    rr__out_key(o, "max_batch_size");
    rr__out_i64(o, 0);
    rr__out_end_object(o);
}
