/* load_json.c - tokenizer.json to a tokenizer.
 *
 * The top level is walked once: small members are noted where they stand and read when what they
 * need is known (added tokens need the model's vocabulary), the vocabulary is read in passing.
 * Components the engine does not have are refused by name. */
#include "base/json.h"
#include "text/load_steps.h"
#include "text/tokenizer_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct loader {
    const char    *name;
    rr__arena      arena;
    rr__tokenizer *t;
    rr__json   added, norm, pretok, post; /* noted members; what == NULL and p == NULL: absent */
    rr__piece *piece;
    size_t     n_piece, cap_piece;
    int        listed;            /* vocab is an array of [piece, score] */
    rr_str     type;              /* of the model */
    int64_t    unk_id;            /* Unigram, -1 none */
    rr_str     unk_token, prefix; /* WordPiece */
    int64_t    max_chars;
    int        byte_fallback;
} loader;

static rr_status oom(const loader *l, rr_error *err) {
    return rr__fail(err, RR_E_NOMEM, "%s: out of memory", l->name);
}

/* ---- scores ------------------------------------------------------------------- */

/* A decimal number as serde_json reads it without its float_roundtrip feature: up to 19 digits of
 * mantissa, then one multiplication or division by a power of ten. That is off by one unit in the
 * last place for a quarter of XLM-R's scores, and since ties between segmentations are common, the
 * same error has to be made. */
static int score_of(rr_str s, double *out) {
    const char *p = s.ptr, *end = p + s.len;
    uint64_t    m = 0;
    int64_t     exp10 = 0, e = 0;
    int         negative = p < end && *p == '-', full = 0, minus = 0;
    double      f;

    for (p += negative; p < end && *p >= '0' && *p <= '9'; p++) {
        uint64_t d = (uint64_t)(*p - '0');

        full |= m > UINT64_MAX / 10 || (m == UINT64_MAX / 10 && d > UINT64_MAX % 10);
        if (full)
            exp10++;
        else
            m = m * 10 + d;
    }
    if (p < end && *p == '.')
        for (p++; p < end && *p >= '0' && *p <= '9'; p++) {
            uint64_t d = (uint64_t)(*p - '0');

            full |= m > UINT64_MAX / 10 || (m == UINT64_MAX / 10 && d > UINT64_MAX % 10);
            if (full)
                continue;
            m = m * 10 + d;
            exp10--;
        }
    if (p < end) { /* e or E: the reader has checked the syntax */
        p++;
        minus = *p == '-';
        for (p += *p == '-' || *p == '+'; p < end; p++)
            e = e < 100000 ? e * 10 + (*p - '0') : e;
        exp10 += minus ? -e : e;
    }
    f = (double)m;
    for (; exp10 < -308 && f != 0; exp10 += 308)
        f /= 1e308;
    if (exp10 > 308 && f != 0)
        return 0;
    if (f != 0)
        f = exp10 < 0 ? f / rr__pow10[-exp10] : f * rr__pow10[exp10];
    *out = negative ? -f : f;
    return f <= 1e290; /* sums over a text must stay finite */
}

/* ---- model -------------------------------------------------------------------- */

static int add_piece(loader *l, rr__json *j, rr_str text, double score, int64_t id) {
    if (l->n_piece == l->cap_piece) {
        size_t     cap = l->cap_piece * 2 + 1024;
        rr__piece *p = realloc(l->piece, cap * sizeof *p);

        if (!p)
            return rr__json_error(j, "out of memory for the vocabulary");
        l->piece = p;
        l->cap_piece = cap;
    }
    if (id < 0 || id >= RR__NO_ID - 1)
        return rr__json_error(j, "id of a piece is out of range");
    l->piece[l->n_piece++] = (rr__piece){text, score, (int32_t)id};
    return 1;
}

