/* test_model.c - whole model folders: what opens, and what is refused by name. */
#include "base/clock.h"
#include "model/model.h"
#include "tiny.h"

#include <sys/stat.h>

static rr_status open_tiny(const tiny *m, rr__model **model, rr_error *err) {
    *model = NULL;
    memset(err, 0, sizeof *err);
    return rr__model_open(m->dir, model, err);
}

/* Whatever was done to m must be refused with these words. */
static void refused(const tiny *m, rr_status status, const char *text) {
    rr__model *model;
    rr_error   err;

    cr_assert_eq(open_tiny(m, &model, &err), status, "%s", err.text);
    cr_assert_null(model);
    cr_assert_not_null(strstr(err.text, text), "%s", err.text);
}

static void check_opened(const rr__model *model) {
    float x[3];

    cr_assert(model->n_layer == 2 && model->d_model == 8 && model->vocab_size == 20);
    cr_assert(model->pos_offset == 2 && model->pad_id == 1 && model->max_length == 16);
    cr_assert_str_eq(model->layer[1].w2.name, "roberta.encoder.layer.1.output.dense.weight");
    cr_assert(model->layer[1].w2.shape[0] == 8 && model->layer[1].w2.shape[1] == 12);
    rr__tensor_f32(&model->layer[1].w2, 13, 3, x);
    cr_assert(x[0] == 13 / 64.0f && x[2] == 15 / 64.0f);
}

Test(model, opens_a_folder_and_ignores_other_tensors) {
    tiny       m;
    rr__model *model;
    rr_error   err;

    tiny_init(&m);
    tiny_add(&m, "roberta.embeddings.position_ids", 2, 1, 18);
    memcpy(m.t[m.n - 1].dtype, "I64", 4);
    tiny_write(&m);
    cr_assert_eq(open_tiny(&m, &model, &err), RR_OK, "%s", err.text);
    check_opened(model);
    cr_assert_eq(model->bytes, 4 * model->n_param);
    rr__model_close(model);
    rr__model_close(NULL);
    tiny_remove(&m);
}

Test(model, opens_shards) {
    tiny       m;
    rr__model *model;
    rr_error   err;
    char       index[8192] = "{\"weight_map\":{";
    size_t     n = strlen(index);

    tiny_init(&m);
    tiny_put(&m, "config.json", TINY_CONFIG, strlen(TINY_CONFIG));
    tiny_weights(&m, "a.safetensors", 0, 17);
    tiny_weights(&m, "b.safetensors", 17, m.n);
    for (int i = 0; i < m.n; i++)
        n += (size_t)snprintf(index + n, sizeof index - n, "%s\"%s\":\"%s.safetensors\"",
                              i ? "," : "", m.t[i].name, i < 17 ? "a" : "b");
    snprintf(index + n, sizeof index - n, "}}");
    tiny_put(&m, "model.safetensors.index.json", index, strlen(index));
    cr_assert_eq(open_tiny(&m, &model, &err), RR_OK, "%s", err.text);
    check_opened(model);
    rr__model_close(model);

    *strstr(index, "a.safe") = 'b'; /* the first tensor is not where the index says */
    tiny_put(&m, "model.safetensors.index.json", index, strlen(index));
    refused(&m, RR_E_FORMAT, "is not in b.safetensors");
    *strstr(index, "b.safe") = 'c';
    tiny_put(&m, "model.safetensors.index.json", index, strlen(index));
    refused(&m, RR_E_IO, "c.safetensors: No such file");
    tiny_remove(&m);
}

Test(model, missing_files_are_named) {
    tiny m;

    tiny_init(&m);
    refused(&m, RR_E_IO, "config.json: No such file");
    tiny_put(&m, "config.json", TINY_CONFIG, strlen(TINY_CONFIG));
    refused(&m, RR_E_IO, "model.safetensors: No such file");
    tiny_put(&m, "model.safetensors", "", 0);
    refused(&m, RR_E_FORMAT, "model.safetensors: 0 bytes, too short");
    tiny_remove(&m);
    refused(&m, RR_E_IO, "No such file");
}

