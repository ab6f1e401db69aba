/* load_spm.c - sentencepiece.bpe.model (a protobuf) to the tokenizer that transformers makes of an
 * XLM-RoBERTa model: ids 0 to 3 are <s> <pad> </s> <unk>, piece i of the file has id i + 1, <mask>
 * comes last; normalizer Precompiled, Strip (right), runs of spaces to one; Metaspace.
 *
 * Read by hand from the four fields that matter:
 *   ModelProto       1 pieces (repeated), 2 trainer_spec, 3 normalizer_spec
 *   SentencePiece    1 piece (string), 2 score (float)
 *   TrainerSpec      3 model_type (1 unigram)
 *   NormalizerSpec   2 precompiled_charsmap (bytes) */
#include "text/load_steps.h"

#include "base/half.h"

#include <stdlib.h>
#include <string.h>

/* One field of a message: its number, and its value by wire type. */
typedef struct field {
    uint32_t number, wire;
    uint64_t value; /* wire 0, 1, 5 */
    rr_str   bytes; /* wire 2 */
} field;

static int take_varint(rr_str *s, uint64_t *out) {
    uint64_t v = 0;

    for (int shift = 0; shift < 64 && s->len; shift += 7) {
        uint8_t b = (uint8_t)*s->ptr++;

        s->len--;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) {
            *out = v;
            return 1;
        }
    }
    return 0;
}

static int take_fixed(rr_str *s, int n, uint64_t *out) {
    *out = 0;
    if (s->len < (size_t)n)
        return 0;
    for (int i = 0; i < n; i++)
        *out |= (uint64_t)(uint8_t)s->ptr[i] << 8 * i;
    s->ptr += n;
    s->len -= (size_t)n;
    return 1;
}

/* Take one field off s; 0 when it is malformed. */
static int take_field(rr_str *s, field *f) {
    uint64_t key, n;

    if (!take_varint(s, &key) || key >> 3 == 0 || key >> 3 > 0x1fffffff)
        return 0;
    *f = (field){.number = (uint32_t)(key >> 3), .wire = (uint32_t)key & 7};
    switch (f->wire) {
    case 0:
        return take_varint(s, &f->value);
    case 1:
        return take_fixed(s, 8, &f->value);
    case 5:
        return take_fixed(s, 4, &f->value);
    case 2:
        if (!take_varint(s, &n) || n > s->len)
            return 0;
        f->bytes = (rr_str){s->ptr, (size_t)n};
        s->ptr += n;
        s->len -= (size_t)n;
        return 1;
    default:
        return 0;
    }
}

typedef struct model {
    rr__piece *piece;
    size_t     n, cap;
    rr_str     charsmap;
    uint64_t   type;
} model;

/* Append a piece with the next id. */
static int add(model *m, rr_str text, double score) {
    if (m->n == m->cap) {
        size_t     cap = m->cap * 2 + 1024;
        rr__piece *p = realloc(m->piece, cap * sizeof *p);

        if (!p)
            return 0;
        m->piece = p;
        m->cap = cap;
    }
    m->piece[m->n] = (rr__piece){text, score, (int32_t)m->n};
    m->n++;
    return m->n < RR__NO_ID;
}

/* The first three pieces of the file are <unk> <s> </s>: they have their own places. */
static const char *read_piece(model *m, rr_str s, size_t index) {
    rr_str text = {"", 0};
    float  score = 0;
    field  f;

    while (s.len) {
        if (!take_field(&s, &f))
            return "malformed piece";
        if (f.number == 1 && f.wire == 2)
            text = f.bytes;
        else if (f.number == 2 && f.wire == 5)
            score = rr__bits_f32((uint32_t)f.value);
    }
    if (!(score > -1e30f && score < 1e30f))
        return "score is out of range";
    return index < 3 || add(m, text, (double)score) ? NULL : "too many pieces";
}

