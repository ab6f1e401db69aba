/* tokenizer.c - see tokenizer.h: opening, and the plain way from text to ids in stages. */
#include "text/tokenizer.h"

#include "base/file.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- opening ---------------------------------------------------------------- */

static int exists(const char *path) {
    struct stat st;

    return stat(path, &st) == 0;
}

static int join(char *path, size_t cap, const char *dir, const char *name) {
    int n = snprintf(path, cap, "%s/%s", dir, name);

    return n > 0 && (size_t)n < cap;
}

static rr_status open_vocab(const char *dir, const char *path, rr__file f, rr__tokenizer **out,
                            rr_error *err) {
    char      config[PATH_MAX];
    rr__file  c = {0};
    rr_status st = RR_OK;

    if (join(config, sizeof config, dir, "tokenizer_config.json") && exists(config))
        st = rr__file_map(config, &c, err);
    if (!st)
        st = rr__tokenizer_from_vocab(f.ptr, f.size, (rr_str){c.ptr, c.size}, path, out, err);
    rr__file_unmap(&c);
    return st;
}

rr_status rr__tokenizer_open(const char *dir, rr__tokenizer **out, rr_error *err) {
    static const char *const names[] = {"tokenizer.json", "sentencepiece.bpe.model", "vocab.txt"};
    char                     path[PATH_MAX];
    rr__file                 f;
    rr_status                st;

    for (int i = 0; i < 3; i++) {
        if (!join(path, sizeof path, dir, names[i]))
            return rr__fail(err, RR_E_IO, "%.100s...: path is too long", dir);
        if (!exists(path))
            continue;
        st = rr__file_map(path, &f, err);
        if (st)
            return st;
        if (i == 0)
            st = rr__tokenizer_from_json(f.ptr, f.size, path, out, err);
        else if (i == 1)
            st = rr__tokenizer_from_spm(f.ptr, f.size, path, out, err);
        else
            st = open_vocab(dir, path, f, out, err);
        rr__file_unmap(&f);
        return st;
    }
    return rr__fail(err, RR_E_IO, "%s: no tokenizer.json, sentencepiece.bpe.model or vocab.txt",
                    dir);
}

void rr__tokenizer_close(rr__tokenizer *t) {
    if (!t)
        return;
    for (size_t i = 0; i < t->n_norm; i++)
        rr__norm_close(&t->norm[i]);
    rr__vocab_close(&t->vocab);
    rr__added_close(&t->added);
    rr__fused_close(&t->fused);
    free(t);
}

rr_status rr__tokenizer_add(rr__tokenizer *t, rr__added_token *token, size_t n, rr_error *err) {
    int32_t   next = t->vocab.n;
    size_t    kept = 0;
    rr_status st;

    for (size_t i = 0; i < n; i++) {
        int32_t id = rr__vocab_find(&t->vocab, token[i].content.ptr, token[i].content.len);
        size_t  same = 0;

        if (token[i].content.len == 0)
            continue;
        while (same < kept &&
               (token[same].content.len != token[i].content.len ||
                memcmp(token[same].content.ptr, token[i].content.ptr, token[i].content.len) != 0))
            same++;
        if (same < kept) /* the later entry of one text replaces the earlier */
            id = token[same].id;
        token[i].id = id >= 0 ? id : next++;
        if (same < kept)
            token[same] = token[i];
        else
            token[kept++] = token[i];
    }
    t->n_id = next;
    st = rr__added_build(token, kept, t->norm, t->n_norm, &t->added, err);
    if (!st && t->kind == RR__MODEL_UNIGRAM && !t->unigram.byte_fallback)
        rr__fused_init(&t->fused, t->norm, t->n_norm, t->pretok, t->n_pretok, &t->vocab, &t->added);
    return st;
}

int32_t rr__tokenizer_id(const rr__tokenizer *t, rr_str text) {
    for (size_t i = 0; i < t->added.n; i++)
        if (t->added.token[i].content.len == text.len &&
            memcmp(t->added.token[i].content.ptr, text.ptr, text.len) == 0)
            return t->added.token[i].id;
    return rr__vocab_find(&t->vocab, text.ptr, text.len);
}

