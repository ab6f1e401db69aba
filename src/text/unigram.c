/* unigram.c - see model.h. One forward pass; a cell is 16 bytes, and cells are given back wherever
 * no piece crosses a position, so that a text without spaces needs no memory of its own length. */
#include "text/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    FLUSH_AT = 1024, /* characters after which a position no piece crosses ends a stretch */
    SHORT = 128      /* characters of a word that is searched in one go, on the stack     */
};

void rr__tokens_free(rr__tokens *t) {
    free(t->id);
    free(t->chars);
    *t = (rr__tokens){0};
}

int rr__tokens_room(rr__tokens *t, size_t n) {
    size_t cap;
    void  *p;

    if (t->cap - t->n >= n)
        return 1;
    if (t->oom || n > SIZE_MAX / 16 - t->n)
        goto fail;
    cap = t->n + n + t->cap / 2 + 64;
    if (!(p = realloc(t->id, cap * sizeof *t->id)))
        goto fail;
    t->id = p;
    if (t->want_chars) {
        if (!(p = realloc(t->chars, cap * sizeof *t->chars)))
            goto fail;
        t->chars = p;
    }
    t->cap = cap;
    return 1;
fail:
    t->oom = 1;
    return 0;
}

void rr__scratch_free(rr__scratch *s) {
    free(s->label);
    free(s->cell);
    *s = (rr__scratch){0};
}

int rr__scratch_room(rr__scratch *s, size_t n) {
    size_t    cap;
    uint16_t *p;

    if (s->cap_label - s->n_label >= n)
        return 1;
    if (n > SIZE_MAX / 8 - s->n_label)
        return 0;
    cap = s->n_label + n + s->cap_label / 2 + 256;
    p = realloc(s->label, cap * sizeof *p);
    if (!p)
        return 0;
    s->label = p;
    s->cap_label = cap;
    return 1;
}

static int room_cells(rr__scratch *s, size_t n) {
    size_t    cap = n + n / 2 + 256;
    rr__cell *p;

    if (s->cap_cell >= n)
        return 1;
    p = realloc(s->cell, cap * sizeof *p);
    if (!p)
        return 0;
    s->cell = p;
    s->cap_cell = cap;
    return 1;
}

void rr__unigram_init(rr__unigram *m, const rr__vocab *v) {
    double min = INFINITY;
    char   name[8];

    for (int32_t i = 0; i < v->n; i++)
        if (v->score[i] < min)
            min = v->score[i];
    m->unk_score = min - 10.0;
    for (int i = 0; i < 256; i++) {
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        m->byte_id[i] = rr__vocab_find(v, name, 6);
    }
}

static rr_status no_unknown(rr_error *err) {
    return rr__fail(err, RR_E_FORMAT, "unknown character, but the vocabulary has no unk_id");
}

/* Append the best path to cell `end` (from cell 0 of this stretch), fusing unknowns; *unknown says
 * whether the token before was one. */
static int backtrack(const rr__unigram *m, const rr__cell *cell, uint32_t end, rr__tokens *out,
                     int *unknown) {
    size_t n = 0, first;

    for (uint32_t i = end; i > 0; i = cell[i].from)
        n++;
    if (!rr__tokens_room(out, n))
        return 0;
    first = out->n;
    for (uint32_t i = end, k = (uint32_t)n; i > 0; i = cell[i].from) {
        k--;
        out->id[first + k] = cell[i].id;
        if (out->want_chars)
            out->chars[first + k] = i - cell[i].from;
    }
    for (size_t k = first; k < first + n; k++) {
        int unk = out->id[k] == m->unk_id;

        if (unk && *unknown) {
            if (out->want_chars)
                out->chars[out->n - 1] += out->chars[k];
            continue;
        }
        *unknown = unk;
        out->id[out->n] = out->id[k];
        if (out->want_chars)
            out->chars[out->n] = out->chars[k];
        out->n++;
    }
    return 1;
}

/* The same for a short word: all cells are set up at once, and a label 0 behind the last, which
 * the trie never has, ends each walk. label[n] must be writable. */
