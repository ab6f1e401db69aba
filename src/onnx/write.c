/* write.c - weights to the bytes ONNX wants, and the finished graph to disk.
 *
 * Weights are read from the mapped model one tensor at a time, so the memory needed is the largest
 * tensor (external data) or the file itself (inline). Files appear whole or not at all: they are
 * written as FILE.part and renamed. */
#include "onnx/graph.h"

#include "base/half.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DATA_ALIGN = 4096 }; /* so that a runtime may map a tensor */

static void encode(int type, const float *v, size_t n, unsigned char *out) {
    size_t i;

    switch (type) {
    case ONNX_FLOAT:
        memcpy(out, v, n * 4);
        break;
    case ONNX_FLOAT16:
    case ONNX_BFLOAT16:
        for (i = 0; i < n; i++) {
            uint16_t h = type == ONNX_FLOAT16 ? rr__f32_to_f16(v[i]) : rr__f32_to_bf16(v[i]);

            memcpy(out + 2 * i, &h, 2);
        }
        break;
    case ONNX_INT8:
        for (i = 0; i < n; i++) {
            float r = nearbyintf(v[i]);

            out[i] = (unsigned char)(int8_t)(r < -127 ? -127 : r > 127 ? 127 : r);
        }
        break;
    case ONNX_FLOAT8E4M3FN:
        for (i = 0; i < n; i++)
            out[i] = rr__f32_to_e4m3(v[i]);
        break;
    }
}

/* All rows of the stacked sources as fp32 [out, in], smoothed and divided by the scale of each
 * output channel, transposed if asked. */
static void gather(const rr__weight *w, float *tmp, float *out) {
    size_t rows = 0, row = 0, cols = (size_t)w->src[0]->shape[w->src[0]->rank - 1];

    for (int s = 0; s < w->n_src; s++)
        rows += w->src[s]->rank == 2 ? (size_t)w->src[s]->shape[0] : 1;
    for (int s = 0; s < w->n_src; s++) {
        size_t n = w->src[s]->rank == 2 ? (size_t)w->src[s]->shape[0] : 1;

        for (size_t r = 0; r < n; r++, row++) {
            float *to = w->transpose ? tmp : out + row * cols;

            rr__tensor_f32(w->src[s], r * cols, cols, to);
            for (size_t c = 0; w->smooth && c < cols; c++)
                to[c] *= w->smooth[c];
            for (size_t c = 0; w->scale && c < cols; c++)
                to[c] /= w->scale[row];
            for (size_t c = 0; w->transpose && c < cols; c++)
                out[c * rows + row] = to[c];
        }
    }
}

/* The mapped bytes themselves where nothing changes: embeddings, mostly. */
static const unsigned char *as_mapped(const rr__weight *w) {
    static const int onnx_type[] = {
        [RR__DT_F32] = ONNX_FLOAT, [RR__DT_F16] = ONNX_FLOAT16, [RR__DT_BF16] = ONNX_BFLOAT16};
    int same = w->n_src == 1 && !w->transpose && !w->scale && !w->smooth &&
               onnx_type[w->src[0]->dtype] == w->tensor->data_type && w->src[0]->bytes == w->bytes;

    return same ? w->src[0]->data : NULL;
}

/* One weight converted; *out is malloc'd. */
static rr_status convert(const rr__weight *w, unsigned char **out, rr_error *err) {
    size_t         elems = (size_t)(w->bytes / rr__onnx_type_size(w->tensor->data_type));
    size_t         cols = (size_t)w->src[0]->shape[w->src[0]->rank - 1];
    float         *all = malloc(elems * sizeof *all), *tmp = malloc(cols * sizeof *tmp);
    unsigned char *bytes = malloc((size_t)w->bytes);
    rr_status      s = RR_OK;

    if (!all || !tmp || !bytes) {
        s = rr__fail(err, RR_E_NOMEM, "%s: %zu elements", w->tensor->name, elems);
        goto done;
    }
    gather(w, tmp, all);
    encode(w->tensor->data_type, all, elems, bytes);
    *out = bytes;
    bytes = NULL;
done:
    free(all);
    free(tmp);
    free(bytes);
    return s;
}

static RrOnnx__Pair *pair(rr__graph *g, const char *key, const char *value) {
    RrOnnx__Pair *p = rr__arena_alloc(&g->arena, sizeof *p);

    if (!p)
        return NULL;
    rr__onnx__pair__init(p);
    p->key = (char *)rr__graph_name(g, "%s", key);
    p->value = (char *)rr__graph_name(g, "%s", value);
    return p;
}

static rr_status mark_external(rr__graph *g, RrOnnx__Tensor *t, const char *location, uint64_t at,
                               uint64_t size, rr_error *err) {
    t->external_data = rr__arena_alloc(&g->arena, 3 * sizeof *t->external_data);
    if (!t->external_data)
        return rr__fail(err, RR_E_NOMEM, "%s", t->name);
    t->external_data[0] = pair(g, "location", location);
    t->external_data[1] = pair(g, "offset", rr__graph_name(g, "%llu", (unsigned long long)at));
    t->external_data[2] = pair(g, "length", rr__graph_name(g, "%llu", (unsigned long long)size));
    if (g->status || !t->external_data[0] || !t->external_data[1] || !t->external_data[2])
        return rr__fail(err, RR_E_NOMEM, "%s", t->name);
    t->n_external_data = 3;
    t->has_data_location = 1;
    t->data_location = 1;
    return RR_OK;
}

