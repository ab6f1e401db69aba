/* normalize.c - see normalize.h. Each step reads one text and writes the next. */
#include "text/normalize.h"

#include "text/unicode.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

void rr__norm_close(rr__norm *step) {
    rr__charsmap_close(&step->charsmap);
    free(step->pattern);
    free(step->content);
    *step = (rr__norm){0};
}

/* ---- rewriting with ranges ---------------------------------------------------
 *
 * The reference describes a change as a list of (char, change): 0 replaces the next char of the
 * old text, 1 adds a char, -n replaces one and removes the n behind it. An added char gets the
 * range of the old char before the cursor. The last entry is held back because removals are
 * added to it. */
typedef struct rewrite {
    const rr__buf *in;
    rr__buf       *out;
    size_t         at; /* cursor in the old text */
    uint32_t       c;
    int64_t        change;
    int            held;
} rewrite;

static void skip_char(rewrite *w) {
    if (w->at < w->in->n)
        w->at += (size_t)rr__utf8_len(w->in->s[w->at]);
}

static void flush(rewrite *w) {
    rr__range from = {0, 0};

    if (!w->held)
        return;
    w->held = 0;
    if (w->in->spans) {
        if (w->change > 0 && w->at > 0)
            from = w->in->al[w->at - 1];
        else if (w->change <= 0 && w->in->n > 0)
            from = w->in->al[w->at < w->in->n ? w->at : w->in->n - 1];
        if (w->change <= 0)
            skip_char(w);
        for (int64_t k = w->change; k < 0 && w->at < w->in->n; k++)
            skip_char(w);
    }
    rr__buf_put(w->out, w->c, from);
}

static void emit(rewrite *w, uint32_t c, int64_t change) {
    flush(w);
    w->c = c;
    w->change = change;
    w->held = 1;
}

/* ---- Precompiled ---------------------------------------------------------- */

static size_t count_chars(const uint8_t *s, size_t n) {
    size_t k = 0;

    for (size_t i = 0; i < n; i++)
        k += (s[i] & 0xc0) != 0x80;
    return k;
}

/* n_old chars of the old text become the replacement. */
static void emit_replacement(rewrite *w, size_t n_old, const uint8_t *s, size_t n) {
    size_t k = 0, n_new = count_chars(s, n);

    for (size_t i = 0; i < n; i += (size_t)rr__utf8_len(s[i]), k++)
        emit(w, rr__utf8_get(s + i), n_new > n_old && k >= n_old);
    if (n_new < n_old && w->held)
        w->change -= (int64_t)(n_old - n_new);
}

static void precompiled(const rr__norm *step, rewrite *w) {
    const uint8_t *p = w->in->s, *end = p + w->in->n, *found;
    size_t         n;

    while (p < end) {
        const uint8_t *stop = rr__grapheme_end(p, end);
        size_t         len = (size_t)(stop - p);

        if (len < 6 && rr__charsmap_find(&step->charsmap, p, len, &found, &n)) {
            emit_replacement(w, count_chars(p, len), found, n);
            p = stop;
        }
        for (; p < stop; p += rr__utf8_len(*p))
            if (rr__charsmap_find(&step->charsmap, p, (size_t)rr__utf8_len(*p), &found, &n))
                emit_replacement(w, 1, found, n);
            else
                emit(w, rr__utf8_get(p), 0);
    }
}

/* ---- one char at a time --------------------------------------------------- */

/* Keep the chars that `keep` accepts. */
static void filter(rewrite *w, int (*keep)(uint32_t c)) {
    const uint8_t *p = w->in->s, *end = p + w->in->n;

    while (p < end) {
        uint32_t c = rr__utf8_get(p);

        p += rr__utf8_len(*p);
        if (keep(c))
            emit(w, c, 0);
        else if (w->held)
            w->change--;
        else
            skip_char(w);
    }
}

static void map(rewrite *w, uint32_t (*change)(uint32_t c)) {
    const uint8_t *p = w->in->s, *end = p + w->in->n;

    for (; p < end; p += rr__utf8_len(*p))
        emit(w, change(rr__utf8_get(p)), 0);
}

static void lowercase(rewrite *w) {
    const uint8_t *p = w->in->s, *end = p + w->in->n;
    uint32_t       c[RR__UC_MAX_MAP];

    for (; p < end; p += rr__utf8_len(*p)) {
        int n = rr__uc_lower(rr__utf8_get(p), c);

        for (int i = 0; i < n; i++)
            emit(w, c[i], i > 0);
    }
}

