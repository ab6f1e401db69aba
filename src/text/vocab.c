/* vocab.c - see vocab.h. Building takes one pass to label code points by how often pieces use them,
 * a sort of the pieces by labels, and a walk over the sorted list that places the children of each
 * node where they fit. */
#include "text/vocab.h"

#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { NO_LABEL = 0xffff, BLOCK = 1 << 16, MAX_UNIT = 1 << 24 };

void rr__vocab_close(rr__vocab *v) {
    free(v->pool);
    free(v->at);
    free(v->score);
    free(v->unit);
    free(v->cp);
    *v = (rr__vocab){0};
}

static rr_status oom(rr_error *err) {
    return rr__fail(err, RR_E_NOMEM, "vocabulary: out of memory");
}

/* ---- texts by id ----------------------------------------------------------- */

static rr_status copy_texts(const rr__piece *pieces, size_t n, rr__vocab *v, rr_error *err) {
    size_t total = 0;

    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = (const uint8_t *)pieces[i].text.ptr, *end = p + pieces[i].text.len;

        total += pieces[i].text.len;
        for (int k; p < end; p += k) {
            k = rr__utf8_check(p, end);
            if (k < 0)
                return rr__fail(err, RR_E_FORMAT, "vocabulary: piece %d is not UTF-8",
                                pieces[i].id);
        }
    }
    if (total > UINT32_MAX / 2)
        return rr__fail(err, RR_E_FORMAT, "vocabulary: pieces take %zu bytes", total);
    v->pool = malloc(total + 1);
    v->at = calloc((size_t)v->n + 1, sizeof *v->at);
    if (!v->pool || !v->at)
        return oom(err);
    for (size_t i = 0; i < n; i++)
        v->at[pieces[i].id + 1] = (uint32_t)pieces[i].text.len;
    for (int32_t i = 0; i < v->n; i++)
        v->at[i + 1] += v->at[i];
    for (size_t i = 0; i < n; i++)
        if (v->at[pieces[i].id + 1] - v->at[pieces[i].id] == pieces[i].text.len &&
            pieces[i].text.len > 0)
            memcpy(v->pool + v->at[pieces[i].id], pieces[i].text.ptr, pieces[i].text.len);
    return RR_OK;
}

/* ---- labels ---------------------------------------------------------------- */

static int by_count(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* Number the code points, the commonest first, so that children lie close together. */
static rr_status label_chars(const rr__piece *pieces, size_t n, rr__vocab *v, size_t *n_label,
                             rr_error *err) {
    size_t    k = 0, max = 0;
    uint64_t *order = NULL;

    v->cp = calloc(RR__N_CP, sizeof *v->cp); /* untouched pages of it cost nothing */
    if (!v->cp)
        return oom(err);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = (const uint8_t *)pieces[i].text.ptr, *end = p + pieces[i].text.len;

        for (; p < end; p += rr__utf8_len(*p)) {
            uint32_t c = rr__utf8_get(p);

            if (v->cp[c]++ == 0)
                k++;
            max = c > max ? c : max;
        }
    }
    if (k >= NO_LABEL)
        return rr__fail(err, RR_E_UNSUPPORTED, "vocabulary: %zu different characters, at most %d",
                        k, NO_LABEL - 1);
    order = malloc((k + 1) * sizeof *order);
    if (!order)
        return oom(err);
    k = 0;
    for (uint32_t c = 0; c <= max; c++)
        if (v->cp[c])
            order[k++] = (uint64_t)v->cp[c] << 32 | c;
    qsort(order, k, sizeof *order, by_count);
    for (size_t i = 0; i < k; i++)
        v->cp[(uint32_t)order[i]] = (uint32_t)i + 1;
    free(order);
    *n_label = k;
    return RR_OK;
}

/* ---- sorting --------------------------------------------------------------- */

/* Four labels of a piece at a time, most significant first, 0 behind its end. */
typedef struct item {
    uint64_t key;
    uint32_t start, len; /* its labels in the pool of labels */
    int32_t  id;
    uint32_t order; /* place in the list, to settle equal texts */
} item;

