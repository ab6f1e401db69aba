/* tiny.h - a small XLM-R model folder written by a test, with one thing wrong if it wishes. */
#ifndef TESTS_MODEL_TINY_H
#define TESTS_MODEL_TINY_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TINY_CONFIG                                                                                \
    "{\"architectures\": [\"XLMRobertaForSequenceClassification\"], \"hidden_size\": 8, "          \
    "\"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"intermediate_size\": 12, "            \
    "\"vocab_size\": 20, \"max_position_embeddings\": 18, \"type_vocab_size\": 1, "                \
    "\"pad_token_id\": 1, \"layer_norm_eps\": 1e-05, \"hidden_act\": \"gelu\", "                   \
    "\"id2label\": {\"0\": \"LABEL_0\"}}"

typedef struct tiny_tensor {
    char name[160];
    char dtype[8];
    int  rank, shape[2];
} tiny_tensor;

typedef struct tiny {
    char        dir[64];
    tiny_tensor t[64];
    int         n;
} tiny;

static void tiny_add(tiny *m, const char *name, int rank, int a, int b) {
    tiny_tensor *t = &m->t[m->n++];

    snprintf(t->name, sizeof t->name, "%s", name);
    snprintf(t->dtype, sizeof t->dtype, "F32");
    t->rank = rank;
    t->shape[0] = a;
    t->shape[1] = b;
}

static inline tiny_tensor *tiny_find(tiny *m, const char *name) {
    for (int i = 0; i < m->n; i++)
        if (strcmp(m->t[i].name, name) == 0)
            return &m->t[i];
    cr_assert_fail("no tensor %s", name);
    return NULL;
}

static void tiny_mkdir(tiny *m) {
    snprintf(m->dir, sizeof m->dir, "/tmp/rr-tiny-XXXXXX");
    cr_assert_not_null(mkdtemp(m->dir));
}

/* The tensors of TINY_CONFIG in a fresh folder, nothing written yet. */
static void tiny_init(tiny *m) {
    static const struct {
        const char *name;
        int         rank, a, b;
    } layer[] = {{"attention.self.query", 2, 8, 8},
                 {"attention.self.key", 2, 8, 8},
                 {"attention.self.value", 2, 8, 8},
                 {"attention.output.dense", 2, 8, 8},
                 {"attention.output.LayerNorm", 1, 8, 0},
                 {"intermediate.dense", 2, 12, 8},
                 {"output.dense", 2, 8, 12},
                 {"output.LayerNorm", 1, 8, 0}};
    char name[160];

    memset(m, 0, sizeof *m);
    tiny_mkdir(m);
    tiny_add(m, "roberta.embeddings.word_embeddings.weight", 2, 20, 8);
    tiny_add(m, "roberta.embeddings.position_embeddings.weight", 2, 18, 8);
    tiny_add(m, "roberta.embeddings.token_type_embeddings.weight", 2, 1, 8);
    tiny_add(m, "roberta.embeddings.LayerNorm.weight", 1, 8, 0);
    tiny_add(m, "roberta.embeddings.LayerNorm.bias", 1, 8, 0);
    for (int l = 0; l < 2; l++)
        for (size_t i = 0; i < sizeof layer / sizeof *layer; i++) {
            snprintf(name, sizeof name, "roberta.encoder.layer.%d.%s.weight", l, layer[i].name);
            tiny_add(m, name, layer[i].rank, layer[i].a, layer[i].b);
            snprintf(name, sizeof name, "roberta.encoder.layer.%d.%s.bias", l, layer[i].name);
            tiny_add(m, name, 1, layer[i].a, 0);
        }
    tiny_add(m, "classifier.dense.weight", 2, 8, 8);
    tiny_add(m, "classifier.dense.bias", 1, 8, 0);
    tiny_add(m, "classifier.out_proj.weight", 2, 1, 8);
    tiny_add(m, "classifier.out_proj.bias", 1, 1, 0);
}

static void tiny_put(const tiny *m, const char *file, const void *ptr, size_t size) {
    char  path[160];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", m->dir, file);
    f = fopen(path, "wb");
    cr_assert_not_null(f);
    cr_assert_eq(fwrite(ptr, 1, size, f), size);
    fclose(f);
}

static size_t tiny_bytes(const tiny_tensor *t) {
    size_t one = strcmp(t->dtype, "F32") == 0 ? 4 : strcmp(t->dtype, "I64") == 0 ? 8 : 2;

    return one * (size_t)t->shape[0] * (size_t)(t->rank == 2 ? t->shape[1] : 1);
}

/* Write tensors [from, to) as a safetensors file; element k of a tensor is k / 64. */
static void tiny_weights(const tiny *m, const char *file, int from, int to) {
    static char header[16384], bytes[65536];
    size_t      n = 0, at = 0, total;

    n += (size_t)snprintf(header, sizeof header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = from; i < to; i++) {
        const tiny_tensor *t = &m->t[i];
        size_t             size = tiny_bytes(t);

        n += (size_t)snprintf(header + n, sizeof header - n,
                              ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%d%s", t->name, t->dtype,
                              t->shape[0], t->rank == 2 ? "," : "");
        if (t->rank == 2)
            n += (size_t)snprintf(header + n, sizeof header - n, "%d", t->shape[1]);
        n += (size_t)snprintf(header + n, sizeof header - n, "],\"data_offsets\":[%zu,%zu]}", at,
                              at + size);
        at += size;
    }
    n += (size_t)snprintf(header + n, sizeof header - n, "}");
    total = 8 + n + at;
    cr_assert_lt(total, sizeof bytes);
    memset(bytes, 0, total);
    memcpy(bytes, (uint64_t[]){n}, 8);
    memcpy(bytes + 8, header, n);
    at = 8 + n;
    for (int i = from; i < to; i++) {
        size_t size = tiny_bytes(&m->t[i]);

        if (strcmp(m->t[i].dtype, "F32") == 0)
            for (size_t k = 0; k < size / 4; k++)
                memcpy(bytes + at + 4 * k, (float[]){(float)k / 64}, 4);
        at += size;
    }
    tiny_put(m, file, bytes, total);
}

static void tiny_write(const tiny *m) {
    tiny_put(m, "config.json", TINY_CONFIG, strlen(TINY_CONFIG));
    tiny_weights(m, "model.safetensors", 0, m->n);
}

static void tiny_remove(const tiny *m) {
    static const char *const files[] = {"config.json", "model.safetensors", "a.safetensors",
                                        "b.safetensors", "model.safetensors.index.json"};
    char                     path[160];

    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", m->dir, files[i]);
        unlink(path);
    }
    rmdir(m->dir);
}

#endif
