/* model.c - see model.h: map the files, read config and headers, bind every tensor by name.
 *
 * Which tensors a model has, and their shapes, is the two tables below. Tensors the tables do not
 * name (position_ids buffers, an unused pooler) are ignored. */
#include "model/model.h"

#include "base/arena.h"
#include "base/file.h"
#include "model/config.h"
#include "model/safetensors.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What rr__model.self points to; the rr__model itself lives inside. */
typedef struct open_model {
    rr__model  model;
    rr__arena  arena;
    rr__file  *map; /* [n_map] mapped weight files */
    int32_t    n_map;
    rr__config config;
    rr__st     tensors; /* of all shards, by name */
} open_model;

/* A shape is a string of letters: d, f, V, P, T as in model.h, 1 for a single row. */
typedef struct slot {
    const char *name;
    const char *shape;
    size_t      offset;
} slot;

#define IN_MODEL(field) offsetof(rr__model, field)
#define IN_LAYER(field) offsetof(rr__layer, field)

static const slot embedding_slots[] = {
    /* behind arch->prefix "embeddings." */
    {"word_embeddings.weight", "Vd", IN_MODEL(tok_emb)},
    {"position_embeddings.weight", "Pd", IN_MODEL(pos_emb)},
    {"token_type_embeddings.weight", "Td", IN_MODEL(type_emb)},
    {"LayerNorm.weight", "d", IN_MODEL(emb_g)},
    {"LayerNorm.bias", "d", IN_MODEL(emb_b)},
};

static const slot layer_slots[] = {
    /* behind arch->prefix "encoder.layer.%d." */
    {"attention.self.query.weight", "dd", IN_LAYER(wq)},
    {"attention.self.query.bias", "d", IN_LAYER(bq)},
    {"attention.self.key.weight", "dd", IN_LAYER(wk)},
    {"attention.self.key.bias", "d", IN_LAYER(bk)},
    {"attention.self.value.weight", "dd", IN_LAYER(wv)},
    {"attention.self.value.bias", "d", IN_LAYER(bv)},
    {"attention.output.dense.weight", "dd", IN_LAYER(wo)},
    {"attention.output.dense.bias", "d", IN_LAYER(bo)},
    {"attention.output.LayerNorm.weight", "d", IN_LAYER(ln1_g)},
    {"attention.output.LayerNorm.bias", "d", IN_LAYER(ln1_b)},
    {"intermediate.dense.weight", "fd", IN_LAYER(w1)},
    {"intermediate.dense.bias", "f", IN_LAYER(b1)},
    {"output.dense.weight", "df", IN_LAYER(w2)},
    {"output.dense.bias", "d", IN_LAYER(b2)},
    {"output.LayerNorm.weight", "d", IN_LAYER(ln2_g)},
    {"output.LayerNorm.bias", "d", IN_LAYER(ln2_b)},
};

static const slot head_slots[] = {
    /* behind arch->dense or arch->out */
    {".weight", "dd", IN_MODEL(head_w)},
    {".bias", "d", IN_MODEL(head_b)},
    {".weight", "1d", IN_MODEL(out_w)},
    {".bias", "1", IN_MODEL(out_b)},
};

/* ---- binding -------------------------------------------------------------- */

/* How long a dimension is, and which key of config.json says so. */
typedef struct dim {
    int64_t     size;
    const char *key;
} dim;

static dim dim_of(const rr__config *c, char letter) {
    switch (letter) {
    case 'd':
        return (dim){c->d_model, "hidden_size"};
    case 'f':
        return (dim){c->d_ff, "intermediate_size"};
    case 'V':
        return (dim){c->vocab_size, "vocab_size"};
    case 'P':
        return (dim){c->n_pos, "max_position_embeddings"};
    case 'T':
        return (dim){c->n_type, "type_vocab_size"};
    default:
        return (dim){1, "num_labels"};
    }
}