void rr__tokenizer_template(rr__tokenizer *t, int32_t bos, int32_t eos, int double_sep) {
    t->single = (rr__template){.id = {{bos}, {eos}}, .n = {1, 1, 0}, .mid_seg0 = -1};
    t->pair = (rr__template){.id = {{bos}, {eos, eos}, {eos}},
                             .n = {1, double_sep ? 2 : 1, 1},
                             .mid_seg0 = double_sep ? -1 : 1};
}

int32_t rr__tokenizer_vocab_size(const rr__tokenizer *t) {
    return t->n_id;
}

int32_t rr__tokenizer_bos(const rr__tokenizer *t) {
    return t->pair.n[0] ? t->pair.id[0][0] : -1;
}

int32_t rr__tokenizer_eos(const rr__tokenizer *t) {
    return t->pair.n[2] ? t->pair.id[2][t->pair.n[2] - 1] : -1;
}

int32_t rr__tokenizer_pair_special(const rr__tokenizer *t) {
    return t->pair.n[0] + t->pair.n[1] + t->pair.n[2];
}

rr_str rr__tokenizer_piece(const rr__tokenizer *t, int32_t id) {
    for (size_t i = 0; i < t->added.n; i++)
        if (t->added.token[i].id == id)
            return t->added.token[i].content;
    return rr__vocab_text(&t->vocab, id);
}

void rr__ids_free(rr__ids *ids) {
    free(ids->id);
    *ids = (rr__ids){0};
}

/* ---- in stages ---------------------------------------------------------------- */

/* Raw bytes to valid UTF-8, invalid ones as U+FFFD. */
static void take_text(rr_str text, rr__buf *out) {
    const uint8_t *p = (const uint8_t *)text.ptr, *end = p + text.len;

    if (!rr__buf_room(out, text.len))
        return;
    while (p < end) {
        int       n = rr__utf8_check(p, end), len = n < 0 ? -n : n;
        uint32_t  at = (uint32_t)(p - (const uint8_t *)text.ptr);
        rr__range from = {at, at + (uint32_t)len};

        rr__buf_put(out, n < 0 ? 0xfffd : rr__utf8_get(p), from);
        p += len;
    }
}

/* Find the raw added tokens, normalize what lies between them, find the others in that. */
static void split_added(const rr__tokenizer *t, rr__parts *raw, rr__parts *out, rr__buf *text,
                        rr__buf *tmp) {
    rr__added_split(&t->added, 0, 0, raw->text.n, raw);
    for (size_t i = 0; i < raw->n; i++) {
        rr__part part = raw->part[i];
        size_t   start = out->text.n;

        if (part.id >= 0) {
            rr__buf_copy(&out->text, &raw->text, part.start, part.end);
            rr__parts_add(out, start, out->text.n, part.id);
            continue;
        }
        text->n = 0;
        rr__buf_copy(text, &raw->text, part.start, part.end);
        rr__normalize(t->norm, t->n_norm, text, tmp);
        rr__buf_copy(&out->text, text, 0, text->n);
        rr__added_split(&t->added, 1, start, out->text.n, out);
        out->oom |= text->oom;
    }
}

/* One part of text through the model. */
static rr_status encode_part(const rr__tokenizer *t, const uint8_t *s, size_t n,
                             rr__scratch *scratch, rr__tokens *out, rr_error *err) {
    scratch->n_label = 0;
    if (!rr__scratch_room(scratch, n))
        return rr__fail(err, RR_E_NOMEM, "tokenizer: out of memory");
    for (size_t i = 0; i < n; i += (size_t)rr__utf8_len(s[i]))
        scratch->label[scratch->n_label++] = (uint16_t)t->vocab.cp[rr__utf8_get(s + i)];
    if (t->kind == RR__MODEL_WORDPIECE)
        return rr__wordpiece_encode(&t->wordpiece, &t->vocab, scratch, out, err);
    return rr__unigram_encode(&t->unigram, &t->vocab, scratch, out, err);
}

/* Replace unknown tokens from `first` on by their bytes, where the vocabulary has all of them. A
 * token that is the piece <unk> itself stays. Needs chars. */
