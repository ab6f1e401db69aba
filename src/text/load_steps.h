/* load_steps.h - the small parts of a tokenizer.json: normalizer, pre-tokenizer, template; and what
 * the loaders share. */
#ifndef RR_TEXT_LOAD_STEPS_H
#define RR_TEXT_LOAD_STEPS_H

#include "base/json.h"
#include "text/tokenizer_impl.h"

/* Read the member that j stands before into t. */
rr_status rr__load_normalizer(rr__tokenizer *t, rr__json *j, const char *name, rr_error *err);
rr_status rr__load_pretokenizer(rr__tokenizer *t, rr__json *j, const char *name, rr_error *err);
rr_status rr__load_template(rr__tokenizer *t, rr__json *j, const char *name, rr_error *err);

/* Make t a WordPiece tokenizer over t->vocab. */
rr_status rr__wordpiece_setup(rr__tokenizer *t, rr_str unk, rr_str prefix, int64_t max_chars,
                              const char *name, rr_error *err);

/* RR_E_UNSUPPORTED: "name: what type". */
rr_status rr__load_unsupported(const char *name, const char *what, rr_str type, rr_error *err);

extern const double rr__pow10[309];

#endif
