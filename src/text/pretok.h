/* pretok.h - the pre-tokenizers of a tokenizer.json: one text to a list of parts. */
#ifndef RR_TEXT_PRETOK_H
#define RR_TEXT_PRETOK_H

#include "text/buf.h"

typedef enum rr__pretok_kind {
    RR__PRETOK_METASPACE,
    RR__PRETOK_WHITESPACE_SPLIT,
    RR__PRETOK_WHITESPACE, /* runs of \w and runs of other visible characters */
    RR__PRETOK_BERT,       /* white space removed, punctuation alone */
    RR__PRETOK_PUNCTUATION /* punctuation alone */
} rr__pretok_kind;

typedef enum rr__prepend { RR__PREPEND_ALWAYS, RR__PREPEND_FIRST, RR__PREPEND_NEVER } rr__prepend;

typedef struct rr__pretok {
    rr__pretok_kind kind;
    uint32_t        replacement; /* Metaspace: the char for a space */
    rr__prepend     prepend;
    int             split;
} rr__pretok;

/* A part of a text: an added token (id >= 0), or text for the next step (id -1). Never empty. */
typedef struct rr__part {
    size_t  start, end;
    int32_t id;
} rr__part;

typedef struct rr__parts {
    rr__buf   text;
    rr__part *part;
    size_t    n, cap;
    int       oom;
} rr__parts;

void rr__parts_free(rr__parts *p);
/* Append a part; empty ones are dropped. */
void rr__parts_add(rr__parts *p, size_t start, size_t end, int32_t id);

/* Run steps[n]; the result is in *parts, tmp is scratch of the same kind. Check the oom flags. */
void rr__pretokenize(const rr__pretok *steps, size_t n, rr__parts *parts, rr__parts *tmp);

#endif
