/* config.c - see config.h. */
#include "model/config.h"

#include "base/json.h"

#include <string.h>

static const rr__arch archs[] = {
    {"XLMRobertaForSequenceClassification", "roberta.", "classifier.dense", "classifier.out_proj",
     1},
    {"RobertaForSequenceClassification", "roberta.", "classifier.dense", "classifier.out_proj", 1},
    {"CamembertForSequenceClassification", "roberta.", "classifier.dense", "classifier.out_proj",
     1},
    {"BertForSequenceClassification", "bert.", "bert.pooler.dense", "classifier", 0},
};

/* What the file says, before it is judged. Integers it does not have stay at MISSING. */
#define MISSING INT64_MIN
typedef struct raw {
    int64_t     layers, d, heads, ff, vocab, pos, types, pad, labels, id2label;
    double      eps;
    int         decoder, has_eps;
    const char *arch, *act, *pos_type, *label;
} raw;

/* A string that can be shown in a message: cut at 60 bytes, control characters become '?'. */
static void take_text(rr__json *j, rr__arena *a, const char **out) {
    rr_str s;
    char  *copy;

    if (!rr__json_string(j, &s))
        return;
    copy = rr__arena_strndup(a, s.ptr, s.len < 60 ? s.len : 60);
    if (!copy) {
        rr__json_error(j, "out of memory");
        return;
    }
    for (char *p = copy; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    *out = copy;
}

static void take_architectures(rr__json *j, rr__arena *a, const char **out) {
    for (rr__json_array(j); rr__json_next(j);)
        if (!*out)
            take_text(j, a, out);
        else
            rr__json_skip(j);
}

static void take_id2label(rr__json *j, rr__arena *a, raw *r) {
    rr_str key;

    r->id2label = 0;
    for (rr__json_object(j); rr__json_key(j, &key); r->id2label++)
        if (rr__json_eq(key, "0"))
            take_text(j, a, &r->label);
        else
            rr__json_skip(j);
}

static void take_value(rr__json *j, rr__arena *a, rr_str key, raw *r) {
    const struct {
        const char *key;
        int64_t    *to;
    } ints[] = {
        {"num_hidden_layers", &r->layers},  {"hidden_size", &r->d},
        {"num_attention_heads", &r->heads}, {"intermediate_size", &r->ff},
        {"vocab_size", &r->vocab},          {"max_position_embeddings", &r->pos},
        {"type_vocab_size", &r->types},     {"pad_token_id", &r->pad},
        {"num_labels", &r->labels},
    };

    if (rr__json_peek(j) == RR__JSON_NULL) { /* transformers: null is the same as absent */
        rr__json_null(j);
        return;
    }
    for (size_t i = 0; i < sizeof ints / sizeof ints[0]; i++)
        if (rr__json_eq(key, ints[i].key)) {
            rr__json_i64(j, ints[i].to);
            return;
        }
    if (rr__json_eq(key, "layer_norm_eps"))
        r->has_eps = rr__json_f64(j, &r->eps);
    else if (rr__json_eq(key, "architectures"))
        take_architectures(j, a, &r->arch);
    else if (rr__json_eq(key, "id2label"))
        take_id2label(j, a, r);
    else if (rr__json_eq(key, "hidden_act"))
        take_text(j, a, &r->act);
    else if (rr__json_eq(key, "position_embedding_type"))
        take_text(j, a, &r->pos_type);
    else if (rr__json_eq(key, "is_decoder"))
        rr__json_bool(j, &r->decoder);
    else
        rr__json_skip(j);
}

static rr_status read_raw(const char *file, const void *ptr, size_t size, rr__arena *a, raw *r,
                          rr_error *err) {
    rr__json  j;
    rr_str    key = {"", 0};
    char      where[48] = "";
    rr_status s;

    rr__json_init(&j, ptr, size, a);
    rr__json_object(&j);
    while (rr__json_key(&j, &key))
        take_value(&j, a, key, r);
    if (rr__json_done(&j))
        return RR_OK;
    for (size_t i = 0; i < key.len && i < sizeof where - 1; i++) /* the key read last */
        where[i] = key.ptr[i] > 0x20 && key.ptr[i] < 0x7f ? key.ptr[i] : '?';
    s = rr__json_fail(&j, key.len ? where : "top", err);
    return rr__fail_prefix(err, s, "%s", file);
}

/* ---- what it means -------------------------------------------------------- */

static rr_status find_arch(const char *file, const raw *r, const rr__arch **out, rr_error *err) {
    if (!r->arch)
        return rr__fail(err, RR_E_FORMAT, "%s: architectures is missing", file);
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++)
        if (strcmp(r->arch, archs[i].name) == 0) {
            *out = &archs[i];
            return RR_OK;
        }
    return rr__fail(
        err, RR_E_UNSUPPORTED,
        "%s: architecture %s is not supported (XLM-RoBERTa, RoBERTa, CamemBERT and BERT "
        "ForSequenceClassification are)",
        file, r->arch);
}

