/* body.h - the fields of a JSON request body, of all dialects at once.
 *
 * A key means the same wherever it occurs, so one table reads them all; each dialect then takes the
 * fields it knows and leaves the rest alone, which is also how unknown fields are treated: clients
 * send what their favourite server wants. null is as good as absent. Strings are slices of the body,
 * or of the arena where they hold escapes. A pure function over bytes: fuzz/fuzz_body.c. */
#ifndef RR_SERVER_BODY_H
#define RR_SERVER_BODY_H

#include "base/arena.h"
#include "base/json.h"

typedef struct rr__texts {
    rr_str *at; /* [n] */
    size_t  n;
    int     set, single; /* single: it was one string and no list */
} rr__texts;

typedef enum rr__tri { RR__UNSET, RR__FALSE, RR__TRUE } rr__tri;

typedef struct rr__num {
    int64_t v;
    int     set;
} rr__num;

typedef struct rr__fields {
    rr__texts query, texts, documents, queries;
    rr__tri   truncate, raw_scores, use_activation, return_text, return_documents, details;
    rr__tri   add_special, skip_special;
    rr__num   top_n, max_length, max_doc, max_query, priority, deadline_ms;
    rr_str    model, id, side, truncation_policy; /* ptr NULL: absent */
    rr_str    inputs, text_pairs, instances, ids, outputs,
        parameters; /* values as written, for the dialect to read */
} rr__fields;

enum { RR__BODY_OK, RR__BODY_MALFORMED, RR__BODY_FIELD, RR__BODY_NOMEM };

/* Read a body; on anything but RR__BODY_OK text says what is wrong and where. */
int rr__body_read(const char *ptr, size_t len, rr__arena *arena, rr__fields *out, char *text,
                  size_t cap);

/* Take a text (a string or {"text": ...}) or a list of them at j. For dialects with lists of their
 * own. 0 and *what on failure. */
int rr__body_texts(rr__json *j, rr__arena *arena, rr__texts *out, char *what, size_t cap);

#endif