static void read_vocab(loader *l, rr__json *j) {
    rr_str  text, number;
    double  score;
    int64_t id = 0;

    l->n_piece = 0;
    l->listed = rr__json_peek(j) == RR__JSON_ARRAY;
    if (!l->listed) {
        rr__json_object(j);
        while (rr__json_key(j, &text) && rr__json_i64(j, &id) && add_piece(l, j, text, 0, id)) {
        }
        return;
    }
    rr__json_array(j);
    while (rr__json_next(j)) {
        if (!rr__json_array(j) || !rr__json_next(j) || !rr__json_string(j, &text))
            break;
        if (!rr__json_next(j) || rr__json_peek(j) != RR__JSON_NUMBER || !rr__json_raw(j, &number)) {
            rr__json_error(j, "expected a score");
            break;
        }
        if (!score_of(number, &score)) {
            rr__json_error(j, "score is out of range");
            break;
        }
        if (rr__json_next(j)) {
            rr__json_error(j, "expected [piece, score]");
            break;
        }
        if (!add_piece(l, j, text, score, id++))
            break;
    }
}

static void read_optional_string(rr__json *j, rr_str *out) {
    if (rr__json_peek(j) == RR__JSON_NULL)
        rr__json_null(j);
    else
        rr__json_string(j, out);
}

static void read_model(loader *l, rr__json *j) {
    rr_str key;

    rr__json_object(j);
    while (rr__json_key(j, &key)) {
        if (rr__json_eq(key, "type"))
            rr__json_string(j, &l->type);
        else if (rr__json_eq(key, "vocab"))
            read_vocab(l, j);
        else if (rr__json_eq(key, "unk_id") && rr__json_peek(j) == RR__JSON_NUMBER)
            rr__json_i64(j, &l->unk_id);
        else if (rr__json_eq(key, "byte_fallback") && rr__json_peek(j) == RR__JSON_BOOL)
            rr__json_bool(j, &l->byte_fallback);
        else if (rr__json_eq(key, "unk_token"))
            read_optional_string(j, &l->unk_token);
        else if (rr__json_eq(key, "continuing_subword_prefix"))
            read_optional_string(j, &l->prefix);
        else if (rr__json_eq(key, "max_input_chars_per_word"))
            rr__json_i64(j, &l->max_chars);
        else
            rr__json_skip(j);
    }
}

static rr_status build_model(loader *l, rr_error *err) {
    rr__tokenizer *t = l->t;
    int32_t        n_id = 0;
    rr_status      st;
    int            unigram = rr__json_eq(l->type, "Unigram") || (l->type.len == 0 && l->listed);

    if (!unigram && !rr__json_eq(l->type, "WordPiece"))
        return rr__load_unsupported(l->name, "model", l->type, err);
    if (l->n_piece == 0 || l->listed != unigram)
        return rr__fail(err, RR_E_FORMAT, "%s: the model has no vocabulary", l->name);
    for (size_t i = 0; i < l->n_piece; i++)
        if (l->piece[i].id >= n_id)
            n_id = l->piece[i].id + 1;
    if (!unigram && (size_t)n_id > 16 * l->n_piece + 1000000)
        return rr__fail(err, RR_E_FORMAT, "%s: %zu pieces have ids up to %d", l->name, l->n_piece,
                        n_id - 1);
    st = rr__vocab_build(l->piece, l->n_piece, n_id, unigram, &t->vocab, err);
    if (st)
        return rr__fail_prefix(err, st, "%s", l->name);
    if (!unigram)
        return rr__wordpiece_setup(t, l->unk_token, l->prefix, l->max_chars, l->name, err);
    if (l->unk_id >= n_id)
        return rr__fail(err, RR_E_FORMAT, "%s: unk_id %lld of %d pieces", l->name,
                        (long long)l->unk_id, n_id);
    t->kind = RR__MODEL_UNIGRAM;
    t->unigram.unk_id = l->unk_id < 0 ? -1 : (int32_t)l->unk_id;
    t->unigram.byte_fallback = l->byte_fallback;
    rr__unigram_init(&t->unigram, &t->vocab);
    return RR_OK;
}