static uint64_t key_at(const uint16_t *labels, const item *it, uint32_t depth) {
    uint64_t key = 0;

    for (uint32_t k = depth; k < depth + 4; k++)
        key = key << 16 | (k < it->len ? labels[it->start + k] : 0);
    return key;
}

static int by_key(const void *a, const void *b) {
    const item *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* A range of items equal in the labels before `depth`. */
typedef struct todo {
    uint32_t lo, hi, depth;
} todo;

typedef struct stack {
    todo  *t;
    size_t n, cap;
} stack;

static int stack_push(stack *s, uint32_t lo, uint32_t hi, uint32_t depth) {
    if (s->n == s->cap) {
        todo *t = realloc(s->t, (s->cap * 2 + 64) * sizeof *t);

        if (!t)
            return 0;
        s->t = t;
        s->cap = s->cap * 2 + 64;
    }
    s->t[s->n++] = (todo){lo, hi, depth};
    return 1;
}

/* Order items [lo, hi) by key: radix sort for many, qsort for few. */
static void sort_keys(item *items, item *tmp, uint32_t n) {
    if (n < 4096) {
        qsort(items, n, sizeof *items, by_key);
        return;
    }
    for (int shift = 0; shift < 64; shift += 16) {
        uint32_t *at = calloc(65537, sizeof *at);

        if (!at) {
            qsort(items, n, sizeof *items, by_key);
            return;
        }
        for (uint32_t i = 0; i < n; i++)
            at[(items[i].key >> shift & 0xffff) + 1]++;
        for (uint32_t k = 0; k < 65536; k++)
            at[k + 1] += at[k];
        for (uint32_t i = 0; i < n; i++)
            tmp[at[items[i].key >> shift & 0xffff]++] = items[i];
        memcpy(items, tmp, n * sizeof *items);
        free(at);
    }
}

static int sort_items(item *items, uint32_t n, const uint16_t *labels) {
    item *tmp = malloc(((size_t)n + 1) * sizeof *tmp);
    stack s = {0};
    int   ok = tmp && stack_push(&s, 0, n, 0);

    while (ok && s.n) {
        todo t = s.t[--s.n];

        for (uint32_t i = t.lo; i < t.hi; i++)
            items[i].key = key_at(labels, &items[i], t.depth);
        sort_keys(items + t.lo, tmp, t.hi - t.lo);
        for (uint32_t i = t.lo, k; ok && i < t.hi; i = k) {
            for (k = i + 1; k < t.hi && items[k].key == items[i].key;)
                k++;
            if (k - i > 1 && items[i].key & 0xffff)
                ok = stack_push(&s, i, k, t.depth + 4);
        }
    }
    free(tmp);
    free(s.t);
    return ok;
}

/* ---- the double array ------------------------------------------------------- */

typedef struct builder {
    uint64_t *unit;
    uint64_t *used, *based; /* bits: slot is taken; some node has this base */
    uint32_t  n;            /* slots, a multiple of BLOCK */
    uint32_t  first_free;   /* no free slot before this one */
} builder;

static int get_bit(const uint64_t *bits, uint32_t i) {
    return bits[i >> 6] >> (i & 63) & 1;
}

static void set_bit(uint64_t *bits, uint32_t i) {
    bits[i >> 6] |= (uint64_t)1 << (i & 63);
}

static int grow(builder *b) {
    uint32_t n = b->n + BLOCK;
    void    *p;

    if (n > MAX_UNIT)
        return 0;
    if (!(p = realloc(b->unit, n * sizeof *b->unit)))
        return 0;
    b->unit = p;
    if (!(p = realloc(b->used, n / 8)))
        return 0;
    b->used = p;
    if (!(p = realloc(b->based, n / 8)))
        return 0;
    b->based = p;
    for (uint32_t i = b->n; i < n; i++)
        b->unit[i] = (uint64_t)NO_LABEL << 24 | RR__NO_ID;
    memset(b->used + b->n / 64, 0, BLOCK / 8);
    memset(b->based + b->n / 64, 0, BLOCK / 8);
    b->n = n;
    return 1;
}

/* First free slot at or behind i; the array ends at b->n. */
static uint32_t next_free(const builder *b, uint32_t i) {
    uint32_t w = i >> 6;
    uint64_t bits;

    if (i >= b->n)
        return b->n;
    bits = ~b->used[w] & ~(uint64_t)0 << (i & 63);
    while (!bits) {
        if (++w == b->n >> 6)
            return b->n;
        bits = ~b->used[w];
    }
    return (w << 6) + (uint32_t)__builtin_ctzll(bits);
}

/* A base no other node has, under which all n labels fall on free slots. Few tries near the front,
 * so that the array stays dense; a node with many children soon goes to the open end. */
static int find_base(builder *b, const uint16_t *label, uint32_t n, uint32_t *base) {
    uint32_t slot = b->first_free, tries = 0;

    for (;;) {
        uint32_t k = 0, cand;

        slot = next_free(b, slot);
        if (slot >= b->n) {
            if (!grow(b))
                return 0;
            continue;
        }
        cand = slot ^ label[0];
        if (!get_bit(b->based, cand)) {
            while (k < n && !get_bit(b->used, cand ^ label[k]))
                k++;
            if (k == n) {
                *base = cand;
                return 1;
            }
        }
        slot++;
        if (++tries == 256) { /* this stretch is crowded: leave it to smaller nodes for good */
            if (n == 1)
                b->first_free = slot;
            tries = 0;
            slot = slot + 64 * n;
        }
    }
}

/* Place the children of the node that items [lo, hi) share, equal in their first `depth` labels. */
static int place(builder *b, const item *items, const uint16_t *labels, uint16_t *child, todo t,
                 uint32_t *base, stack *s) {
    uint32_t n = 0;

    for (uint32_t i = t.lo; i < t.hi; i++) {
        uint16_t l = labels[items[i].start + t.depth];

        if (n == 0 || child[n - 1] != l)
            child[n++] = l;
    }
    if (!find_base(b, child, n, base))
        return 0;
    set_bit(b->based, *base);
    for (uint32_t i = t.lo, k; i < t.hi; i = k) {
        uint16_t l = labels[items[i].start + t.depth];
        uint32_t at = *base ^ l, id = RR__NO_ID;

        for (k = i; k < t.hi && labels[items[k].start + t.depth] == l;)
            k++;
        set_bit(b->used, at);
        while (i < k && items[i].len == t.depth + 1)
            id = (uint32_t)items[i++].id; /* of equal texts the last wins */
        b->unit[at] = (uint64_t)l << 24 | id;
        if (i < k) { /* the child's own children: its slot is noted in place of lo */
            if (!stack_push(s, i, k, t.depth + 1) || !stack_push(s, at, 0, 0))
                return 0;
        }
    }
    b->first_free = next_free(b, b->first_free);
    return 1;
}

static rr_status build_trie(const item *items, uint32_t n, const uint16_t *labels, size_t n_label,
                            rr__vocab *v, rr_error *err) {
    builder   b = {0};
    stack     s = {0};
    uint16_t *child = malloc((n_label + 1) * sizeof *child);
    uint32_t  first = 0, base;
    int       ok = child && grow(&b);

    /* Base 0 is nobody's, so it can stand for "no children": a slot is base ^ label, and slot l
     * bears label l only under base 0. */
    if (ok)
        set_bit(b.based, 0);
    while (first < n && items[first].len == 0)
        first++;
    if (ok && first < n) {
        ok = place(&b, items, labels, child, (todo){first, n, 0}, &v->root, &s);
        while (ok && s.n) {
            uint32_t at = s.t[s.n - 1].lo;
            todo     t = s.t[s.n - 2];

            s.n -= 2;
            ok = place(&b, items, labels, child, t, &base, &s);
            if (ok)
                b.unit[at] |= (uint64_t)base << 40;
        }
    }
    free(child);
    free(s.t);
    free(b.used);
    free(b.based);
    v->unit = b.unit;
    v->n_unit = b.n;
    if (ok)
        return RR_OK;
    if (b.n >= MAX_UNIT - BLOCK)
        return rr__fail(err, RR_E_UNSUPPORTED, "vocabulary: the trie is too large");
    return oom(err);
}

rr_status rr__vocab_build(rr__piece *pieces, size_t n, int32_t n_id, int scores, rr__vocab *out,
                          rr_error *err) {
    rr__vocab v = {.n = n_id};
    size_t    n_label = 0, total = 0;
    uint16_t *labels = NULL;
    item     *items = NULL;
    rr_status st;

    if (n_id < 0 || n_id >= RR__NO_ID || n > RR__NO_ID)
        return rr__fail(err, RR_E_UNSUPPORTED, "vocabulary: %d ids are too many", n_id);
    for (size_t i = 0; i < n; i++)
        if (pieces[i].id < 0 || pieces[i].id >= n_id)
            return rr__fail(err, RR_E_FORMAT, "vocabulary: id %d of %d", pieces[i].id, n_id);
    if ((st = copy_texts(pieces, n, &v, err)) || (st = label_chars(pieces, n, &v, &n_label, err)))
        goto done;
    for (size_t i = 0; i < n; i++)
        total += pieces[i].text.len;
    labels = malloc((total + 1) * sizeof *labels);
    items = malloc((n + 1) * sizeof *items);
    v.score = scores ? calloc((size_t)n_id + 1, sizeof *v.score) : NULL;
    if (!labels || !items || (scores && !v.score)) {
        st = oom(err);
        goto done;
    }
    total = 0;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = (const uint8_t *)pieces[i].text.ptr, *end = p + pieces[i].text.len;

        items[i] = (item){.start = (uint32_t)total, .id = pieces[i].id, .order = (uint32_t)i};
        for (; p < end; p += rr__utf8_len(*p))
            labels[total++] = (uint16_t)v.cp[rr__utf8_get(p)];
        items[i].len = (uint32_t)total - items[i].start;
        if (scores)
            v.score[pieces[i].id] = pieces[i].score;
    }
    if (!sort_items(items, (uint32_t)n, labels)) {
        st = oom(err);
        goto done;
    }
    st = build_trie(items, (uint32_t)n, labels, n_label, &v, err);
done:
    free(labels);
    free(items);
    if (st)
        rr__vocab_close(&v);
    else
        *out = v;
    return st;
}