static rr_status check_variant(const char *file, const raw *r, rr_error *err) {
    int64_t labels = r->id2label != MISSING ? r->id2label : r->labels != MISSING ? r->labels : 2;

    if (labels != 1 || (r->labels != MISSING && r->labels != 1))
        return rr__fail(err, RR_E_UNSUPPORTED, "%s: num_labels is %lld, a reranker has 1", file,
                        (long long)(labels != 1 ? labels : r->labels));
    if (r->act && strcmp(r->act, "gelu") != 0)
        return rr__fail(err, RR_E_UNSUPPORTED, "%s: hidden_act %s is not supported (gelu is)", file,
                        r->act);
    if (r->pos_type && strcmp(r->pos_type, "absolute") != 0)
        return rr__fail(err, RR_E_UNSUPPORTED,
                        "%s: position_embedding_type %s is not supported (absolute is)", file,
                        r->pos_type);
    if (r->decoder)
        return rr__fail(err, RR_E_UNSUPPORTED, "%s: is_decoder is true, a reranker is an encoder",
                        file);
    return RR_OK;
}

static rr_status check_int(const char *file, const char *key, int64_t v, int64_t min, int64_t max,
                           int32_t *out, rr_error *err) {
    if (v == MISSING)
        return rr__fail(err, RR_E_FORMAT, "%s: %s is missing", file, key);
    if (v < min || v > max)
        return rr__fail(err, RR_E_FORMAT, "%s: %s is %lld, not in %lld..%lld", file, key,
                        (long long)v, (long long)min, (long long)max);
    *out = (int32_t)v;
    return RR_OK;
}

/* The limits are far above any model and keep every product of two sizes below 2^48. */
static rr_status check_sizes(const char *file, const raw *r, rr__config *c, rr_error *err) {
    int64_t   types = r->types == MISSING ? 2 : r->types;
    int64_t   pad = r->pad == MISSING ? c->arch->pos_behind_pad : r->pad; /* 1, BERT 0 */
    rr_status s;

    if ((s = check_int(file, "num_hidden_layers", r->layers, 1, 1024, &c->n_layer, err)) ||
        (s = check_int(file, "hidden_size", r->d, 1, 65536, &c->d_model, err)) ||
        (s = check_int(file, "num_attention_heads", r->heads, 1, 65536, &c->n_head, err)) ||
        (s = check_int(file, "intermediate_size", r->ff, 1, 1 << 20, &c->d_ff, err)) ||
        (s = check_int(file, "vocab_size", r->vocab, 1, 1 << 24, &c->vocab_size, err)) ||
        (s = check_int(file, "max_position_embeddings", r->pos, 1, 1 << 24, &c->n_pos, err)) ||
        (s = check_int(file, "type_vocab_size", types, 1, 1 << 16, &c->n_type, err)) ||
        (s = check_int(file, "pad_token_id", pad, 0, r->vocab - 1, &c->pad_id, err)))
        return s;
    if (c->d_model % c->n_head != 0)
        return rr__fail(err, RR_E_FORMAT,
                        "%s: hidden_size %d is no multiple of num_attention_heads %d", file,
                        c->d_model, c->n_head);
    if (c->arch->pos_behind_pad && c->pad_id + 1 >= c->n_pos)
        return rr__fail(err, RR_E_FORMAT,
                        "%s: max_position_embeddings %d leaves no position behind pad_token_id %d",
                        file, c->n_pos, c->pad_id);
    return RR_OK;
}

rr_status rr__config_parse(const char *file, const void *ptr, size_t size, rr__arena *a,
                           rr__config *out, rr_error *err) {
    raw        r = {MISSING, MISSING, MISSING, MISSING, MISSING, MISSING, MISSING, MISSING, MISSING,
                    MISSING, 0,       0,       0,       NULL,    NULL,    NULL,    NULL};
    rr__config c = {0};
    double     eps;
    rr_status  s;

    if ((s = read_raw(file, ptr, size, a, &r, err)) || (s = find_arch(file, &r, &c.arch, err)) ||
        (s = check_variant(file, &r, err)) || (s = check_sizes(file, &r, &c, err)))
        return s;
    eps = r.has_eps ? r.eps : 1e-12; /* what transformers takes for all of them */
    if (!(eps >= 1e-30 && eps <= 0.1))
        return rr__fail(err, RR_E_FORMAT, "%s: layer_norm_eps is %g, not in 1e-30..0.1", file, eps);
    c.ln_eps = (float)eps;
    c.label = r.label ? r.label : "LABEL_0";
    *out = c;
    return RR_OK;
}
