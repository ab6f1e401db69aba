/* unicode.h - properties of code points, as the parts of the Hugging Face tokenizers library see
 * them (their Unicode versions differ, see tools/gen_unicode.py), and the algorithms on them:
 * grapheme clusters, decomposition, composition. */
#ifndef RR_TEXT_UNICODE_H
#define RR_TEXT_UNICODE_H

#include <stddef.h>
#include <stdint.h>

/* Grapheme classes: the low four bits of rr__uc_props. */
enum {
    RR__GC_ANY,
    RR__GC_CR,
    RR__GC_LF,
    RR__GC_CONTROL,
    RR__GC_EXTEND,
    RR__GC_ZWJ,
    RR__GC_SPACING_MARK,
    RR__GC_PREPEND,
    RR__GC_REGIONAL,
    RR__GC_L,
    RR__GC_V,
    RR__GC_T,
    RR__GC_LV,
    RR__GC_LVT,
    RR__GC_PICTOGRAPHIC,
    RR__GC_CONSONANT, /* Indic_Conjunct_Break=Consonant */
    RR__GC_MASK = 15
};

/* The other bits. */
enum {
    RR__UC_LINKER = 1 << 4,      /* Indic_Conjunct_Break=Linker              */
    RR__UC_INCB_EXTEND = 1 << 5, /* Indic_Conjunct_Break=Extend              */
    RR__UC_SPACE = 1 << 6,       /* white space                              */
    RR__UC_WORD = 1 << 7,        /* \w of regular expressions                */
    RR__UC_OTHER = 1 << 8,       /* category C*, but \t \n \r               */
    RR__UC_PUNCT = 1 << 9,       /* ASCII punctuation or category P*         */
    RR__UC_MARK = 1 << 10,       /* category Mn                              */
    RR__UC_LOWER = 1 << 11,      /* has a lower-case mapping                 */
    RR__UC_NFD = 1 << 12,        /* has a canonical decomposition, not Hangul */
    RR__UC_NFKD = 1 << 13,       /* has another compatibility decomposition  */
    RR__UC_COMBINING = 1 << 14   /* category M*                              */
};

/* Tables (unicode_tables.c). Properties: combo[stage2[stage1[c / 128] * 128 + c % 128]]. */
extern const uint16_t rr__uc_combo[], rr__uc_stage1[];
extern const uint8_t  rr__uc_stage2[];
/* Mappings: key sorted; value i is pool[at[i]] .. pool[at[i + 1]]. */
extern const uint32_t rr__uc_lower_key[], rr__uc_lower_pool[], rr__uc_n_lower;
extern const uint32_t rr__uc_nfd_key[], rr__uc_nfd_pool[], rr__uc_n_nfd;
extern const uint32_t rr__uc_nfkd_key[], rr__uc_nfkd_pool[], rr__uc_n_nfkd;
extern const uint16_t rr__uc_lower_at[], rr__uc_nfd_at[], rr__uc_nfkd_at[];
extern const uint32_t rr__uc_ccc[], rr__uc_n_ccc; /* c << 8 | class, sorted */
extern const uint32_t rr__uc_first[], rr__uc_second[], rr__uc_composed[], rr__uc_n_pair;

/* c < 0x110000 */
static inline uint32_t rr__uc_props(uint32_t c) {
    return rr__uc_combo[rr__uc_stage2[(uint32_t)rr__uc_stage1[c >> 7] << 7 | (c & 127)]];
}

/* End of the extended grapheme cluster that begins at p < end with a valid character; invalid bytes
 * end it. */
const uint8_t *rr__grapheme_end(const uint8_t *p, const uint8_t *end);

enum { RR__UC_MAX_MAP = 18 }; /* longest mapping of one code point */

/* Lower case of c into out[RR__UC_MAX_MAP]; returns how many. */
int rr__uc_lower(uint32_t c, uint32_t *out);
/* Full decomposition of c, canonical or (compat) compatibility, in the same way. */
int rr__uc_decompose(uint32_t c, int compat, uint32_t *out);
/* Canonical combining class. */
int rr__uc_ccc_of(uint32_t c);
/* The primary composite of a pair, 0 if there is none. */
uint32_t rr__uc_compose(uint32_t first, uint32_t second);

#endif
