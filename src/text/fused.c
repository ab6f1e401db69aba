/* fused.c - see fused.h. */
#include "text/fused.h"

#include "text/unicode.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

/* Flags of a code point c, above its label. PLAIN means none of SLOW and SPACE: c (or the one
 * character it maps to) is copied, provided that what follows does not attach to it. */
enum {
    SLOW = 1 << 16,   /* needs the whole cluster, or a check */
    SPACE = 1 << 17,  /* is a space, or maps to one */
    ATTACH = 1 << 18, /* may belong to the cluster of the character before */
    MARK = 1 << 19,   /* attaches, and nothing can attach to it that is not ATTACH itself */
    DEAD = 1 << 20,   /* no key of the charsmap begins with c: its cluster goes char by char */
    RARE = 1 << 21,   /* give up where c is left after normalization */
    FIRST = 1 << 22   /* an added token may begin with c */
};

static int suits(const rr__norm *norm, size_t n_norm, const rr__pretok *pretok, size_t n_pretok,
                 const rr__added *added) {
    const rr__pretok *meta = n_pretok ? &pretok[n_pretok - 1] : NULL;

    if (!meta || meta->kind != RR__PRETOK_METASPACE || meta->prepend != RR__PREPEND_ALWAYS ||
        !meta->split || added->has[1] || n_norm == 0 || norm[0].kind != RR__NORM_PRECOMPILED)
        return 0;
    if (n_norm == 1)
        return n_pretok == 2 && pretok[0].kind == RR__PRETOK_WHITESPACE_SPLIT;
    return n_norm == 3 && n_pretok == 1 && norm[1].kind == RR__NORM_STRIP && !norm[1].left &&
           norm[1].right && norm[2].kind == RR__NORM_REPLACE && norm[2].min_run == 2 &&
           norm[2].n_pattern == 1 && norm[2].pattern[0] == ' ' && norm[2].n_content > 0 &&
           rr__utf8_get((uint8_t *)norm[2].content) == meta->replacement &&
           norm[2].n_content == (size_t)rr__utf8_len((uint8_t)norm[2].content[0]);
}

/* Flags of c by its grapheme class. */
static uint32_t by_class(uint32_t props) {
    switch (props & RR__GC_MASK) {
    case RR__GC_EXTEND:
    case RR__GC_SPACING_MARK:
        return SLOW | ATTACH | (props & RR__UC_LINKER ? 0u : (uint32_t)MARK);
    case RR__GC_LF:
        return ATTACH;
    case RR__GC_ZWJ:
    case RR__GC_V:
    case RR__GC_T:
        return SLOW | ATTACH;
    case RR__GC_CONTROL: /* a mark behind it is a cluster of its own */
    case RR__GC_CR:      /* these take what follows into their cluster */
    case RR__GC_PREPEND:
    case RR__GC_REGIONAL:
    case RR__GC_L:
        return SLOW;
    default:
        return 0;
    }
}

/* The entry of c, apart from added tokens. */
static uint32_t entry(const rr__fused *f, const rr__vocab *v, uint32_t c, uint32_t mark) {
    uint32_t       props = rr__uc_props(c), flags = by_class(props), to = c;
    const uint8_t *found;
    uint8_t        key[4];
    size_t         n;

    if (c == mark || (c != ' ' && props & RR__UC_SPACE))
        flags |= RARE;
    if (rr__charsmap_find(f->charsmap, key, (size_t)rr__utf8_put(key, c), &found, &n)) {
        to = n ? rr__utf8_get(found) : 0;
        if (n == 0 || n != (size_t)rr__utf8_len(found[0]))
            return flags | SLOW;
    } else if (rr__charsmap_kind(f->charsmap, c) == RR__CHARSMAP_NONE) {
        flags |= DEAD;
    }
    if (to == ' ')
        return flags | SPACE;
    if (to == mark || rr__uc_props(to) & RR__UC_SPACE)
        return flags | SLOW;
    return flags | v->cp[to];
}

/* None of the 128 code points from c attaches, or is a space. */
static int is_plain(uint32_t c) {
    for (uint32_t end = c + 128; c < end; c++)
        if (by_class(rr__uc_props(c)) || rr__uc_props(c) & RR__UC_SPACE)
            return 0;
    return 1;
}

/* Entries of 64 code points. Where characters are plain and no key begins with one, the labels are
 * all there is to say, and those that are 0 spare the memory of their page. */
static void fill(const rr__fused *f, const rr__vocab *v, uint32_t *cp, uint32_t c, uint32_t mark,
                 int plain) {
    const int bare = plain && mark >> 6 != c >> 6 && !rr__charsmap_any(f->charsmap, c);

    for (uint32_t end = c + 64; c < end; c++)
        if (!bare)
            cp[c] = entry(f, v, c, mark);
        else if (v->cp[c])
            cp[c] = v->cp[c];
}

void rr__fused_init(rr__fused *f, const rr__norm *norm, size_t n_norm, const rr__pretok *pretok,
                    size_t n_pretok, const rr__vocab *v, const rr__added *added) {
    uint32_t mark, *cp;
    int      plain = 0;

    f->cp = NULL;
    if (!suits(norm, n_norm, pretok, n_pretok, added))
        return;
    mark = pretok[n_pretok - 1].replacement;
    cp = calloc(RR__N_CP, sizeof *cp);
    if (!cp)
        return;
    f->charsmap = &norm[0].charsmap;
    f->mark = (uint16_t)v->cp[mark];
    for (uint32_t c = 0; c < RR__N_CP; c += 64) {
        /* Blocks with one index have one answer, and most follow their like. */
        if (c == 0 || (c % 128 == 0 && rr__uc_stage1[c >> 7] != rr__uc_stage1[(c >> 7) - 1]))
            plain = is_plain(c);
        if (c < 0xd800 || c >= 0xe000)
            fill(f, v, cp, c, mark, plain);
    }
    for (size_t i = 0; i < added->n; i++)
        if (added->token[i].content.len) /* checked by rr__added_build */
            cp[rr__utf8_get((const uint8_t *)added->token[i].content.ptr)] |= FIRST | SLOW;
    f->cp = cp;
}

