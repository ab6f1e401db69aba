/* pair.c - see pair.h. */
#include "text/pair.h"

#include "text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

/* How many ids of each side stay. */
typedef struct cut {
    size_t query, doc;
} cut;

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

/* HF's longest_first for a room of `room` ids: the longer side loses first, then both come to half
 * of the room, the odd id staying on the longer side. */
static cut longest_first(size_t n_query, size_t n_doc, size_t room) {
    int    swapped = n_query > n_doc;
    size_t n1 = swapped ? n_doc : n_query, n2 = swapped ? n_query : n_doc;

    if (n1 + n2 > room) {
        if (n1 > room)
            n2 = n1;
        else
            n2 = n1 > room - n1 ? n1 : room - n1;
        if (n1 + n2 > room) {
            n1 = room / 2;
            n2 = n1 + room % 2;
        }
    }
    return swapped ? (cut){n2, n1} : (cut){n1, n2};
}

static rr_status plan(const rr__tokenizer *t, size_t n_query, size_t n_doc, const rr__pair_opts *o,
                      cut *out, rr_error *err) {
    int32_t special = rr__tokenizer_pair_special(t);
    size_t  room, max_query = o->max_query > 0 ? (size_t)o->max_query : SIZE_MAX;
    size_t  query = n_query, doc = o->max_doc > 0 ? least(n_doc, (size_t)o->max_doc) : n_doc;

    if (o->max_length <= special)
        return rr__fail(err, RR_E_ARG, "max_length %d leaves no room: the template takes %d tokens",
                        o->max_length, special);
    room = (size_t)(o->max_length - special);
    switch (o->truncation) {
    case RR_TRUNC_LONGEST_FIRST:
        *out = longest_first(least(query, max_query), doc, room);
        return RR_OK;
    case RR_TRUNC_ERROR:
        if (query > max_query || n_doc > doc || query + doc > room)
            return rr__fail(err, RR_E_TOO_LARGE, "pair of %zu tokens, max_length is %d",
                            query + n_doc + (size_t)special, o->max_length);
        break;
    default:
        if (o->max_query <= 0)
            max_query = (size_t)o->max_length * 3 / 4;
        query = least(query, least(max_query, room));
        doc = least(doc, room - query);
        break;
    }
    *out = (cut){query, doc};
    return RR_OK;
}

/* Copy the n ids that stay of n_all, from the end that stays. */
static int32_t *put(int32_t *to, const int32_t *ids, size_t n_all, size_t n, rr_side side) {
    if (n)
        memcpy(to, side == RR_SIDE_LEFT ? ids + (n_all - n) : ids, n * sizeof *to);
    return to + n;
}

static int room_for(rr__ids *ids, size_t n) {
    size_t   cap;
    int32_t *p;

    if (ids->cap - ids->n >= n)
        return 1;
    if (n > SIZE_MAX / 8 - ids->n)
        return 0;
    cap = ids->n + n + ids->cap / 2 + 64;
    p = realloc(ids->id, cap * sizeof *p);
    if (!p)
        return 0;
    ids->id = p;
    ids->cap = cap;
    return 1;
}

rr_status rr__pair_splice(const rr__tokenizer *t, const int32_t *query, size_t n_query,
                          const int32_t *doc, size_t n_doc, const rr__pair_opts *o, rr__ids *out,
                          int32_t *seg, rr_doc_info *info, rr_error *err) {
    const rr__template *w = &t->pair;
    size_t              special = (size_t)rr__tokenizer_pair_special(t), total, kept;
    int32_t            *p;
    cut                 c = {0, 0};
    rr_status           st;

    if (n_query > INT32_MAX / 4 || n_doc > INT32_MAX / 4)
        return rr__fail(err, RR_E_TOO_LARGE, "pair of %zu and %zu tokens", n_query, n_doc);
    st = plan(t, n_query, n_doc, o, &c, err);
    if (st)
        return st;
    total = n_query + n_doc + special;
    kept = c.query + c.doc + special;
    if (!room_for(out, kept))
        return rr__fail(err, RR_E_NOMEM, "pair: out of memory");
    p = put(out->id + out->n, w->id[0], (size_t)w->n[0], (size_t)w->n[0], RR_SIDE_RIGHT);
    p = put(p, query, n_query, c.query, o->side);
    p = put(p, w->id[1], (size_t)w->n[1], (size_t)w->n[1], RR_SIDE_RIGHT);
    p = put(p, doc, n_doc, c.doc, o->side);
    put(p, w->id[2], (size_t)w->n[2], (size_t)w->n[2], RR_SIDE_RIGHT);
    out->n += kept;
    *seg = (int32_t)(w->mid_seg0 < 0 ? kept : (size_t)w->n[0] + c.query + (size_t)w->mid_seg0);
    if (info)
        *info = (rr_doc_info){(int32_t)total, (int32_t)kept, kept < total};
    return RR_OK;
}

rr_status rr__single_splice(const rr__tokenizer *t, const int32_t *query, size_t n_query,
                            const rr__pair_opts *o, rr__ids *out, int32_t *seg, rr_doc_info *info,
                            rr_error *err) {
    const rr__template *w = &t->single;
    size_t              special = (size_t)w->n[0] + (size_t)w->n[1], kept = n_query;
    int32_t            *p;

    if (n_query > INT32_MAX / 4)
        return rr__fail(err, RR_E_TOO_LARGE, "text of %zu tokens", n_query);
    if (n_query + special == 0 || (size_t)o->max_length <= special)
        return rr__fail(err, RR_E_ARG, "text of %zu tokens, max_length is %d", n_query,
                        o->max_length);
    if (n_query > (size_t)o->max_length - special) {
        if (o->truncation == RR_TRUNC_ERROR)
            return rr__fail(err, RR_E_TOO_LARGE, "text of %zu tokens, max_length is %d",
                            n_query + special, o->max_length);
        kept = (size_t)o->max_length - special;
    }
    if (!room_for(out, kept + special))
        return rr__fail(err, RR_E_NOMEM, "text: out of memory");
    p = put(out->id + out->n, w->id[0], (size_t)w->n[0], (size_t)w->n[0], RR_SIDE_RIGHT);
    p = put(p, query, n_query, kept, o->side);
    put(p, w->id[1], (size_t)w->n[1], (size_t)w->n[1], RR_SIDE_RIGHT);
    out->n += kept + special;
    *seg = (int32_t)(kept + special);
    *info = (rr_doc_info){(int32_t)(n_query + special), *seg, kept < n_query};
    return RR_OK;
}

rr_status rr__pair_encode(const rr__tokenizer *t, const int32_t *query, size_t n_query, rr_str doc,
                          const rr__pair_opts *o, rr__ids *out, int32_t *seg, rr_doc_info *info,
                          rr_error *err) {
    rr__ids   ids = {0};
    rr_status st = rr__tokenizer_encode(t, doc, &ids, err);

    if (!st)
        st = rr__pair_splice(t, query, n_query, ids.id, ids.n, o, out, seg, info, err);
    rr__ids_free(&ids);
    return st;
}
