/* load_vocab.c - vocab.txt to the WordPiece tokenizer that transformers makes of a BERT model: one
 * piece a line, its id the line's number from 0. tokenizer_config.json may say do_lower_case (else
 * true), strip_accents (else as do_lower_case) and tokenize_chinese_chars (else true). */
#include "text/load_steps.h"

#include <stdlib.h>
#include <string.h>

typedef struct config {
    int lower, accents, chinese; /* accents -1: as lower */
} config;

static rr_status read_config(rr_str text, config *c, rr_error *err) {
    rr__arena arena = {0};
    rr__json  j;
    rr_str    key;
    rr_status st = RR_OK;

    *c = (config){1, -1, 1};
    if (text.len == 0)
        return RR_OK;
    rr__json_init(&j, text.ptr, text.len, &arena);
    rr__json_object(&j);
    while (rr__json_key(&j, &key)) {
        int *to = rr__json_eq(key, "do_lower_case")            ? &c->lower
                  : rr__json_eq(key, "strip_accents")          ? &c->accents
                  : rr__json_eq(key, "tokenize_chinese_chars") ? &c->chinese
                                                               : NULL;

        if (to && rr__json_peek(&j) == RR__JSON_BOOL)
            rr__json_bool(&j, to);
        else
            rr__json_skip(&j);
    }
    if (!rr__json_done(&j))
        st = rr__json_fail(&j, "tokenizer_config.json", err);
    rr__arena_free(&arena);
    return st;
}

/* Lines of text to pieces; NULL when out of memory. */
static rr__piece *read_lines(rr_str text, size_t *n) {
    size_t      lines = 1;
    rr__piece  *piece;
    const char *p = text.ptr, *end = p + text.len;

    for (const char *q = p; q < end; q++)
        lines += *q == '\n';
    piece = malloc(lines * sizeof *piece);
    *n = 0;
    while (piece && p < end) {
        const char *stop = memchr(p, '\n', (size_t)(end - p)), *next = stop ? stop + 1 : end;

        if (!stop)
            stop = end;
        if (stop > p && stop[-1] == '\r')
            stop--;
        piece[*n] = (rr__piece){{p, (size_t)(stop - p)}, 0, (int32_t)*n};
        ++*n;
        p = next;
    }
    return piece;
}

rr_status rr__tokenizer_from_vocab(const void *ptr, size_t size, rr_str config_json,
                                   const char *name, rr__tokenizer **out, rr_error *err) {
    static const char *const names[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    rr__added_token          special[5];
    rr__tokenizer           *t = NULL;
    rr__piece               *piece = NULL;
    size_t                   n = 0;
    config                   c;
    rr_status                st = read_config(config_json, &c, err);

    if (st)
        return st;
    if (size == 0)
        return rr__fail(err, RR_E_FORMAT, "%s: empty", name);
    if (size >= RR__NO_ID)
        return rr__fail(err, RR_E_UNSUPPORTED, "%s: %zu bytes", name, size);
    t = calloc(1, sizeof *t);
    piece = read_lines((rr_str){ptr, size}, &n);
    if (!t || !piece) {
        st = rr__fail(err, RR_E_NOMEM, "%s: out of memory", name);
        goto done;
    }
    if ((st = rr__vocab_build(piece, n, (int32_t)n, 0, &t->vocab, err))) {
        rr__fail_prefix(err, st, "%s", name);
        goto done;
    }
    if ((st = rr__wordpiece_setup(t, RR_STR("[UNK]"), RR_STR("##"), 100, name, err)))
        goto done;
    t->norm[t->n_norm++] = (rr__norm){.kind = RR__NORM_BERT,
                                      .clean_text = 1,
                                      .chinese = c.chinese,
                                      .accents = c.accents < 0 ? c.lower : c.accents,
                                      .lower = c.lower};
    t->pretok[t->n_pretok++].kind = RR__PRETOK_BERT;
    for (int i = 0; i < 5; i++) {
        special[i] = (rr__added_token){.content = {names[i], strlen(names[i])}, .special = 1};
        if (rr__vocab_find(&t->vocab, names[i], strlen(names[i])) < 0 && i != 0 && i != 4) {
            st = rr__fail(err, RR_E_FORMAT, "%s: no %s", name, names[i]);
            goto done;
        }
    }
    if ((st = rr__tokenizer_add(t, special, 5, err))) {
        rr__fail_prefix(err, st, "%s", name);
        goto done;
    }
    rr__tokenizer_template(t, rr__tokenizer_id(t, RR_STR("[CLS]")),
                           rr__tokenizer_id(t, RR_STR("[SEP]")), 0);
done:
    free(piece);
    if (st)
        rr__tokenizer_close(t);
    else
        *out = t;
    return st;
}
