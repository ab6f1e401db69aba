/* fused.h - from bytes to ids in one pass, for the pipelines of XLM-RoBERTa:
 *
 *     Precompiled, Strip (right), Replace " {2,}" by the mark | Metaspace (always, split)
 *     Precompiled                                | WhitespaceSplit, Metaspace (always, split)
 *
 * A table over all code points holds, beside the label of the trie, what may happen to one; most
 * characters are copied as labels, a space ends a word, and a word goes through the model at once.
 * Whatever is rare (invalid bytes, an added token, odd white space) makes the pass give up, and the
 * text takes the way in stages: tokenizer.c. Both ways give the same ids. */
#ifndef RR_TEXT_FUSED_H
#define RR_TEXT_FUSED_H

#include "text/added.h"
#include "text/model.h"

typedef struct rr__fused {
    uint32_t *cp; /* [RR__N_CP] label | flags << 16; NULL: this pipeline has no such pass */
    const rr__charsmap *charsmap;
    uint16_t            mark; /* label of the character for a space */
} rr__fused;

/* Fill *f if the pipeline is one of those above; f->cp stays NULL if not, or without memory. */
void rr__fused_init(rr__fused *f, const rr__norm *norm, size_t n_norm, const rr__pretok *pretok,
                    size_t n_pretok, const rr__vocab *v, const rr__added *added);
void rr__fused_close(rr__fused *f);

/* Append the ids of text to out. 1 done, 0 gave up (out may hold ids to drop), -1 *st is an error. */
int rr__fused_encode(const rr__fused *f, const rr__unigram *m, const rr__vocab *v,
                     const rr__added *added, rr_str text, rr__scratch *scratch, rr__tokens *out,
                     rr_status *st, rr_error *err);

#endif
