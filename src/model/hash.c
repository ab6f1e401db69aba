/* hash.c - what engines and calibrations remember of the model they were made from. */
#include "model/model.h"

#include <stdio.h>
#include <string.h>

/* Multiply and fold 8 bytes at a time; not against malice, only against mix-ups. */
static uint64_t mix(uint64_t h, const void *data, size_t n) {
    const unsigned char *p = data;
    uint64_t             lane[4] = {h, h ^ 0x9e3779b97f4a7c15u, ~h, h + 0x632be59bd9b4e019u};
    uint64_t             w;

    for (; n >= 32; n -= 32, p += 32)
        for (int i = 0; i < 4; i++) {
            memcpy(&w, p + 8 * i, 8);
            lane[i] = (lane[i] ^ w) * 0xff51afd7ed558ccdu;
            lane[i] ^= lane[i] >> 32;
        }
    for (; n; n--, p++)
        lane[0] = (lane[0] ^ *p) * 0x100000001b3u;
    for (int i = 1; i < 4; i++) {
        lane[0] = (lane[0] ^ lane[i]) * 0xc4ceb9fe1a85ec53u;
        lane[0] ^= lane[0] >> 29;
    }
    return lane[0];
}

static uint64_t tensor(uint64_t h, const rr__tensor *t) {
    int32_t dtype = (int32_t)t->dtype;

    h = mix(h, t->shape, (size_t)t->rank * sizeof *t->shape);
    h = mix(h, &dtype, sizeof dtype);
    return mix(h, t->data, t->bytes);
}

void rr__bytes_hash(const void *bytes, size_t size, char out[17]) {
    snprintf(out, 17, "%016llx", (unsigned long long)mix(mix(2, &size, sizeof size), bytes, size));
}

void rr__model_hash(const rr__model *m, char out[17]) {
    int32_t  dims[] = {m->n_layer, m->d_model,    m->n_head, m->d_ff,  m->vocab_size,
                       m->n_pos,   m->pos_offset, m->n_type, m->pad_id};
    uint64_t h = mix(mix(1, dims, sizeof dims), &m->ln_eps, sizeof m->ln_eps);

    h = tensor(tensor(tensor(tensor(tensor(h, &m->tok_emb), &m->pos_emb), &m->type_emb), &m->emb_g),
               &m->emb_b);
    for (int32_t l = 0; l < m->n_layer; l++) {
        const rr__layer  *y = &m->layer[l];
        const rr__tensor *all[] = {&y->wq,    &y->wk,    &y->wv,    &y->wo,   &y->bq, &y->bk,
                                   &y->bv,    &y->bo,    &y->w1,    &y->b1,   &y->w2, &y->b2,
                                   &y->ln1_g, &y->ln1_b, &y->ln2_g, &y->ln2_b};

        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
            h = tensor(h, all[i]);
    }
    h = tensor(tensor(tensor(tensor(h, &m->head_w), &m->head_b), &m->out_w), &m->out_b);
    snprintf(out, 17, "%016llx", (unsigned long long)h);
}