/* Weights into an open data file (external) or into the tensors (data == NULL). */
static rr_status write_weights(rr__graph *g, FILE *data, const char *data_path,
                               rr__onnx_progress_fn progress, void *user, rr_error *err) {
    static const char pad[DATA_ALIGN];
    const char       *slash = strrchr(data_path, '/');
    uint64_t          at = 0, done = 0, total = 0;

    for (size_t i = 0; i < g->n_weight; i++)
        total += g->weight[i].bytes;
    for (size_t i = 0; i < g->n_weight; i++) {
        rr__weight          *w = &g->weight[i];
        unsigned char       *made = NULL; /* ours to free, or NULL where bytes is the map */
        const unsigned char *bytes = as_mapped(w);
        rr_status            s = bytes ? RR_OK : convert(w, &made, err);

        if (s)
            return s;
        if (!bytes)
            bytes = made;
        if (data) {
            size_t gap = (size_t)((DATA_ALIGN - at % DATA_ALIGN) % DATA_ALIGN);
            int    bad = fwrite(pad, 1, gap, data) != gap ||
                      fwrite(bytes, 1, (size_t)w->bytes, data) != w->bytes;

            free(made);
            if (bad)
                return rr__fail(err, RR_E_IO, "%s: %s", data_path, strerror(errno));
            s = mark_external(g, w->tensor, slash ? slash + 1 : data_path, at + gap, w->bytes, err);
            if (s)
                return s;
            at += gap + w->bytes;
        } else {
            w->tensor->has_raw_data = 1;
            w->tensor->raw_data = (ProtobufCBinaryData){(size_t)w->bytes, (uint8_t *)bytes};
            w->made = made;
        }
        done += w->bytes;
        if (progress)
            progress(user, done, total);
    }
    return RR_OK;
}

typedef struct file_buffer {
    ProtobufCBuffer base;
    FILE           *file;
    int             bad;
} file_buffer;

static void file_append(ProtobufCBuffer *buffer, size_t len, const uint8_t *data) {
    file_buffer *b = (file_buffer *)buffer;

    if (fwrite(data, 1, len, b->file) != len)
        b->bad = errno ? errno : EIO;
}

/* fclose, fsync and rename FILE.part; says why if any of them fails. */
static rr_status finish(FILE **file, const char *part, const char *path, rr_error *err) {
    int bad = fflush(*file) != 0 || fsync(fileno(*file)) != 0;

    bad |= fclose(*file) != 0;
    *file = NULL;
    if (bad || rename(part, path) != 0)
        return rr__fail(err, RR_E_IO, "%s: %s", path, strerror(errno));
    return RR_OK;
}

rr_status rr__graph_write(rr__graph *g, const char *path, int external,
                          rr__onnx_progress_fn progress, void *user, rr_error *err) {
    rr_status   s;
    uint64_t    total = 0;
    FILE       *model = NULL, *data = NULL;
    file_buffer buffer = {{file_append}, NULL, 0};
    const char *part = rr__graph_name(g, "%s.part", path);
    const char *data_path = rr__graph_name(g, "%s.data", path);
    const char *data_part = rr__graph_name(g, "%s.data.part", path);

    if (g->status)
        return rr__fail(err, g->status, "%s: graph could not be built", path);
    if (strlen(path) > 240)
        return rr__fail(err, RR_E_ARG, "%s: path is too long", path);
    for (size_t i = 0; i < g->n_weight; i++)
        total += g->weight[i].bytes;
    external = external || total > RR__ONNX_INLINE_MAX;
    model = fopen(part, "wb");
    if (!model)
        return rr__fail(err, RR_E_IO, "%s: %s", part, strerror(errno));
    if (external && !(data = fopen(data_part, "wb"))) {
        s = rr__fail(err, RR_E_IO, "%s: %s", data_part, strerror(errno));
        goto done;
    }
    s = write_weights(g, data, data_path, progress, user, err);
    if (s)
        goto done;
    buffer.file = model;
    rr__onnx__model__pack_to_buffer(&g->model, &buffer.base);
    if (buffer.bad) {
        s = rr__fail(err, RR_E_IO, "%s: %s", part, strerror(buffer.bad));
        goto done;
    }
    if (data && (s = finish(&data, data_part, data_path, err)))
        goto done;
    s = finish(&model, part, path, err);
done:
    if (data)
        fclose(data);
    if (model)
        fclose(model);
    if (s) {
        remove(part);
        if (external)
            remove(data_part);
    }
    for (size_t i = 0; i < g->n_weight; i++)
        free(g->weight[i].made);
    return s;
}
