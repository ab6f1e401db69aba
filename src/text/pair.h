/* pair.h - query and documents to sequences: truncation policy and template.
 *
 *   XLM-R  <s> query </s> </s> document </s>      BERT  [CLS] query [SEP] document [SEP]
 *
 * The query is encoded once and spliced before each document. */
#ifndef RR_TEXT_PAIR_H
#define RR_TEXT_PAIR_H

#include "text/tokenizer.h"

typedef struct rr__pair_opts {
    int32_t       max_length; /* tokens of a pair, specials counted; > pair_special            */
    int32_t       max_query; /* most query tokens; 0 = 3/4 of max_length (only_second), else none */
    int32_t       max_doc;   /* most document tokens; 0 = no cap of its own                   */
    rr_truncation truncation;
    rr_side       side;
} rr__pair_opts;

/* Encode one pair whose query ids are known (from rr__tokenizer_encode). Appends the sequence to
 * out; *seg gets the number of leading tokens of segment 0; info may be NULL. */
rr_status rr__pair_encode(const rr__tokenizer *t, const int32_t *query, size_t n_query, rr_str doc,
                          const rr__pair_opts *o, rr__ids *out, int32_t *seg, rr_doc_info *info,
                          rr_error *err);

/* The same with the document's ids known too (from a cache). */
rr_status rr__pair_splice(const rr__tokenizer *t, const int32_t *query, size_t n_query,
                          const int32_t *doc, size_t n_doc, const rr__pair_opts *o, rr__ids *out,
                          int32_t *seg, rr_doc_info *info, rr_error *err);

/* The query alone, as the template for a single text has it; cut to max_length, or refused. */
rr_status rr__single_splice(const rr__tokenizer *t, const int32_t *query, size_t n_query,
                            const rr__pair_opts *o, rr__ids *out, int32_t *seg, rr_doc_info *info,
                            rr_error *err);

#endif
