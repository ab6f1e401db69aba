/* tokens.c - TEI's /tokenize and /decode: what the tokenizer makes of a text, and back.
 *
 *     {"inputs": "a" | ["a", ..], "add_special_tokens": true}
 *     [[{"id", "text", "special", "start", "stop"}, ..], ..]     start and stop count characters
 *     {"ids": [..] | [[..], ..], "skip_special_tokens": true}  ->  ["a", ..] */
#include "server/info.h"
#include "server/request.h"

#include <string.h>

/* Characters in the first n bytes of a text. */
static size_t chars(const char *p, size_t n) {
    size_t c = 0;

    for (size_t i = 0; i < n; i++)
        c += (p[i] & 0xc0) != 0x80;
    return c;
}

static int write_tokens(rr__request *r, rr_str text, int add_special) {
    size_t        cap = text.len + 8, n = 0, at = 0, at_char = 0;
    rr_token     *tok = rr__arena_calloc(&r->arena, cap, sizeof *tok);
    rr__json_out *o = &r->out;
    rr_error      err;

    if (!tok)
        return rr__problem_set(r, RR__P_UNAVAILABLE, "out of memory");
    if (rr_tokenize(r->server->model, text, add_special, tok, cap, &n, &err) != RR_OK)
        return rr__problem_set(r, RR__P_FIELD, "inputs: %s", err.text);
    rr__out_array(o);
    for (size_t i = 0; i < n && i < cap; i++) {
        rr_token t = tok[i];

        rr__out_object(o);
        rr__out_key(o, "id");
        rr__out_i64(o, t.id);
        rr__out_key(o, "text");
        if (t.special)
            rr__out_str(o, rr_token_text(r->server->model, t.id));
        else
            rr__out_str(o, (rr_str){text.ptr + t.start, t.end - t.start});
        rr__out_key(o, "special");
        rr__out_bool(o, t.special);
        rr__out_key(o, "start");
        if (t.start >= at) { /* tokens come in order: count on from the last one */
            at_char += chars(text.ptr + at, t.start - at);
            at = t.start;
        }
        if (t.special)
            rr__out_null(o);
        else
            rr__out_u64(o, at_char);
        rr__out_key(o, "stop");
        if (t.special)
            rr__out_null(o);
        else
            rr__out_u64(o, at_char + chars(text.ptr + t.start, t.end - t.start));
        rr__out_end_object(o);
    }
    rr__out_end_array(o);
    return 1;
}

void rr__post_tokenize(rr__request *r) {
    rr__json  j;
    rr__texts texts = {0};
    char      what[160];

    if (!r->fields.inputs.ptr) {
        rr__problem_set(r, RR__P_FIELD, "inputs: missing");
        return;
    }
    rr__json_init(&j, r->fields.inputs.ptr, r->fields.inputs.len, &r->arena);
    if (!rr__body_texts(&j, &r->arena, &texts, what, sizeof what)) {
        rr__problem_set(r, RR__P_FIELD, "inputs: %s", what);
        return;
    }
    if (texts.n == 0 || texts.n > (size_t)r->server->o.max_docs) {
        rr__problem_set(r, texts.n ? RR__P_TOO_LARGE : RR__P_EMPTY, "inputs: %zu texts", texts.n);
        return;
    }
    rr__out_array(&r->out);
    for (size_t i = 0; i < texts.n; i++)
        if (!write_tokens(r, texts.at[i], r->fields.add_special != RR__FALSE))
            return;
    rr__out_end_array(&r->out);
}

/* ---- back to text ---------------------------------------------------------------------------- */

static int is_special(rr_str piece) {
    static const char *const names[] = {"<s>",   "</s>",  "<pad>", "<unk>",  "<mask>",
                                        "[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (rr__json_eq(piece, names[i]))
            return 1;
    return 0;
}

/* Pieces to text: Metaspace's bar is a space; WordPiece's ## joins, all else is set apart. */
static void add_piece(rr__json_out *text, rr_str p, int wordpiece) {
    static const char bar[] = "\xe2\x96\x81";

    if (wordpiece) {
        int joins = p.len > 2 && memcmp(p.ptr, "##", 2) == 0;

        if (!joins && text->len)
            rr__out_raw(text, " ", 1);
        rr__out_raw(text, p.ptr + 2 * joins, p.len - 2 * (size_t)joins);
        return;
    }
    for (size_t i = 0; i < p.len;) {
        int space = p.len - i >= 3 && memcmp(p.ptr + i, bar, 3) == 0;

        if (!space)
            rr__out_raw(text, p.ptr + i, 1);
        else if (text->len) /* the one in front of the text is the tokenizer's */
            rr__out_raw(text, " ", 1);
        i += space ? 3 : 1;
    }
}

static int decode(rr__request *r, rr__json *j) {
    const char  *arch = r->server->model_info.architecture;
    int          wordpiece = arch && strncmp(arch, "Bert", 4) == 0;
    rr__json_out text = {0};
    int64_t      id = 0;

    while (rr__json_next(j)) {
        rr_str piece = {NULL, 0};

        if (rr__json_i64(j, &id) && id >= 0 && id <= INT32_MAX)
            piece = rr_token_text(r->server->model, (int32_t)id);
        if (!piece.ptr) {
            rr__out_free(&text);
            return rr__problem_set(r, RR__P_FIELD, "ids: expected token ids of this model");
        }
        if (r->fields.skip_special == RR__FALSE || !is_special(piece))
            add_piece(&text, piece, wordpiece);
    }
    rr__out_str(&r->out, (rr_str){text.ptr ? text.ptr : "", text.len});
    r->out.failed |= text.failed;
    rr__out_free(&text);
    return 1;
}

void rr__post_decode(rr__request *r) {
    rr__json j, back;
    int      nested;

    rr__json_init(&j, r->fields.ids.ptr, r->fields.ids.len, &r->arena);
    if (!r->fields.ids.ptr || !rr__json_array(&j)) {
        rr__problem_set(r, RR__P_FIELD, "ids: expected a list of token ids");
        return;
    }
    back = j;
    nested = rr__json_next(&j) && rr__json_peek(&j) == RR__JSON_ARRAY;
    j = back;
    rr__out_array(&r->out);
    if (!nested && !decode(r, &j))
        return;
    while (nested && rr__json_next(&j))
        if (!rr__json_array(&j) || !decode(r, &j)) {
            rr__problem_set(r, RR__P_FIELD, "ids: expected lists of token ids");
            return;
        }
    rr__out_end_array(&r->out);
}