static int keep_nmt(uint32_t c) {
    return !((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f ||
             c == 0x9f);
}

static uint32_t map_nmt(uint32_t c) {
    return c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 ||
                   (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                   c == 0xfeff || c == 0xfffd
               ? ' '
               : c;
}

static int keep_unaccented(uint32_t c) {
    return !(rr__uc_props(c) & RR__UC_MARK);
}

static int keep_base(uint32_t c) {
    return !(rr__uc_props(c) & RR__UC_COMBINING);
}

static int keep_clean(uint32_t c) {
    if (c == '\t' || c == '\n' || c == '\r')
        return 1;
    return c != 0 && c != 0xfffd && !(rr__uc_props(c) & RR__UC_OTHER);
}

static uint32_t map_space(uint32_t c) {
    return rr__uc_props(c) & RR__UC_SPACE ? ' ' : c;
}

static int is_chinese(uint32_t c) {
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static void space_chinese(rewrite *w) {
    const uint8_t *p = w->in->s, *end = p + w->in->n;

    for (; p < end; p += rr__utf8_len(*p)) {
        uint32_t c = rr__utf8_get(p);

        if (is_chinese(c)) {
            emit(w, ' ', 0);
            emit(w, c, 1);
            emit(w, ' ', 1);
        } else {
            emit(w, c, 0);
        }
    }
}

/* ---- canonical order and composition -------------------------------------- */

typedef struct mark {
    uint32_t c;
    uint8_t  ccc, added;
} mark;

/* What lies between a starter and the next: decomposed chars waiting to be sorted. */
typedef struct pending {
    mark  *m, *sorted;
    size_t n, cap;
    int    oom;
} pending;

static void push(pending *q, uint32_t c, int ccc, int added) {
    if (q->n == q->cap) {
        size_t cap = q->cap * 2 + 64;
        mark  *a = realloc(q->m, cap * sizeof *a), *b;

        if (a)
            q->m = a;
        b = a ? realloc(q->sorted, cap * sizeof *b) : NULL;
        if (!b) {
            q->oom = 1;
            return;
        }
        q->sorted = b;
        q->cap = cap;
    }
    q->m[q->n++] = (mark){c, (uint8_t)ccc, (uint8_t)added};
}

/* Stable counting sort by combining class: linear even for a megabyte of accents. */
static void sort_marks(pending *q) {
    size_t at[257] = {0};

    if (q->n < 2)
        return;
    for (size_t i = 0; i < q->n; i++)
        at[q->m[i].ccc + 1]++;
    for (int k = 0; k < 256; k++)
        at[k + 1] += at[k];
    for (size_t i = 0; i < q->n; i++)
        q->sorted[at[q->m[i].ccc]++] = q->m[i];
    memcpy(q->m, q->sorted, q->n * sizeof *q->m);
}

/* The last starter, composed with what followed so far; it goes out before the marks that stay. */
typedef struct composer {
    rewrite *w;
    pending *rest; /* marks that did not compose */
    uint32_t c;
    int64_t  change;
    int      has, last_ccc; /* last_ccc -1: no mark is in between */
} composer;

static void compose_flush(composer *k) {
    if (k->has)
        emit(k->w, k->c, k->change);
    for (size_t i = 0; i < k->rest->n; i++)
        emit(k->w, k->rest->m[i].c, k->rest->m[i].added);
    k->rest->n = 0;
    k->has = 0;
    k->last_ccc = -1;
}

static void compose_push(composer *k, mark m) {
    uint32_t joined;

    if (!k->has) {
        if (m.ccc != 0) {
            emit(k->w, m.c, m.added);
            return;
        }
        goto start;
    }
    if (k->last_ccc < m.ccc) { /* not blocked */
        joined = rr__uc_compose(k->c, m.c);
        if (joined) {
            k->c = joined;
            k->change += m.added - 1;
            return;
        }
    }
    if (m.ccc != 0) {
        push(k->rest, m.c, m.ccc, m.added);
        k->last_ccc = m.ccc;
        return;
    }
    compose_flush(k);
start:
    k->has = 1;
    k->c = m.c;
    k->change = m.added;
}

static void release(pending *q, composer *k, int compose) {
    sort_marks(q);
    for (size_t i = 0; i < q->n; i++)
        if (compose)
            compose_push(k, q->m[i]);
        else
            emit(k->w, q->m[i].c, q->m[i].added);
    q->n = 0;
}

static void normal_form(rewrite *w, int compat, int compose) {
    const uint8_t *p = w->in->s, *end = p + w->in->n;
    uint32_t       c[RR__UC_MAX_MAP];
    pending        q = {0}, rest = {0};
    composer       k = {.w = w, .rest = &rest, .last_ccc = -1};

    for (; p < end; p += rr__utf8_len(*p)) {
        int n = rr__uc_decompose(rr__utf8_get(p), compat, c);

        for (int i = 0; i < n; i++) {
            int ccc = rr__uc_ccc_of(c[i]);

            if (ccc == 0)
                release(&q, &k, compose);
            push(&q, c[i], ccc, i > 0);
        }
    }
    release(&q, &k, compose);
    compose_flush(&k);
    w->out->oom |= q.oom | rest.oom;
    free(q.m);
    free(q.sorted);
    free(rest.m);
    free(rest.sorted);
}

/* ---- Strip and Replace ---------------------------------------------------- */

static int is_space_at(const uint8_t *p) {
    return (rr__uc_props(rr__utf8_get(p)) & RR__UC_SPACE) != 0;
}

static void strip(const rr__norm *step, const rr__buf *in, rr__buf *out) {
    size_t a = 0, b = in->n, k;

    while (step->left && a < b && is_space_at(in->s + a))
        a += (size_t)rr__utf8_len(in->s[a]);
    while (step->right && b > a) {
        for (k = b - 1; (in->s[k] & 0xc0) == 0x80;)
            k--;
        if (!is_space_at(in->s + k))
            break;
        b = k;
    }
    rr__buf_copy(out, in, a, b);
}

/* Bytes of the match of step's pattern at p, 0 if none. */
static size_t match(const rr__norm *step, const uint8_t *p, const uint8_t *end) {
    size_t n = step->n_pattern, runs = 0;

    while ((size_t)(end - p) >= n && memcmp(p, step->pattern, n) == 0) {
        p += n;
        runs++;
        if (step->min_run == 0)
            return n;
    }
    return runs >= step->min_run ? runs * n : 0;
}

static void replace(const rr__norm *step, const rr__buf *in, rr__buf *out) {
    const uint8_t *s = in->s, *end = s + in->n, *p = s, *done = s, *hit;
    const uint8_t *content = (const uint8_t *)step->content;

    while (p < end && (hit = memchr(p, step->pattern[0], (size_t)(end - p)))) {
        size_t    n = match(step, hit, end);
        rr__range from = {0, 0};

        if (n == 0) {
            p = hit + 1;
            while (step->min_run && p < end && *p == (uint8_t)step->pattern[0] &&
                   step->n_pattern == 1)
                p++; /* the rest of a run that is too short */
            continue;
        }
        p = hit + n;
        rr__buf_copy(out, in, (size_t)(done - s), (size_t)(hit - s));
        if (in->spans)
            from = in->al[(size_t)(p - s) - 1];
        for (size_t i = 0; i < step->n_content; i += (size_t)rr__utf8_len(content[i]))
            rr__buf_put(out, rr__utf8_get(content + i), from);
        done = p;
    }
    rr__buf_copy(out, in, (size_t)(done - s), in->n);
}

/* ---- the steps ------------------------------------------------------------ */

static void swap(rr__buf *a, rr__buf *b) {
    rr__buf t = *a;

    *a = *b;
    *b = t;
    a->oom |= b->oom;
    b->n = 0;
}

/* Run one rewriting function from text into tmp, then make the result the text. */
#define REWRITE(call)                                                                              \
    do {                                                                                           \
        rewrite w_ = {.in = text, .out = tmp}, *w = &w_;                                           \
                                                                                                   \
        if (text->n) {                                                                             \
            call;                                                                                  \
            flush(w);                                                                              \
            swap(text, tmp);                                                                       \
        }                                                                                          \
    } while (0)

static void bert(const rr__norm *step, rr__buf *text, rr__buf *tmp) {
    if (step->clean_text) {
        REWRITE(filter(w, keep_clean));
        REWRITE(map(w, map_space));
    }
    if (step->chinese)
        REWRITE(space_chinese(w));
    if (step->accents) {
        REWRITE(normal_form(w, 0, 0));
        REWRITE(filter(w, keep_unaccented));
    }
    if (step->lower)
        REWRITE(lowercase(w));
}

static void run(const rr__norm *step, rr__buf *text, rr__buf *tmp) {
    switch (step->kind) {
    case RR__NORM_PRECOMPILED:
        REWRITE(precompiled(step, w));
        break;
    case RR__NORM_STRIP:
        strip(step, text, tmp);
        swap(text, tmp);
        break;
    case RR__NORM_REPLACE:
        replace(step, text, tmp);
        swap(text, tmp);
        break;
    case RR__NORM_NMT:
        REWRITE(filter(w, keep_nmt));
        REWRITE(map(w, map_nmt));
        break;
    case RR__NORM_NFC:
    case RR__NORM_NFD:
    case RR__NORM_NFKC:
    case RR__NORM_NFKD:
        REWRITE(normal_form(w, step->kind == RR__NORM_NFKC || step->kind == RR__NORM_NFKD,
                            step->kind == RR__NORM_NFC || step->kind == RR__NORM_NFKC));
        break;
    case RR__NORM_LOWERCASE:
        REWRITE(lowercase(w));
        break;
    case RR__NORM_STRIP_ACCENTS:
        REWRITE(filter(w, keep_base));
        break;
    case RR__NORM_BERT:
        bert(step, text, tmp);
        break;
    }
}

void rr__normalize(const rr__norm *steps, size_t n, rr__buf *text, rr__buf *tmp) {
    for (size_t i = 0; i < n && text->n > 0 && !text->oom; i++) {
        tmp->n = 0;
        run(&steps[i], text, tmp);
    }
}
