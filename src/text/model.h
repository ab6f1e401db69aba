/* model.h - Unigram and WordPiece: one pre-token in, ids out. */
#ifndef RR_TEXT_MODEL_H
#define RR_TEXT_MODEL_H

#include "text/vocab.h"

/* Growing list of tokens: ids, and how many characters each covers where `chars` is wanted. */
typedef struct rr__tokens {
    int32_t  *id;
    uint32_t *chars; /* beside id if want_chars */
    size_t    n, cap;
    int       want_chars, oom;
} rr__tokens;

void rr__tokens_free(rr__tokens *t);
int  rr__tokens_room(rr__tokens *t, size_t n);

/* A cell of the Viterbi search: the best way to reach a character position. */
typedef struct rr__cell {
    double   score;
    int32_t  id;
    uint32_t from;
} rr__cell;

/* Work space of one call: labels of a pre-token and cells. Zero-initialise. */
typedef struct rr__scratch {
    uint16_t *label;
    size_t    n_label, cap_label;
    rr__cell *cell;
    size_t    cap_cell;
} rr__scratch;

void rr__scratch_free(rr__scratch *s);
/* Room for n labels behind n_label; 0 when out of memory. */
int rr__scratch_room(rr__scratch *s, size_t n);

typedef struct rr__unigram {
    int32_t unk_id;    /* -1: an unknown character is an error */
    double  unk_score; /* lowest score of a piece, less 10     */
    int     byte_fallback;
    int32_t byte_id[256]; /* of <0x00> .. <0xFF>; byte_fallback needs those it meets */
} rr__unigram;

/* Set unk_score and byte_id from the vocabulary. */
void rr__unigram_init(rr__unigram *m, const rr__vocab *v);

/* The best segmentation of scratch->label[0 .. n_label), as HF's encode_optimized finds it:
 * scores added in double from the left, of equal sums the earlier start wins, neighbouring unknown
 * characters become one token. RR_E_FORMAT if an unknown needs the missing unk_id. */
rr_status rr__unigram_encode(const rr__unigram *m, const rr__vocab *v, rr__scratch *scratch,
                             rr__tokens *out, rr_error *err);

typedef struct rr__wordpiece {
    int32_t  unk_id; /* -1: an unknown word is an error                      */
    int64_t  max_chars;
    uint32_t inner; /* base of the node behind the prefix "##"              */
    int      has_inner;
} rr__wordpiece;

/* Longest match first over scratch->label. */
rr_status rr__wordpiece_encode(const rr__wordpiece *m, const rr__vocab *v, rr__scratch *scratch,
                               rr__tokens *out, rr_error *err);

#endif