static rr_status encode_short(const rr__unigram *m, const rr__vocab *v, uint16_t *label, uint32_t n,
                              rr__tokens *out, rr_error *err) {
    const uint64_t *unit = v->unit;
    const double   *score = v->score;
    rr__cell        cell[SHORT + 1];
    int             unknown = 0;

    label[n] = 0;
    cell[0].score = 0.0;
    for (uint32_t i = 1; i <= n; i++)
        cell[i].score = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        const uint16_t *p = label + i;
        rr__cell       *to = cell + i;
        double          here = to->score, sum;
        uint64_t        u = unit[v->root ^ *p];
        int             known = rr__unit_label(u) == *p;

        if (!known || rr__unit_id(u) == RR__NO_ID) {
            if (m->unk_id < 0)
                return no_unknown(err);
            sum = m->unk_score + here;
            if (sum > to[1].score)
                to[1] = (rr__cell){sum, m->unk_id, i};
        }
        while (known) {
            uint32_t id = rr__unit_id(u);

            to++;
            if (id != RR__NO_ID) {
                sum = score[id] + here;
                if (sum > to->score)
                    *to = (rr__cell){sum, (int32_t)id, i};
            }
            p++;
            u = unit[rr__unit_base(u) ^ *p];
            known = rr__unit_label(u) == *p;
        }
    }
    if (backtrack(m, cell, n, out, &unknown))
        return RR_OK;
    return rr__fail(err, RR_E_NOMEM, "tokenizer: out of memory");
}

rr_status rr__unigram_encode(const rr__unigram *m, const rr__vocab *v, rr__scratch *scratch,
                             rr__tokens *out, rr_error *err) {
    const uint16_t *label = scratch->label, *end = label + scratch->n_label;
    const uint64_t *unit = v->unit;
    const double   *score = v->score;
    uint32_t        i = 0, ready = 0; /* this position; cells up to `ready` are initialised */
    int             unknown = 0;

    if (label == end)
        return RR_OK;
    if (scratch->n_label <= SHORT && rr__scratch_room(scratch, 1))
        return encode_short(m, v, scratch->label, (uint32_t)scratch->n_label, out, err);
    if (!room_cells(scratch, 64))
        goto oom;
    scratch->cell[0].score = 0.0;
    for (; label < end; label++) {
        const uint16_t *p = label;
        rr__cell       *cell = scratch->cell;
        uint32_t        base = v->root, j = i;
        double          here = cell[i].score;
        int             single = 0;

        do {
            uint64_t u = unit[base ^ *p];
            uint32_t id;
            double   sum;

            if (rr__unit_label(u) != *p)
                break;
            base = rr__unit_base(u);
            j++;
            p++;
            id = rr__unit_id(u);
            if (id == RR__NO_ID)
                continue;
            if (j > ready) {
                if (!room_cells(scratch, (size_t)j + 1))
                    goto oom;
                cell = scratch->cell;
                while (ready < j)
                    cell[++ready].score = -INFINITY;
            }
            sum = score[id] + here;
            if (sum > cell[j].score)
                cell[j] = (rr__cell){sum, (int32_t)id, i};
            single |= j == i + 1;
        } while (p < end);
        if (!single) {
            double sum = m->unk_score + here;

            if (m->unk_id < 0)
                return no_unknown(err);
            if (i + 1 > ready) {
                if (!room_cells(scratch, (size_t)i + 2))
                    goto oom;
                cell = scratch->cell;
                cell[++ready].score = -INFINITY;
            }
            if (sum > cell[i + 1].score)
                cell[i + 1] = (rr__cell){sum, m->unk_id, i};
        }
        i++;
        if (i >= FLUSH_AT && ready == i) {
            if (!backtrack(m, cell, i, out, &unknown))
                goto oom;
            cell[0].score = cell[i].score;
            i = ready = 0;
        }
    }
    if (backtrack(m, scratch->cell, i, out, &unknown))
        return RR_OK;
oom:
    return rr__fail(err, RR_E_NOMEM, "tokenizer: out of memory");
}
