/* vocab.h - the pieces of a model and the trie that finds them in text.
 *
 * The trie works on characters, not bytes: every code point that occurs in a piece gets a label
 * (1 .. 65534, 0 for all others), and a double array maps (node, label) to the next node:
 *
 *     at   = base(node) ^ label
 *     unit = unit[at]          is the child if label(unit) == label
 *
 * A unit is 64 bits: base 24 | label 16 | id 24, id RR__NO_ID where no piece ends. One load a step
 * tells all three, and a Chinese character is one step where bytes would take three. */
#ifndef RR_TEXT_VOCAB_H
#define RR_TEXT_VOCAB_H

#include "base/error.h"

enum { RR__NO_ID = 0xffffff, RR__N_CP = 0x110000 };

typedef struct rr__vocab {
    int32_t   n;            /* ids are 0 .. n - 1                                    */
    char     *pool;         /* texts of all pieces, end to end                       */
    uint32_t *at;           /* [n + 1] piece i is pool[at[i]] .. pool[at[i + 1]]     */
    double   *score;        /* [n] Unigram only, else NULL                           */
    uint64_t *unit;         /* [n_unit]                                              */
    uint32_t  n_unit, root; /* root: base of the root node                    */
    uint32_t *cp;           /* [RR__N_CP] label of each code point                    */
} rr__vocab;

/* A piece as a loader hands it over. Texts are not owned and must be valid UTF-8. */
typedef struct rr__piece {
    rr_str  text;
    double  score;
    int32_t id;
} rr__piece;

/* Build from n pieces whose ids lie below n_id (ids may be missing; of two pieces with one text the
 * later in the list wins the text). The list is reordered. */
rr_status rr__vocab_build(rr__piece *pieces, size_t n, int32_t n_id, int scores, rr__vocab *out,
                          rr_error *err);
void      rr__vocab_close(rr__vocab *v);

static inline uint32_t rr__unit_base(uint64_t u) {
    return (uint32_t)(u >> 40);
}
static inline uint32_t rr__unit_label(uint64_t u) {
    return (uint32_t)(u >> 24) & 0xffff;
}
static inline uint32_t rr__unit_id(uint64_t u) {
    return (uint32_t)u & 0xffffff;
}

/* The id of a text, -1 if it is no piece. */
int32_t rr__vocab_find(const rr__vocab *v, const char *text, size_t len);
/* The base of the node a text leads to; 0 if it is the prefix of no longer piece. */
int    rr__vocab_walk(const rr__vocab *v, const char *text, size_t len, uint32_t *base);
rr_str rr__vocab_text(const rr__vocab *v, int32_t id);

#endif
