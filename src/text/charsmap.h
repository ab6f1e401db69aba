/* charsmap.h - sentencepiece's precompiled character map, as Hugging Face's spm_precompiled reads it.
 *
 * Layout: uint32 size of the trie in bytes, the trie (a Darts-clone double array of uint32 units
 * over the bytes of UTF-8 keys), then the replacements, each ending in NUL. A value of the trie is
 * the byte offset of its replacement.
 *
 * A key is looked up by the shortest prefix that the trie knows, and whatever follows that prefix is
 * dropped: so does the reference. */
#ifndef RR_TEXT_CHARSMAP_H
#define RR_TEXT_CHARSMAP_H

#include "base/error.h"

typedef struct rr__charsmap {
    uint32_t *unit; /* [n_unit] */
    uint32_t  n_unit;
    uint8_t  *text; /* [n_text] */
    uint32_t  n_text;
} rr__charsmap;

/* Copies and checks the blob: after this no lookup leaves the arrays. */
rr_status rr__charsmap_open(const void *blob, size_t size, rr__charsmap *out, rr_error *err);
void      rr__charsmap_close(rr__charsmap *m);

/* The replacement of key, 1 if there is one. Its text is valid UTF-8. */
int rr__charsmap_find(const rr__charsmap *m, const uint8_t *key, size_t len, const uint8_t **out,
                      size_t *n_out);

/* What a lookup of c, perhaps with more behind it, can find. */
enum {
    RR__CHARSMAP_NONE, /* nothing, whatever follows c */
    RR__CHARSMAP_MORE, /* nothing for c alone, perhaps something with what follows */
    RR__CHARSMAP_HIT   /* a replacement for c alone */
};
int rr__charsmap_kind(const rr__charsmap *m, uint32_t c);
/* Whether a lookup can find anything for one of the 64 code points c, c + 1, ...; c % 64 == 0. */
int rr__charsmap_any(const rr__charsmap *m, uint32_t c);

#endif
