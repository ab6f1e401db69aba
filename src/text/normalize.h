/* normalize.h - the normalizers of a tokenizer.json, run one after the other over a text.
 *
 * Where a normalizer changes text, the ranges of the raw text follow the rules of the reference's
 * NormalizedString, its quirks included, so that token spans agree. */
#ifndef RR_TEXT_NORMALIZE_H
#define RR_TEXT_NORMALIZE_H

#include "text/buf.h"
#include "text/charsmap.h"

typedef enum rr__norm_kind {
    RR__NORM_PRECOMPILED,
    RR__NORM_STRIP,
    RR__NORM_REPLACE, /* every run of at least min_run times pattern, min_run 0: each pattern */
    RR__NORM_NMT,
    RR__NORM_NFC,
    RR__NORM_NFD,
    RR__NORM_NFKC,
    RR__NORM_NFKD,
    RR__NORM_LOWERCASE,
    RR__NORM_STRIP_ACCENTS,
    RR__NORM_BERT
} rr__norm_kind;

typedef struct rr__norm {
    rr__norm_kind kind;
    rr__charsmap  charsmap;          /* Precompiled */
    int           left, right;       /* Strip       */
    char         *pattern, *content; /* Replace, owned */
    size_t        n_pattern, n_content, min_run;
    int           clean_text, chinese, accents, lower; /* Bert        */
} rr__norm;

void rr__norm_close(rr__norm *step);

/* Run steps[n] over text; tmp is scratch of the same kind. Check text->oom afterwards. */
void rr__normalize(const rr__norm *steps, size_t n, rr__buf *text, rr__buf *tmp);

#endif