static const char *shape_text(char *buf, size_t size, const int64_t *shape, int32_t rank) {
    int n = snprintf(buf, size, "[");

    for (int32_t i = 0; i < rank && n >= 0 && (size_t)n < size; i++)
        n += snprintf(buf + n, size - (size_t)n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (n >= 0 && (size_t)n < size)
        snprintf(buf + n, size - (size_t)n, "]");
    return buf;
}

/* Find prefix + want->name, check it, and put it at want->offset behind base. */
static rr_status bind_tensor(open_model *om, const char *prefix, const slot *want, void *base,
                             rr_error *err) {
    static const rr__dtype known[] = {RR__DT_F32, RR__DT_F16, RR__DT_BF16};
    rr__tensor            *t = (rr__tensor *)((char *)base + want->offset);
    const rr__st_tensor   *st;
    char                   name[RR__ST_NAME + 1], has[200], asks[64];
    int64_t                shape[4] = {0};
    int32_t                rank = (int32_t)strlen(want->shape);

    snprintf(name, sizeof name, "%s%s", prefix, want->name);
    st = rr__st_find(&om->tensors, name);
    if (!st)
        return rr__fail(err, RR_E_FORMAT, "%s: tensor %s is missing", om->model.dir, name);
    for (int32_t i = 0; i < rank; i++)
        shape[i] = dim_of(&om->config, want->shape[i]).size;
    if (st->rank != rank || memcmp(st->shape, shape, (size_t)rank * sizeof *shape) != 0)
        return rr__fail(err, RR_E_FORMAT, "%s: %s: shape %s, config.json asks for %s (%s)",
                        st->file, name, shape_text(has, sizeof has, st->shape, st->rank),
                        shape_text(asks, sizeof asks, shape, rank),
                        dim_of(&om->config, want->shape[0]).key);
    *t = (rr__tensor){.data = st->data, .rank = rank, .bytes = st->bytes, .name = st->name};
    memcpy(t->shape, shape, sizeof shape);
    for (size_t i = 0; i < 3; i++)
        if (strcmp(st->dtype, rr__dtype_name(known[i])) == 0) {
            t->dtype = known[i];
            om->model.n_param += st->bytes / rr__dtype_size(known[i]);
            om->model.bytes += st->bytes;
            return RR_OK;
        }
    return rr__fail(err, RR_E_UNSUPPORTED, "%s: %s: dtype %s is not supported (F32, F16, BF16 are)",
                    st->file, name, st->dtype);
}

static rr_status bind_all(open_model *om, rr_error *err) {
    const rr__arch *arch = om->config.arch;
    rr__model      *m = &om->model;
    char            prefix[64];
    rr_status       s = RR_OK;

    snprintf(prefix, sizeof prefix, "%sembeddings.", arch->prefix);
    for (size_t i = 0; !s && i < sizeof embedding_slots / sizeof *embedding_slots; i++)
        s = bind_tensor(om, prefix, &embedding_slots[i], m, err);
    for (int32_t l = 0; !s && l < m->n_layer; l++) {
        snprintf(prefix, sizeof prefix, "%sencoder.layer.%d.", arch->prefix, l);
        for (size_t i = 0; !s && i < sizeof layer_slots / sizeof *layer_slots; i++)
            s = bind_tensor(om, prefix, &layer_slots[i], &m->layer[l], err);
    }
    for (size_t i = 0; !s && i < sizeof head_slots / sizeof *head_slots; i++)
        s = bind_tensor(om, i < 2 ? arch->dense : arch->out, &head_slots[i], m, err);
    return s;
}

/* ---- files ---------------------------------------------------------------- */

static rr_status out_of_memory(const open_model *om, rr_error *err) {
    return rr__fail(err, RR_E_NOMEM, "%s: out of memory", om->model.dir);
}

/* Map one weight file and read its header. */
static rr_status open_weights(open_model *om, const char *name, rr__st *out, rr_error *err) {
    const char *path = rr__arena_printf(&om->arena, "%s/%s", om->model.dir, name);
    rr__file   *file = &om->map[om->n_map];
    rr_status   s;

    if (!path)
        return out_of_memory(om, err);
    s = rr__file_map(path, file, err);
    if (s)
        return s;
    om->n_map++;
    return rr__st_parse(path, file->ptr, file->size, &om->arena, out, err);
}

/* Open all shards of an index and gather what it lists in om->tensors. */
static rr_status open_shards(open_model *om, const char *path, const rr__file *index,
                             rr_error *err) {
    rr__st_index ix;
    rr__st      *shard;
    rr_status    s = rr__st_index_parse(path, index->ptr, index->size, &om->arena, &ix, err);

    if (s)
        return s;
    om->map = rr__arena_calloc(&om->arena, (size_t)ix.n_file, sizeof *om->map);
    shard = rr__arena_calloc(&om->arena, (size_t)ix.n_file, sizeof *shard);
    om->tensors.tensor = rr__arena_calloc(&om->arena, ix.n, sizeof *om->tensors.tensor);
    if (!om->map || !shard || !om->tensors.tensor)
        return out_of_memory(om, err);
    for (int32_t i = 0; i < ix.n_file; i++)
        if ((s = open_weights(om, ix.file[i], &shard[i], err)))
            return s;
    for (size_t i = 0; i < ix.n; i++) {
        const rr__st_tensor *t = rr__st_find(&shard[ix.shard[i]], ix.name[i]);

        if (!t)
            return rr__fail(err, RR_E_FORMAT, "%s: tensor %s is not in %s", path, ix.name[i],
                            ix.file[ix.shard[i]]);
        om->tensors.tensor[om->tensors.n++] = *t;
    }
    rr__st_sort(&om->tensors);
    return RR_OK;
}

static rr_status open_tensors(open_model *om, rr_error *err) {
    const char *path =
        rr__arena_printf(&om->arena, "%s/model.safetensors.index.json", om->model.dir);
    rr__file  index = {NULL, 0};
    rr_status s;

    om->map = rr__arena_calloc(&om->arena, 1, sizeof *om->map);
    if (!path || !om->map)
        return out_of_memory(om, err);
    s = open_weights(om, "model.safetensors", &om->tensors, err);
    if (s != RR_E_IO || rr__file_map(path, &index, NULL) != RR_OK)
        return s; /* without an index, the missing model.safetensors is what to report */
    s = open_shards(om, path, &index, err);
    rr__file_unmap(&index);
    return s;
}

static rr_status open_config(open_model *om, rr_error *err) {
    const char *path = rr__arena_printf(&om->arena, "%s/config.json", om->model.dir);
    rr__config *c = &om->config;
    rr__model  *m = &om->model;
    rr__file    file;
    rr_status   s;

    if (!path)
        return out_of_memory(om, err);
    s = rr__file_map(path, &file, err);
    if (s)
        return s;
    s = rr__config_parse(path, file.ptr, file.size, &om->arena, c, err);
    rr__file_unmap(&file);
    if (s)
        return s;
    m->architecture = c->arch->name;
    m->label = c->label;
    m->n_layer = c->n_layer;
    m->d_model = c->d_model;
    m->n_head = c->n_head;
    m->d_ff = c->d_ff;
    m->vocab_size = c->vocab_size;
    m->n_pos = c->n_pos;
    m->n_type = c->arch->pos_behind_pad ? 1 : c->n_type; /* RoBERTa tokenizers give type 0 */
    m->pad_id = c->arch->pos_behind_pad ? c->pad_id : -1;
    m->pos_offset = m->pad_id + 1;
    m->max_length = c->n_pos - m->pos_offset;
    m->ln_eps = c->ln_eps;
    m->layer = rr__arena_calloc(&om->arena, (size_t)c->n_layer, sizeof *m->layer);
    return m->layer ? RR_OK : out_of_memory(om, err);
}

rr_status rr__model_open(const char *dir, rr__model **out, rr_error *err) {
    open_model *om = calloc(1, sizeof *om);
    rr_status   s;

    if (!om)
        return rr__fail(err, RR_E_NOMEM, "%s: out of memory", dir);
    om->model.self = om;
    om->model.dir = rr__arena_strndup(&om->arena, dir, strlen(dir));
    if (!om->model.dir)
        s = rr__fail(err, RR_E_NOMEM, "%s: out of memory", dir);
    else if (!(s = open_config(om, err)) && !(s = open_tensors(om, err)))
        s = bind_all(om, err);
    if (s) {
        rr__model_close(&om->model);
        return s;
    }
    *out = &om->model;
    return RR_OK;
}

void rr__model_close(rr__model *model) {
    open_model *om = model ? model->self : NULL;

    if (!om)
        return;
    for (int32_t i = 0; i < om->n_map; i++)
        rr__file_unmap(&om->map[i]);
    rr__arena_free(&om->arena);
    free(om);
}

const char *const rr__layer_output[RR__N_LAYER_OUTPUT] = {"qkv",     "ctx",     "attn_out", "ln1",
                                                          "ffn_mid", "ffn_out", "ln2"};

void rr__model_positions(const rr__model *m, const int32_t *tok, int32_t n, int32_t *pos) {
    int32_t next = m->pos_offset;

    for (int32_t i = 0; i < n; i++)
        pos[i] = tok[i] == m->pad_id ? m->pad_id : next++;
}