static const char *read_model(model *m, rr_str s) {
    const char *what = NULL;
    size_t      index = 0;
    field       f, g;

    while (s.len && !what) {
        if (!take_field(&s, &f))
            return "malformed protobuf";
        if (f.number == 1 && f.wire == 2)
            what = read_piece(m, f.bytes, index++);
        for (rr_str inner = f.bytes; !what && (f.number == 2 || f.number == 3) && inner.len;) {
            if (!take_field(&inner, &g))
                what = "malformed specification";
            else if (f.number == 2 && g.number == 3 && g.wire == 0)
                m->type = g.value;
            else if (f.number == 3 && g.number == 2 && g.wire == 2)
                m->charsmap = g.bytes;
        }
    }
    return what ? what : index < 3 ? "no pieces" : NULL;
}

static rr_status set_steps(rr__tokenizer *t, rr_str charsmap, rr_error *err) {
    rr_status st;

    if (charsmap.len) {
        rr__norm step = {.kind = RR__NORM_PRECOMPILED};

        st = rr__charsmap_open(charsmap.ptr, charsmap.len, &step.charsmap, err);
        if (st)
            return st;
        t->norm[t->n_norm++] = step;
    }
    t->norm[t->n_norm++] = (rr__norm){.kind = RR__NORM_STRIP, .right = 1};
    t->norm[t->n_norm] = (rr__norm){.kind = RR__NORM_REPLACE, .min_run = 2};
    t->norm[t->n_norm].pattern = strdup(" ");
    t->norm[t->n_norm].content = strdup("\xe2\x96\x81");
    t->norm[t->n_norm].n_pattern = 1;
    t->norm[t->n_norm].n_content = 3;
    t->n_norm++;
    if (!t->norm[t->n_norm - 1].pattern || !t->norm[t->n_norm - 1].content)
        return rr__fail(err, RR_E_NOMEM, "out of memory");
    t->pretok[t->n_pretok++] = (rr__pretok){.kind = RR__PRETOK_METASPACE,
                                            .replacement = 0x2581,
                                            .prepend = RR__PREPEND_ALWAYS,
                                            .split = 1};
    return RR_OK;
}

rr_status rr__tokenizer_from_spm(const void *ptr, size_t size, const char *name,
                                 rr__tokenizer **out, rr_error *err) {
    static const char *const first[] = {"<s>", "<pad>", "</s>", "<unk>"};
    rr__added_token          special[5];
    rr__tokenizer           *t = calloc(1, sizeof *t);
    model                    m = {.type = 1};
    const char              *what = NULL;
    rr_status                st;

    for (int i = 0; i < 5; i++) {
        rr_str text = i < 4 ? (rr_str){first[i], strlen(first[i])} : RR_STR("<mask>");

        special[i] = (rr__added_token){.content = text, .lstrip = i == 4, .special = 1};
        if (i < 4 && !add(&m, text, 0))
            what = "out of memory";
    }
    if (!what)
        what = read_model(&m, (rr_str){ptr, size});
    if (!what && !add(&m, special[4].content, 0))
        what = "too many pieces";
    if (!t || what) {
        st = rr__fail(err, t ? RR_E_FORMAT : RR_E_NOMEM, "%s", t ? what : "out of memory");
        goto done;
    }
    if (m.type != 1) {
        st = rr__fail(err, RR_E_UNSUPPORTED, "sentencepiece model of type %llu, not unigram",
                      (unsigned long long)m.type);
        goto done;
    }
    if ((st = rr__vocab_build(m.piece, m.n, (int32_t)m.n, 1, &t->vocab, err)))
        goto done;
    t->kind = RR__MODEL_UNIGRAM;
    t->unigram.unk_id = 3;
    rr__unigram_init(&t->unigram, &t->vocab);
    if ((st = set_steps(t, m.charsmap, err)) || (st = rr__tokenizer_add(t, special, 5, err)))
        goto done;
    rr__tokenizer_template(t, 0, 2, 1);
done:
    free(m.piece);
    if (st) {
        rr__fail_prefix(err, st, "%s", name);
        rr__tokenizer_close(t);
    } else {
        *out = t;
    }
    return st;
}
