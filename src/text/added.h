/* added.h - tokens that are found in the text before the model sees it: <s>, <mask>, ... */
#ifndef RR_TEXT_ADDED_H
#define RR_TEXT_ADDED_H

#include "text/normalize.h"
#include "text/pretok.h"
#include "text/vocab.h"

typedef struct rr__added_token {
    rr_str  content; /* owned by whoever loads it; copied by rr__added_build */
    int32_t id;
    int     single_word, lstrip, rstrip, normalized, special;
} rr__added_token;

typedef struct rr__added {
    rr__added_token *token; /* [n] contents owned */
    size_t           n;
    rr__vocab        raw, normal;   /* tries over indices into token[]: searched in the raw text,
                                     and in the normalized one */
    uint8_t          first[2][256]; /* bytes a match can begin with, of raw and normal */
    int              has[2];
} rr__added;

/* Copy token[n] and prepare the search. Contents of normalized tokens go through norm[] first. */
rr_status rr__added_build(const rr__added_token *token, size_t n, const rr__norm *norm,
                          size_t n_norm, rr__added *out, rr_error *err);
void      rr__added_close(rr__added *a);

/* Split bytes start .. end of out->text at the tokens found there, leftmost and longest first.
 * normal: 0 the raw tokens, 1 the normalized ones. */
void rr__added_split(const rr__added *a, int normal, size_t start, size_t end, rr__parts *out);

/* Whether a raw token stands at p; p < end, and the bytes up to the first invalid one are looked at. */
int rr__added_at(const rr__added *a, const uint8_t *p, const uint8_t *end);

#endif