void rr__fused_close(rr__fused *f) {
    free(f->cp);
    f->cp = NULL;
}

/* The run over one text. */
typedef struct run {
    const rr__fused   *f;
    const rr__unigram *m;
    const rr__vocab   *v;
    const rr__added   *added;
    rr__scratch       *word; /* labels of the word so far, the mark first */
    rr__tokens        *out;
    rr_status          st;
    rr_error          *err;
} run;

/* End the word, if there is more of it than the mark; start the next. */
static int end_word(run *r) {
    if (r->word->n_label == 1)
        return 1;
    r->st = rr__unigram_encode(r->m, r->v, r->word, r->out, r->err);
    r->word->n_label = 1;
    return r->st == RR_OK;
}

/* Append one code point of normalized text; 0: give up or fail. */
static int put(run *r, uint32_t c) {
    if (c == ' ')
        return end_word(r);
    if (r->f->cp[c] & RARE || !rr__scratch_room(r->word, 1))
        return 0;
    r->word->label[r->word->n_label++] = (uint16_t)r->v->cp[c];
    return 1;
}

static int put_text(run *r, const uint8_t *s, size_t n) {
    for (size_t i = 0; i < n; i += (size_t)rr__utf8_len(s[i]))
        if (!put(r, rr__utf8_get(s + i)))
            return 0;
    return 1;
}

/* The cluster at p by the charsmap's rules; NULL: give up or fail. */
static const uint8_t *cluster(run *r, const uint8_t *p, const uint8_t *end) {
    const uint8_t *stop = rr__grapheme_end(p, end), *found;
    size_t         n;

    for (const uint8_t *q = p; q < stop; q += rr__utf8_len(*q))
        if (r->f->cp[rr__utf8_get(q)] & FIRST && rr__added_at(r->added, q, end))
            return NULL;
    if (stop - p < 6 && rr__charsmap_find(r->f->charsmap, p, (size_t)(stop - p), &found, &n))
        return put_text(r, found, n) ? stop : NULL;
    for (; p < stop; p += rr__utf8_len(*p)) {
        size_t len = (size_t)rr__utf8_len(*p);

        if (!(rr__charsmap_find(r->f->charsmap, p, len, &found, &n) ? put_text(r, found, n)
                                                                    : put_text(r, p, len)))
            return NULL;
    }
    return stop;
}

/* Entry and length of the character at p; 0 at the end, -1 where the bytes are invalid. */
static inline int look(const uint32_t *cp, const uint8_t *p, const uint8_t *end, uint32_t *e) {
    int n = 1;

    *e = 0;
    if (p == end)
        return 0;
    if (*p < 0x80) {
        *e = cp[*p];
        return 1;
    }
    n = rr__utf8_check(p, end);
    if (n < 0)
        return -1;
    *e = cp[rr__utf8_get(p)];
    return n;
}

int rr__fused_encode(const rr__fused *f, const rr__unigram *m, const rr__vocab *v,
                     const rr__added *added, rr_str text, rr__scratch *scratch, rr__tokens *out,
                     rr_status *st, rr_error *err) {
    const uint8_t  *p = (const uint8_t *)text.ptr, *end = p + text.len;
    const uint32_t *cp = f->cp;
    run             r = {f, m, v, added, scratch, out, RR_OK, err};
    uint32_t        e, next;
    int             n, n_next;

    scratch->n_label = 0;
    if (!rr__scratch_room(scratch, 256))
        return 0;
    scratch->label[scratch->n_label++] = f->mark;
    n = look(cp, p, end, &e);
    while (n > 0) {
        n_next = look(cp, p + n, end, &next);
        if (!(e & SLOW) && !(next & ATTACH)) {
            if (e & SPACE) {
                if (!end_word(&r))
                    goto stop;
            } else {
                if (scratch->n_label == scratch->cap_label && !rr__scratch_room(scratch, 1))
                    goto stop;
                scratch->label[scratch->n_label++] = (uint16_t)e;
            }
            p += n;
            n = n_next;
            e = next;
            continue;
        }
        if (!(e & (SLOW | SPACE)) && e & DEAD && next & MARK) {
            /* A base no key begins with, and marks: char by char, the base first. */
            const uint8_t *q = p + n;
            uint32_t       after = next;
            int            k = n_next;

            while (k > 0 && after & MARK && !(after & (SPACE | FIRST)) && after & 0xffff) {
                q += k;
                k = look(cp, q, end, &after);
            }
            if (k >= 0 && !(after & ATTACH)) {
                if (!rr__scratch_room(scratch, (size_t)(q - p)))
                    goto stop;
                for (; p < q; p += rr__utf8_len(*p))
                    scratch->label[scratch->n_label++] = (uint16_t)cp[rr__utf8_get(p)];
                n = k;
                e = after;
                continue;
            }
        }
        p = cluster(&r, p, end);
        if (!p)
            goto stop;
        n = look(cp, p, end, &e);
    }
    if (n == 0 && end_word(&r))
        return 1;
stop:
    *st = r.st;
    return r.st ? -1 : 0;
}
