/* charsmap.c - see charsmap.h. */
#include "text/charsmap.h"

#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

static uint32_t le32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Fields of a unit of the double array. */
static int has_leaf(uint32_t u) {
    return u >> 8 & 1;
}
static uint32_t value_of(uint32_t u) {
    return u & 0x7fffffff;
}
static uint32_t label_of(uint32_t u) {
    return u & 0x800000ff;
}
static uint32_t offset_of(uint32_t u) {
    return (u >> 10) << ((u & 1u << 9) >> 6);
}

rr_status rr__charsmap_open(const void *blob, size_t size, rr__charsmap *out, rr_error *err) {
    const uint8_t *p = blob, *text;
    rr__charsmap   m = {0};
    uint32_t       trie;

    if (size < 8 || size > UINT32_MAX)
        return rr__fail(err, RR_E_FORMAT, "charsmap: %zu bytes is no character map", size);
    trie = le32(p);
    if (trie < 4 || trie > size - 4)
        return rr__fail(err, RR_E_FORMAT, "charsmap: trie of %u bytes in a map of %zu", trie, size);
    m.n_unit = trie / 4;
    text = p + 4 + (size_t)m.n_unit * 4;
    m.n_text = (uint32_t)(p + size - text);
    for (const uint8_t *q = text, *end = text + m.n_text; q < end;) {
        int n = rr__utf8_check(q, end);

        if (n < 0)
            return rr__fail(err, RR_E_FORMAT, "charsmap: replacements are not UTF-8");
        q += n;
    }
    m.unit = malloc((size_t)m.n_unit * sizeof *m.unit);
    m.text = malloc((size_t)m.n_text + 1);
    if (!m.unit || !m.text) {
        rr__charsmap_close(&m);
        return rr__fail(err, RR_E_NOMEM, "charsmap: out of memory");
    }
    for (uint32_t i = 0; i < m.n_unit; i++)
        m.unit[i] = le32(p + 4 + (size_t)i * 4);
    memcpy(m.text, text, m.n_text);
    m.text[m.n_text] = 0;
    *out = m;
    return RR_OK;
}

void rr__charsmap_close(rr__charsmap *m) {
    free(m->unit);
    free(m->text);
    *m = (rr__charsmap){0};
}

/* Step from the node at `at` over one byte; 0 when there is no such child. */
static int step(const rr__charsmap *m, uint32_t *at, uint8_t c, uint32_t *unit) {
    uint32_t pos = *at ^ c, u;

    if (pos >= m->n_unit)
        return 0;
    u = m->unit[pos];
    if (label_of(u) != c)
        return 0;
    *at = pos ^ offset_of(u);
    *unit = u;
    return 1;
}

int rr__charsmap_find(const rr__charsmap *m, const uint8_t *key, size_t len, const uint8_t **out,
                      size_t *n_out) {
    uint32_t at = offset_of(m->unit[0]), u, v;

    for (size_t i = 0; i < len && key[i]; i++) {
        if (!step(m, &at, key[i], &u))
            return 0;
        if (!has_leaf(u))
            continue;
        if (at >= m->n_unit)
            return 0;
        v = value_of(m->unit[at]);
        /* A value inside a character or behind the end, which the reference would crash on. */
        if (v > m->n_text || (m->text[v] & 0xc0) == 0x80)
            return 0;
        *out = m->text + v;
        *n_out = strlen((const char *)m->text + v);
        return 1;
    }
    return 0;
}

int rr__charsmap_kind(const rr__charsmap *m, uint32_t c) {
    uint8_t  key[4];
    int      n = rr__utf8_put(key, c);
    uint32_t at = offset_of(m->unit[0]), u = 0;

    if (c == 0)
        return RR__CHARSMAP_NONE;
    for (int i = 0; i < n; i++) {
        if (!step(m, &at, key[i], &u))
            return RR__CHARSMAP_NONE;
        if (has_leaf(u))
            return RR__CHARSMAP_HIT;
    }
    return RR__CHARSMAP_MORE;
}

int rr__charsmap_any(const rr__charsmap *m, uint32_t c) {
    uint8_t  key[4];
    int      n = rr__utf8_put(key, c); /* the 64 differ in the last byte only */
    uint32_t at = offset_of(m->unit[0]), u = 0;

    for (int i = 0; i < n - 1; i++) {
        if (!step(m, &at, key[i], &u))
            return 0;
        if (has_leaf(u))
            return 1;
    }
    return 1;
}