static rr_status byte_fallback(const rr__tokenizer *t, const uint8_t *s, size_t first,
                               rr__tokens *out, rr_error *err) {
    size_t     n = out->n - first;
    rr__tokens copy = {.want_chars = 1};
    rr_str     unk = rr__vocab_text(&t->vocab, t->unigram.unk_id);

    if (n == 0)
        return RR_OK;
    if (!rr__tokens_room(&copy, n))
        return rr__fail(err, RR_E_NOMEM, "tokenizer: out of memory");
    memcpy(copy.id, out->id + first, n * sizeof *copy.id);
    memcpy(copy.chars, out->chars + first, n * sizeof *copy.chars);
    out->n = first;
    for (size_t k = 0; k < n; k++) {
        const uint8_t *start = s;
        int            all = copy.id[k] == t->unigram.unk_id;

        for (uint32_t c = 0; c < copy.chars[k]; c++)
            s += rr__utf8_len(*s);
        if (all && (size_t)(s - start) == unk.len && memcmp(start, unk.ptr, unk.len) == 0)
            all = 0;
        for (const uint8_t *p = start; all && p < s; p++)
            all = t->unigram.byte_id[*p] >= 0;
        if (!rr__tokens_room(out, all ? (size_t)(s - start) : 1))
            break;
        for (const uint8_t *p = start; all && p < s; p++) {
            out->id[out->n] = t->unigram.byte_id[*p];
            /* The first byte carries the chars of the token; the rest share its span. */
            out->chars[out->n++] = p == start ? copy.chars[k] : 0;
        }
        if (!all) {
            out->id[out->n] = copy.id[k];
            out->chars[out->n++] = copy.chars[k];
        }
    }
    rr__tokens_free(&copy);
    return out->oom ? rr__fail(err, RR_E_NOMEM, "tokenizer: out of memory") : RR_OK;
}

/* A token for the caller, from its id, its range, and what it is. */
typedef struct sink {
    rr__ids  *ids;
    rr_token *token; /* [cap], or NULL */
    size_t    cap, n;
} sink;

static int sink_put(sink *k, int32_t id, int special, rr__range at) {
    if (k->ids) {
        rr__ids *ids = k->ids;

        if (ids->n == ids->cap) {
            size_t   cap = ids->cap * 2 + 64;
            int32_t *p = realloc(ids->id, cap * sizeof *p);

            if (!p)
                return 0;
            ids->id = p;
            ids->cap = cap;
        }
        ids->id[ids->n++] = id;
    } else {
        if (k->n < k->cap)
            k->token[k->n] = (rr_token){id, special, at.start, at.end};
        k->n++;
    }
    return 1;
}

static int is_special(const rr__tokenizer *t, int32_t id) {
    for (size_t i = 0; i < t->added.n; i++)
        if (t->added.token[i].id == id)
            return t->added.token[i].special;
    return 0;
}

static rr_status encode_parts(const rr__tokenizer *t, const rr__parts *parts, sink *out,
                              rr_error *err) {
    int spans = parts->text.spans, fallback = t->kind == RR__MODEL_UNIGRAM &&
                                              t->unigram.byte_fallback && t->unigram.unk_id >= 0;
    rr__tokens  tokens = {.want_chars = spans || fallback};
    rr__scratch scratch = {0};
    rr_status   st = RR_OK;
    int         ok = 1;

    for (size_t i = 0; i < parts->n && ok; i++) {
        rr__part       part = parts->part[i];
        const uint8_t *s = parts->text.s + part.start;
        size_t         at = part.start;
        rr__range      r = {0, 0};

        if (part.id >= 0) {
            if (spans)
                r = (rr__range){parts->text.al[at].start, parts->text.al[part.end - 1].end};
            ok = sink_put(out, part.id, is_special(t, part.id), r);
            continue;
        }
        tokens.n = 0;
        st = encode_part(t, s, part.end - at, &scratch, &tokens, err);
        if (!st && fallback)
            st = byte_fallback(t, s, 0, &tokens, err);
        if (st)
            goto done;
        for (size_t k = 0; k < tokens.n && ok; k++) {
            if (spans && tokens.chars[k]) {
                r.start = parts->text.al[at].start;
                for (uint32_t c = 0; c < tokens.chars[k]; c++)
                    at += (size_t)rr__utf8_len(parts->text.s[at]);
                r.end = parts->text.al[at - 1].end;
            }
            ok = sink_put(out, tokens.id[k], 0, r);
        }
    }
    if (!ok)
        st = rr__fail(err, RR_E_NOMEM, "tokenizer: out of memory");
done:
    rr__tokens_free(&tokens);
    rr__scratch_free(&scratch);
    return st;
}