/* ---- look-ups --------------------------------------------------------------- */

/* The unit a text leads to; 0 if it leads nowhere or is empty. */
static int follow(const rr__vocab *v, const char *text, size_t len, uint64_t *unit) {
    const uint8_t *p = (const uint8_t *)text, *end;
    uint32_t       base = v->root, label;

    if (len == 0)
        return 0;
    end = p + len;
    for (int n; p < end; p += n) {
        n = rr__utf8_check(p, end);
        if (n < 0)
            return 0;
        label = v->cp[rr__utf8_get(p)];
        *unit = v->unit[base ^ label];
        if (rr__unit_label(*unit) != label)
            return 0;
        base = rr__unit_base(*unit);
    }
    return 1;
}

int32_t rr__vocab_find(const rr__vocab *v, const char *text, size_t len) {
    uint64_t u;

    return follow(v, text, len, &u) && rr__unit_id(u) != RR__NO_ID ? (int32_t)rr__unit_id(u) : -1;
}

int rr__vocab_walk(const rr__vocab *v, const char *text, size_t len, uint32_t *base) {
    uint64_t u;

    if (!follow(v, text, len, &u) || rr__unit_base(u) == 0)
        return 0;
    *base = rr__unit_base(u);
    return 1;
}

rr_str rr__vocab_text(const rr__vocab *v, int32_t id) {
    if (id < 0 || id >= v->n)
        return (rr_str){NULL, 0};
    return (rr_str){v->pool + v->at[id], v->at[id + 1] - v->at[id]};
}