Test(model, only_regular_files_are_opened) {
    static const char *const names[] = {"config.json", "model.safetensors"};
    char                     path[160];
    tiny                     m;

    tiny_init(&m);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", m.dir, names[i]);
        cr_assert_eq(mkdir(path, 0700), 0);
        refused(&m, RR_E_IO, "not a regular file");
        rmdir(path);
        cr_assert_eq(mkfifo(path, 0600), 0);
        refused(&m, RR_E_IO, "not a regular file");
        unlink(path);
        tiny_put(&m, "config.json", TINY_CONFIG, strlen(TINY_CONFIG));
    }
    tiny_remove(&m);
}

Test(model, tensors_must_match_the_config) {
    static const struct {
        const char *tensor;
        int         rank, a, b; /* rank 0: leave the tensor out */
        const char *dtype;
        rr_status   status;
        const char *text;
    } cases[] = {
        {"roberta.encoder.layer.1.output.dense.bias", 0, 0, 0, "F32", RR_E_FORMAT,
         "tensor roberta.encoder.layer.1.output.dense.bias is missing"},
        {"roberta.embeddings.word_embeddings.weight", 2, 19, 8, "F32", RR_E_FORMAT,
         "roberta.embeddings.word_embeddings.weight: shape [19, 8], config.json asks for [20, 8] "
         "(vocab_size)"},
        {"roberta.embeddings.position_embeddings.weight", 2, 17, 8, "F32", RR_E_FORMAT,
         "(max_position_embeddings)"},
        {"roberta.encoder.layer.0.intermediate.dense.weight", 2, 8, 12, "F32", RR_E_FORMAT,
         "shape [8, 12], config.json asks for [12, 8] (intermediate_size)"},
        {"roberta.encoder.layer.0.attention.self.query.bias", 2, 1, 8, "F32", RR_E_FORMAT,
         "shape [1, 8], config.json asks for [8]"},
        {"classifier.out_proj.weight", 2, 2, 8, "F32", RR_E_FORMAT, "(num_labels)"},
        {"classifier.dense.weight", 2, 8, 8, "I64", RR_E_UNSUPPORTED,
         "classifier.dense.weight: dtype I64 is not supported"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny         m;
        tiny_tensor *t;

        tiny_init(&m);
        t = tiny_find(&m, cases[i].tensor);
        snprintf(t->dtype, sizeof t->dtype, "%s", cases[i].dtype);
        t->rank = cases[i].rank;
        t->shape[0] = cases[i].a;
        t->shape[1] = cases[i].b;
        if (!t->rank)
            *t = m.t[--m.n];
        tiny_write(&m);
        refused(&m, cases[i].status, cases[i].text);
        tiny_remove(&m);
    }
}

Test(model, half_types_become_fp32) {
    static const uint16_t f16[] = {0x3c00, 0xc000, 0x0001, 0x7bff}, bf16[] = {0x3f80, 0xc000};
    rr__tensor            t = {.data = f16, .dtype = RR__DT_F16};
    float                 x[4];

    rr__tensor_f32(&t, 0, 4, x);
    cr_assert(x[0] == 1 && x[1] == -2 && x[2] == 0x1p-24f && x[3] == 65504);
    t.data = bf16;
    t.dtype = RR__DT_BF16;
    rr__tensor_f32(&t, 1, 1, x);
    cr_assert_eq(x[0], -2);
}

Test(model, positions_start_behind_pad_and_skip_it) {
    rr__model m = {.pad_id = 1, .pos_offset = 2};
    int32_t   tok[] = {0, 5, 1, 1, 6, 2}, pos[6];

    rr__model_positions(&m, tok, 6, pos);
    cr_assert_eq(memcmp(pos, (int32_t[]){2, 3, 1, 1, 4, 5}, sizeof pos), 0);
    m.pad_id = -1;
    m.pos_offset = 0;
    rr__model_positions(&m, tok, 6, pos);
    cr_assert_eq(memcmp(pos, (int32_t[]){0, 1, 2, 3, 4, 5}, sizeof pos), 0);
}

Test(model, the_embedded_model_opens) {
    rr__model *model = NULL;
    rr_error   err = {0};

    cr_assert_eq(rr__model_open("models/mini", &model, &err), RR_OK, "%s", err.text);
    cr_assert(model->n_layer == 12 && model->d_model == 384 && model->max_length == 512);
    cr_assert_eq(model->tok_emb.dtype, RR__DT_F16);
    cr_assert_eq(model->n_param / 100000, 349);
    rr__model_close(model);
}
