/* pretok.c - see pretok.h. */
#include "text/pretok.h"

#include "text/unicode.h"
#include "text/utf8.h"

#include <stdlib.h>

void rr__parts_free(rr__parts *p) {
    rr__buf_free(&p->text);
    free(p->part);
    *p = (rr__parts){0};
}

void rr__parts_add(rr__parts *p, size_t start, size_t end, int32_t id) {
    if (start >= end)
        return;
    if (p->n == p->cap) {
        size_t    cap = p->cap * 2 + 64;
        rr__part *part = realloc(p->part, cap * sizeof *part);

        if (!part) {
            p->oom = 1;
            return;
        }
        p->part = part;
        p->cap = cap;
    }
    p->part[p->n++] = (rr__part){start, end, id};
}

/* Spaces become the replacement, one is put in front, and each replacement begins a new part. An
 * added char takes the range of its neighbour: the first char of the part. */
static void metaspace(const rr__pretok *step, const rr__buf *in, rr__part part, rr__parts *out) {
    rr__range from = {0, 0};
    uint32_t  c = rr__utf8_get(in->s + part.start);
    size_t    start = out->text.n;

    if (in->spans)
        from = in->al[part.start];
    if (c != ' ' && c != step->replacement &&
        (step->prepend == RR__PREPEND_ALWAYS ||
         (step->prepend == RR__PREPEND_FIRST && from.start == 0)))
        rr__buf_put(&out->text, step->replacement, from);
    for (size_t i = part.start; i < part.end; i += (size_t)rr__utf8_len(in->s[i])) {
        c = rr__utf8_get(in->s + i);
        if (in->spans)
            from = in->al[i];
        if (c == ' ')
            c = step->replacement;
        if (c == step->replacement && step->split) {
            rr__parts_add(out, start, out->text.n, -1);
            start = out->text.n;
        }
        rr__buf_put(&out->text, c, from);
    }
    rr__parts_add(out, start, out->text.n, -1);
}

/* What a char is to a splitter: chars of one class stay together, except class ALONE; class GONE
 * is dropped. */
enum { GONE, ALONE, VISIBLE, WORD };

static int class_of(rr__pretok_kind kind, uint32_t c) {
    uint32_t props = rr__uc_props(c);

    switch (kind) {
    case RR__PRETOK_WHITESPACE:
        return props & RR__UC_WORD ? WORD : props & RR__UC_SPACE ? GONE : VISIBLE;
    case RR__PRETOK_BERT:
        return props & RR__UC_SPACE ? GONE : props & RR__UC_PUNCT ? ALONE : VISIBLE;
    case RR__PRETOK_PUNCTUATION:
        return props & RR__UC_PUNCT ? ALONE : VISIBLE;
    default:
        return props & RR__UC_SPACE ? GONE : VISIBLE;
    }
}

static void split(rr__pretok_kind kind, const rr__buf *in, rr__part part, rr__parts *out) {
    size_t shift = out->text.n - part.start, start = part.start;
    int    now = GONE;

    rr__buf_copy(&out->text, in, part.start, part.end);
    for (size_t i = part.start; i < part.end; i += (size_t)rr__utf8_len(in->s[i])) {
        int class = class_of(kind, rr__utf8_get(in->s + i));

        if (class == now && class != ALONE)
            continue;
        if (now != GONE)
            rr__parts_add(out, start + shift, i + shift, -1);
        start = i;
        now = class;
    }
    if (now != GONE)
        rr__parts_add(out, start + shift, part.end + shift, -1);
}

void rr__pretokenize(const rr__pretok *steps, size_t n, rr__parts *parts, rr__parts *tmp) {
    for (size_t k = 0; k < n; k++) {
        rr__parts t;

        tmp->text.n = tmp->n = 0;
        for (size_t i = 0; i < parts->n; i++) {
            rr__part part = parts->part[i];

            if (part.id >= 0) {
                rr__buf_copy(&tmp->text, &parts->text, part.start, part.end);
                rr__parts_add(tmp, tmp->text.n - (part.end - part.start), tmp->text.n, part.id);
            } else if (steps[k].kind == RR__PRETOK_METASPACE) {
                metaspace(&steps[k], &parts->text, part, tmp);
            } else {
                split(steps[k].kind, &parts->text, part, tmp);
            }
        }
        t = *parts;
        *parts = *tmp;
        *tmp = t;
        if (parts->oom || parts->text.oom)
            return;
    }
}