/* ---- added tokens --------------------------------------------------------------- */

static rr_status read_added(loader *l, rr_error *err) {
    rr__json        *j = &l->added;
    rr__added_token *tok = NULL;
    size_t           n = 0, cap = 0;
    rr_str           key;
    rr_status        st = RR_OK;

    if (j->p && rr__json_peek(j) != RR__JSON_NULL)
        for (rr__json_array(j); rr__json_next(j);) {
            rr__added_token a = {.normalized = 1};

            for (rr__json_object(j); rr__json_key(j, &key);) {
                if (rr__json_eq(key, "content"))
                    rr__json_string(j, &a.content);
                else if (rr__json_eq(key, "single_word"))
                    rr__json_bool(j, &a.single_word);
                else if (rr__json_eq(key, "lstrip"))
                    rr__json_bool(j, &a.lstrip);
                else if (rr__json_eq(key, "rstrip"))
                    rr__json_bool(j, &a.rstrip);
                else if (rr__json_eq(key, "normalized"))
                    rr__json_bool(j, &a.normalized);
                else if (rr__json_eq(key, "special"))
                    rr__json_bool(j, &a.special);
                else
                    rr__json_skip(j);
            }
            if (n == 4096) {
                st = rr__fail(err, RR_E_UNSUPPORTED, "%s: more than 4,096 added tokens", l->name);
                goto done;
            }
            if (n == cap) {
                rr__added_token *p = realloc(tok, (cap = cap * 2 + 16) * sizeof *p);

                if (!p) {
                    st = oom(l, err);
                    goto done;
                }
                tok = p;
            }
            tok[n++] = a;
        }
    if (j->what)
        st = rr__json_fail(j, l->name, err);
    else if ((st = rr__tokenizer_add(l->t, tok, n, err)))
        rr__fail_prefix(err, st, "%s", l->name);
done:
    free(tok);
    return st;
}

/* ---- the whole file --------------------------------------------------------------- */

static rr_status read_top(loader *l, rr__json *j, rr_error *err) {
    rr_str key;
    int    model = 0;

    rr__json_object(j);
    while (rr__json_key(j, &key)) {
        if (rr__json_eq(key, "model")) {
            read_model(l, j);
            model = 1;
            continue;
        }
        if (rr__json_eq(key, "added_tokens"))
            l->added = *j;
        else if (rr__json_eq(key, "normalizer"))
            l->norm = *j;
        else if (rr__json_eq(key, "pre_tokenizer"))
            l->pretok = *j;
        else if (rr__json_eq(key, "post_processor"))
            l->post = *j;
        rr__json_skip(j);
    }
    if (!rr__json_done(j))
        return rr__json_fail(j, l->name, err);
    if (!model)
        return rr__fail(err, RR_E_FORMAT, "%s: no model", l->name);
    return RR_OK;
}

rr_status rr__tokenizer_from_json(const void *ptr, size_t size, const char *name,
                                  rr__tokenizer **out, rr_error *err) {
    loader    l = {.name = name, .unk_id = -1, .max_chars = 100};
    rr__json  j;
    rr_status st;

    l.unk_token = RR_STR("[UNK]");
    l.prefix = RR_STR("##");
    l.t = calloc(1, sizeof *l.t);
    if (!l.t)
        return oom(&l, err);
    rr__json_init(&j, ptr, size, &l.arena);
    st = read_top(&l, &j, err);
    if (!st)
        st = build_model(&l, err);
    if (!st && l.norm.p)
        st = rr__load_normalizer(l.t, &l.norm, name, err);
    if (!st && l.pretok.p)
        st = rr__load_pretokenizer(l.t, &l.pretok, name, err);
    if (!st)
        st = read_added(&l, err);
    if (!st && l.post.p)
        st = rr__load_template(l.t, &l.post, name, err);
    free(l.piece);
    rr__arena_free(&l.arena);
    if (st)
        rr__tokenizer_close(l.t);
    else
        *out = l.t;
    return st;
}
