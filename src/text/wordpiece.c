/* wordpiece.c - see model.h. The longest piece that begins a word is the last one the trie meets. */
#include "text/model.h"

rr_status rr__wordpiece_encode(const rr__wordpiece *m, const rr__vocab *v, rr__scratch *scratch,
                               rr__tokens *out, rr_error *err) {
    const uint16_t *label = scratch->label;
    size_t          n = scratch->n_label, first = out->n, i = 0;

    if (n == 0)
        return RR_OK;
    if (!rr__tokens_room(out, n))
        return rr__fail(err, RR_E_NOMEM, "tokenizer: out of memory");
    while (i < n && (int64_t)n <= m->max_chars) {
        uint32_t base = i ? m->inner : v->root;
        size_t   best = 0;
        int32_t  id = -1;

        if (i && !m->has_inner)
            break;
        for (size_t j = i; j < n; j++) {
            uint64_t u = v->unit[base ^ label[j]];

            if (rr__unit_label(u) != label[j])
                break;
            base = rr__unit_base(u);
            if (rr__unit_id(u) != RR__NO_ID) {
                best = j + 1;
                id = (int32_t)rr__unit_id(u);
            }
        }
        if (id < 0)
            break;
        if (out->want_chars)
            out->chars[out->n] = (uint32_t)(best - i);
        out->id[out->n++] = id;
        i = best;
    }
    if (i == n)
        return RR_OK;
    if (m->unk_id < 0)
        return rr__fail(err, RR_E_FORMAT, "unknown word, but the vocabulary has no unk_token");
    out->n = first;
    if (out->want_chars)
        out->chars[out->n] = (uint32_t)n;
    out->id[out->n++] = m->unk_id;
    return RR_OK;
}
