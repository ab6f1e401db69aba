/* tokenizer_impl.h - what a tokenizer is made of, for the files of this folder. */
#ifndef RR_TEXT_TOKENIZER_IMPL_H
#define RR_TEXT_TOKENIZER_IMPL_H

#include "text/fused.h"
#include "text/model.h"
#include "text/normalize.h"
#include "text/pretok.h"
#include "text/tokenizer.h"

enum { RR__MAX_STEPS = 16, RR__MAX_SPECIAL = 8 };

/* Special ids around the texts, e.g. <s> A </s> or <s> A </s></s> B </s>. */
typedef struct rr__template {
    int32_t id[3][RR__MAX_SPECIAL]; /* before A, behind A (pair: before B), behind B (pair only) */
    int32_t n[3];
    int32_t mid_seg0; /* of the tokens between A and B, those in segment 0; -1: so is all else */
} rr__template;

typedef enum rr__model_kind { RR__MODEL_UNIGRAM, RR__MODEL_WORDPIECE } rr__model_kind;

struct rr__tokenizer {
    rr__norm       norm[RR__MAX_STEPS];
    rr__pretok     pretok[RR__MAX_STEPS];
    size_t         n_norm, n_pretok;
    rr__vocab      vocab;
    rr__model_kind kind;
    rr__unigram    unigram;
    rr__wordpiece  wordpiece;
    rr__added      added;
    rr__fused      fused;
    rr__template   single, pair;
    int32_t        n_id; /* ids of model and added tokens are below this */
};

/* Loaders: pure functions over the bytes of a file; name is for messages. On failure nothing leaks
 * and *out is untouched. */
rr_status rr__tokenizer_from_json(const void *ptr, size_t size, const char *name,
                                  rr__tokenizer **out, rr_error *err);
rr_status rr__tokenizer_from_spm(const void *ptr, size_t size, const char *name,
                                 rr__tokenizer **out, rr_error *err);
/* config: tokenizer_config.json, for do_lower_case and its like; may be empty. */
rr_status rr__tokenizer_from_vocab(const void *ptr, size_t size, rr_str config, const char *name,
                                   rr__tokenizer **out, rr_error *err);

/* For loaders, in this order: build t->vocab and set t->kind and the model's fields, then the
 * added tokens (ids are looked up as the reference does: a text of the vocabulary keeps its id,
 * others get the next free one). */
rr_status rr__tokenizer_add(rr__tokenizer *t, rr__added_token *token, size_t n, rr_error *err);
/* The id of a text among added tokens and pieces, -1 if it is none. */
int32_t rr__tokenizer_id(const rr__tokenizer *t, rr_str text);
/* Set the template of XLM-RoBERTa (double_sep) or BERT. */
void rr__tokenizer_template(rr__tokenizer *t, int32_t bos, int32_t eos, int double_sep);

#endif
