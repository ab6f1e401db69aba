/* stage.c - a batch to what one copy takes to the device: ids, rows of the position table,
 * offsets, and the tiles attention works on. Called by instance.c. */
#include "backend/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

static int longest_first(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* Query tiles of sequences from .. to - 1, those of the longest first, so that the last blocks to
 * run are short. Returns their number. */
static int32_t stage_tiles(const rr__cu_weights *w, const rr__batch *b, int32_t from, int32_t to,
                           rr__cu_tile *tile, int64_t *order) {
    const int32_t count = to - from;
    int32_t       n = 0;

    for (int32_t i = 0; i < count; i++)
        order[i] = (int64_t)(b->cu[from + i + 1] - b->cu[from + i]) << 32 | i;
    qsort(order, (size_t)count, sizeof *order, longest_first);
    for (int32_t i = 0; i < count; i++)
        for (int32_t row = 0; row < (int32_t)(order[i] >> 32); row += w->tile_rows)
            tile[n++] = (rr__cu_tile){(int32_t)(order[i] & INT32_MAX), row};
    return n;
}

/* Spare rows are token 0 at position 0, spare sequences are empty and begin at the spare row,
 * spare tiles are nothing. Only a shape of one part has any. */
void rr__cu_stage(const rr__cu_weights *w, const rr__batch *b, const rr__cu_shape *shape,
                  char *base, int64_t *order) {
    const rr__model *m = w->m;
    rr__cu_staging   g = rr__cu_staging_at(base, shape);
    const size_t     spare = (size_t)(shape->n - b->n_tok) * sizeof(int32_t);
    const int32_t    s1 = shape->s1 < b->n_seq ? shape->s1 : b->n_seq;
    int32_t          n;

    memcpy(g.tok, b->tok, (size_t)b->n_tok * sizeof *g.tok);
    memset(g.tok + b->n_tok, 0, spare);
    memset(g.pos + b->n_tok, 0, spare);
    for (int32_t i = 0; i < b->n_seq; i++) {
        int32_t first = b->cu[i], len = b->cu[i + 1] - first;

        rr__model_positions(m, b->tok + first, len, g.pos + first);
        for (int32_t t = m->n_type > 1 && b->seg ? b->seg[i] : len; t < len; t++)
            g.pos[first + t] |= RR__CU_TYPE1;
    }
    for (int32_t i = 0; i <= shape->s1; i++)
        g.cu[i] = i <= s1 ? b->cu[i] : b->n_tok;
    for (int32_t i = shape->s1; i <= shape->s; i++)
        g.cu[i + 1] = i <= b->n_seq ? b->cu[i] - b->cu[s1] : 0;
    n = stage_tiles(w, b, 0, s1, g.tile, order);
    n += stage_tiles(w, b, s1, b->n_seq, g.tile + n, order);
    for (; n < shape->n_tile; n++)
        g.tile[n] = (rr__cu_tile){-1, 0};
}
