/* config.h - what config.json says about a sequence classification model.
 *
 * A pure function over bytes that may be hostile. The architectures it knows are rows of a table:
 * XLM-RoBERTa, RoBERTa and CamemBERT are one model under three names, BERT differs in positions, in
 * tensor names and in where its head keeps the dense layer. */
#ifndef RR_MODEL_CONFIG_H
#define RR_MODEL_CONFIG_H

#include "base/arena.h"

typedef struct rr__arch {
    const char *name;           /* "XLMRobertaForSequenceClassification"      */
    const char *prefix;         /* of the encoder's tensor names: "roberta."  */
    const char *dense, *out;    /* head tensors: "classifier.dense"           */
    int32_t     pos_behind_pad; /* 1: positions start at pad_token_id + 1     */
} rr__arch;

typedef struct rr__config {
    const rr__arch *arch;
    const char     *label; /* id2label["0"], or "LABEL_0" */
    int32_t         n_layer, d_model, n_head, d_ff, vocab_size, n_pos, n_type, pad_id;
    float           ln_eps;
} rr__config;

/* file is used in messages; strings of out live in the arena. */
rr_status rr__config_parse(const char *file, const void *ptr, size_t size, rr__arena *a,
                           rr__config *out, rr_error *err);

#endif
