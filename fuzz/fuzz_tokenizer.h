/* fuzz_tokenizer.h - what every tokenizer that a loader accepts must do, shared by its fuzzers. */
#ifndef FUZZ_TOKENIZER_H
#define FUZZ_TOKENIZER_H

#include "text/pair.h"
#include "text/tokenizer_impl.h"

#include <stdlib.h>

/* A text through both ways: the same ids, all in range, spans inside the text. */
static inline void check_text(const rr__tokenizer *t, rr_str text) {
    enum { CAP = 1 << 14 };
    static rr_token token[CAP];
    rr__ids         ids = {0};
    size_t          n = 0;
    rr_error        err;
    rr_status       a = rr__tokenizer_encode(t, text, &ids, &err);
    rr_status       b = rr__tokenizer_encode_spans(t, text, 0, token, CAP, &n, &err);

    if (a != b || (!a && ids.n != n))
        abort();
    for (size_t i = 0; !a && i < n && i < CAP; i++)
        if (token[i].id != ids.id[i] || token[i].id < 0 ||
            token[i].id >= rr__tokenizer_vocab_size(t) || token[i].start > token[i].end ||
            token[i].end > text.len || !rr__tokenizer_piece(t, token[i].id).ptr)
            abort();
    rr__ids_free(&ids);
}

/* Check a loader's answer; the file's own bytes serve as one of the texts. */
static inline void check_tokenizer(rr_status st, rr__tokenizer *t, const rr_error *err,
                                   const uint8_t *data, size_t size) {
    static const char odd[] = "Hello  <s>w\xc3\xb6rld \xef\xbc\xb3"
                              "e\xcc\x81\xff\0 \xe2\x96\x81 a b "
                              "\xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd [MASK]\r\n"
                              "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8 \xe0\xb8\x81\xe0\xb8\xb3";

    if (st) {
        for (const char *p = err->text; *p; p++) /* a message is one clean line */
            if ((unsigned char)*p < 0x20)
                abort();
        return;
    }
    check_text(t, (rr_str){odd, sizeof odd - 1});
    check_text(t, (rr_str){(const char *)data, size < 4096 ? size : 4096});
    rr__tokenizer_close(t);
}

#endif
