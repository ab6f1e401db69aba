/* tokenizer.h - bytes to token ids, exactly as the Hugging Face tokenizers library does.
 *
 * Floor 3: knows no weights. Unigram (XLM-RoBERTa) with the precompiled charsmap, WordPiece (BERT);
 * which normalizers and pre-tokenizers run is read from the file. Thread-safe once open. */
#ifndef RR_TEXT_TOKENIZER_H
#define RR_TEXT_TOKENIZER_H

#include "base/error.h"

typedef struct rr__tokenizer rr__tokenizer;

/* Growing array of ids; zero-initialise, free with rr__ids_free. */
typedef struct rr__ids {
    int32_t *id;
    size_t   n, cap;
} rr__ids;
void rr__ids_free(rr__ids *ids);

/* DIR/tokenizer.json, else DIR/sentencepiece.bpe.model, else DIR/vocab.txt. */
rr_status rr__tokenizer_open(const char *dir, rr__tokenizer **out, rr_error *err);
void      rr__tokenizer_close(rr__tokenizer *t);

int32_t rr__tokenizer_vocab_size(const rr__tokenizer *t);
/* Token ids the pair template uses; -1 where the tokenizer has none. */
int32_t rr__tokenizer_bos(const rr__tokenizer *t); /* <s> or [CLS]  */
int32_t rr__tokenizer_eos(const rr__tokenizer *t); /* </s> or [SEP] */
/* Tokens the template adds to a pair: 4 for XLM-R, 3 for BERT. */
int32_t rr__tokenizer_pair_special(const rr__tokenizer *t);
rr_str  rr__tokenizer_piece(const rr__tokenizer *t, int32_t id);

/* Append the ids of text, no template. */
rr_status rr__tokenizer_encode(const rr__tokenizer *t, rr_str text, rr__ids *out, rr_error *err);

/* The same with byte ranges, for /tokenize; tokens as rr_tokenize. Slower. */
rr_status rr__tokenizer_encode_spans(const rr__tokenizer *t, rr_str text, int add_special,
                                     rr_token *tokens, size_t cap, size_t *n, rr_error *err);

#endif
