/* plan.c - how much of everything: the shape of a batch, and an instance's memory for the largest.
 * No call to the device, so that it is tested without one. Called by instance.c and weights.c. */
#include "backend/cuda/cuda.h"

enum { ALIGN = 256 };

/* ---- shapes -------------------------------------------------------------------- */

/* Tokens that qkv has room for. It is two thirds of all memory, and nothing but attention needs it
 * whole; so it has room for 7/8 of the tokens, and of a batch that has more the parts follow each
 * other. All where graphs run, whose cut would have to be the same for every batch; and not so few
 * that there might be no cut between two long sequences that leaves both parts short enough. */
int32_t rr__cu_wide_rows(const rr__cu_weights *w) {
    const int32_t n = w->opts.max_batch_tokens, longest = w->m->max_length;
    int32_t       spare = n / 8;

    if (n < 2 * RR__CU_LARGEST_GRAPH || longest >= n)
        return n;
    if (spare > (n - longest) / 2)
        spare = (n - longest) / 2;
    return n - spare;
}

rr__cu_shape rr__cu_whole(const rr__cu_weights *w, int32_t n, int32_t s) {
    const int32_t n_tile = n / w->tile_rows + s;

    return (rr__cu_shape){n, s, n_tile, n, s, n_tile};
}

rr__cu_shape rr__cu_capacity(const rr__cu_weights *w) {
    const int32_t n = w->opts.max_batch_tokens, s = w->opts.max_batch_seqs;

    return rr__cu_whole(w, n, s < n ? s : n);
}

static int32_t count_tiles(const rr__cu_weights *w, const rr__batch *b, int32_t from, int32_t to) {
    int32_t n = 0;

    for (int32_t i = from; i < to; i++)
        n += (b->cu[i + 1] - b->cu[i] + w->tile_rows - 1) / w->tile_rows;
    return n;
}

/* The smallest that holds the batch as it is; if it is cut, then where the parts are most alike. */
rr__cu_shape rr__cu_shape_of(const rr__cu_weights *w, const rr__batch *b) {
    rr__cu_shape shape = {.n = b->n_tok, .s = b->n_seq, .s1 = b->n_seq};

    if (b->n_tok > rr__cu_wide_rows(w)) {
        shape.s1 = 0;
        while (b->cu[shape.s1 + 1] <= b->n_tok / 2)
            shape.s1++;
        if (b->cu[shape.s1] + b->cu[shape.s1 + 1] < b->n_tok)
            shape.s1++;
    }
    shape.n1 = b->cu[shape.s1];
    shape.n_tile1 = count_tiles(w, b, 0, shape.s1);
    shape.n_tile = shape.n_tile1 + count_tiles(w, b, shape.s1, b->n_seq);
    return shape;
}

rr__cu_staging rr__cu_staging_at(char *base, const rr__cu_shape *shape) {
    const size_t   n = (size_t)shape->n, s = (size_t)shape->s;
    rr__cu_staging g = {.tok = (int32_t *)base};

    g.pos = g.tok + n;
    g.tile = (rr__cu_tile *)(g.pos + n);
    g.cu = (int32_t *)(g.tile + shape->n_tile);
    g.bytes = (2 * n + s + 2) * sizeof(int32_t) + (size_t)shape->n_tile * sizeof(rr__cu_tile);
    return g;
}

/* ---- memory ------------------------------------------------------------------ */

static void *place(char *base, size_t *used, size_t bytes) {
    char *p = base ? base + *used : NULL;

    *used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

size_t rr__cu_plan(rr__cu_instance *r, const rr__cu_weights *w, char *base) {
    const rr__cu_shape c = rr__cu_capacity(w);
    const size_t       n = (size_t)c.n, s = (size_t)c.s, e = rr__cu_type_size(w->act);
    const size_t       d = (size_t)w->m->d_model, f = (size_t)w->m->d_ff;
    const int          quantised = rr__cu_is_8bit(w->type);
    const size_t       mid = f * w->mid_size;
    size_t             wide = (size_t)rr__cu_wide_rows(w) * 3 * d * e, used = 0, chunk;

    if (wide < 128 * mid)
        wide = 128 * mid;
    chunk = wide / mid / 128 * 128;
    r->chunk = (int32_t)chunk;
    r->x = place(base, &used, (n + 1) * d * e);
    r->x8 = quantised ? place(base, &used, (n + 1) * d) : NULL;
    r->x_scale = quantised ? place(base, &used, (n + 1) * sizeof(float)) : NULL;
    r->wide = place(base, &used, wide);
    r->mid_scale = w->type == RR__CU_S8 ? place(base, &used, chunk * sizeof(float)) : NULL;
    r->x_note = w->notes ? place(base, &used, (n + 1) * sizeof(rr__cu_note)) : NULL;
    r->mid_note = w->notes ? place(base, &used, chunk * sizeof(rr__cu_note)) : NULL;
    r->first = place(base, &used, s * d * e);
    r->first8 = w->type == RR__CU_E4M3 ? place(base, &used, s * d) : NULL;
    r->first_scale = w->type == RR__CU_E4M3 ? place(base, &used, s * sizeof(float)) : NULL;
    r->first_q = place(base, &used, s * d * e);
    r->halves = w->opts.fast && w->sm90 && w->type != RR__CU_S8
                    ? place(base, &used, RR__CU_SPLIT_SIZE * sizeof(float))
                    : NULL;
    r->head = r->wide; /* when mid is read */
    r->logits = place(base, &used, s * sizeof(float));
    for (int i = 0; i < RR__CU_SLOTS; i++)
        r->slot[i].stage_dev = place(base, &used, rr__cu_staging_at(NULL, &c).bytes);
    return used;
}

size_t rr__cu_instance_bytes(const rr__cu_weights *w) {
    rr__cu_instance r;

    return rr__cu_plan(&r, w, NULL);
}