/* Metaspace that prepends to the first word only needs to know where a part began. */
static int needs_spans(const rr__tokenizer *t) {
    for (size_t i = 0; i < t->n_pretok; i++)
        if (t->pretok[i].kind == RR__PRETOK_METASPACE && t->pretok[i].prepend == RR__PREPEND_FIRST)
            return 1;
    return 0;
}

static rr_status encode_staged(const rr__tokenizer *t, rr_str text, int spans, sink *out,
                               rr_error *err) {
    rr__parts raw = {0}, parts = {0};
    rr__buf   work = {0}, tmp = {0};
    rr_status st;

    if (text.len == 0)
        return RR_OK;
    if (text.len > UINT32_MAX / 4)
        return rr__fail(err, RR_E_TOO_LARGE, "text of %zu bytes, at most %u", text.len,
                        UINT32_MAX / 4);
    raw.text.spans = parts.text.spans = work.spans = tmp.spans = spans || needs_spans(t);
    take_text(text, &raw.text);
    split_added(t, &raw, &parts, &work, &tmp);
    raw.oom |= raw.text.oom;
    rr__pretokenize(t->pretok, t->n_pretok, &parts, &raw);
    if (raw.oom | raw.text.oom | parts.oom | parts.text.oom | work.oom | tmp.oom)
        st = rr__fail(err, RR_E_NOMEM, "tokenizer: out of memory");
    else
        st = encode_parts(t, &parts, out, err);
    rr__parts_free(&raw);
    rr__parts_free(&parts);
    rr__buf_free(&work);
    rr__buf_free(&tmp);
    return st;
}

/* In one pass, straight into the caller's ids; 1 done, 0 gave up, -1 failed. */
static int encode_fused(const rr__tokenizer *t, rr_str text, rr__ids *out, rr_status *st,
                        rr_error *err) {
    rr__tokens  tokens = {.id = out->id, .n = out->n, .cap = out->cap};
    rr__scratch scratch = {0};
    int done = rr__fused_encode(&t->fused, &t->unigram, &t->vocab, &t->added, text, &scratch,
                                &tokens, st, err);

    rr__scratch_free(&scratch);
    out->id = tokens.id;
    out->cap = tokens.cap;
    if (done > 0)
        out->n = tokens.n;
    return done;
}

rr_status rr__tokenizer_encode(const rr__tokenizer *t, rr_str text, rr__ids *out, rr_error *err) {
    sink      k = {.ids = out};
    size_t    n = out->n;
    rr_status st = RR_OK;

    if (t->fused.cp && text.len && encode_fused(t, text, out, &st, err))
        return st;
    st = encode_staged(t, text, 0, &k, err);
    if (st)
        out->n = n;
    return st;
}

rr_status rr__tokenizer_encode_spans(const rr__tokenizer *t, rr_str text, int add_special,
                                     rr_token *tokens, size_t cap, size_t *n, rr_error *err) {
    sink                k = {.token = tokens, .cap = cap};
    const rr__template *w = &t->single;
    rr_status           st;

    for (int32_t i = 0; add_special && i < w->n[0]; i++)
        sink_put(&k, w->id[0][i], 1, (rr__range){0, 0});
    st = encode_staged(t, text, 1, &k, err);
    if (st)
        return st;
    for (int32_t i = 0; add_special && i < w->n[1]; i++)
        sink_put(&k, w->id[1][i], 1, (rr__range){(uint32_t)text.len, (uint32_t)text.len});
    *n = k.n;
    return RR_OK;
}
