/* added.c - see added.h. */
#include "text/added.h"

#include "text/unicode.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

void rr__added_close(rr__added *a) {
    for (size_t i = 0; i < a->n; i++)
        free((char *)a->token[i].content.ptr);
    free(a->token);
    rr__vocab_close(&a->raw);
    rr__vocab_close(&a->normal);
    *a = (rr__added){0};
}

static rr_status build_set(rr__added *a, int normal, const rr__norm *norm, size_t n_norm,
                           rr_error *err) {
    rr__piece *pieces = calloc(a->n + 1, sizeof *pieces);
    rr__buf   *texts = calloc(a->n + 1, sizeof *texts), tmp = {0};
    size_t     n = 0;
    rr_status  st = RR_OK;

    if (!pieces || !texts) {
        st = rr__fail(err, RR_E_NOMEM, "added tokens: out of memory");
        goto done;
    }
    for (size_t i = 0; i < a->n; i++) {
        rr__buf        raw = {.s = (uint8_t *)a->token[i].content.ptr};
        const uint8_t *p = raw.s;

        if (a->token[i].normalized != normal)
            continue;
        raw.n = a->token[i].content.len;
        for (int k; p < raw.s + raw.n; p += k)
            if ((k = rr__utf8_check(p, raw.s + raw.n)) < 0) {
                st = rr__fail(err, RR_E_FORMAT, "added tokens: token %zu is not UTF-8", i);
                goto done;
            }
        rr__buf_copy(&texts[i], &raw, 0, raw.n);
        if (normal)
            rr__normalize(norm, n_norm, &texts[i], &tmp);
        if (texts[i].oom) {
            st = rr__fail(err, RR_E_NOMEM, "added tokens: out of memory");
            goto done;
        }
        if (texts[i].n == 0)
            continue;
        pieces[n++] = (rr__piece){.text = {(char *)texts[i].s, texts[i].n}, .id = (int32_t)i};
        a->first[normal][texts[i].s[0]] = 1;
    }
    a->has[normal] = n > 0;
    if (n > 0)
        st = rr__vocab_build(pieces, n, (int32_t)a->n, 0, normal ? &a->normal : &a->raw, err);
done:
    for (size_t i = 0; texts && i < a->n; i++)
        rr__buf_free(&texts[i]);
    rr__buf_free(&tmp);
    free(texts);
    free(pieces);
    return st;
}

rr_status rr__added_build(const rr__added_token *token, size_t n, const rr__norm *norm,
                          size_t n_norm, rr__added *out, rr_error *err) {
    rr__added a = {0};
    rr_status st = RR_OK;

    a.token = calloc(n + 1, sizeof *a.token);
    if (!a.token)
        return rr__fail(err, RR_E_NOMEM, "added tokens: out of memory");
    for (; a.n < n; a.n++) {
        char *copy = malloc(token[a.n].content.len + 1);

        if (!copy) {
            st = rr__fail(err, RR_E_NOMEM, "added tokens: out of memory");
            goto done;
        }
        if (token[a.n].content.len)
            memcpy(copy, token[a.n].content.ptr, token[a.n].content.len);
        a.token[a.n] = token[a.n];
        a.token[a.n].content.ptr = copy;
    }
    st = build_set(&a, 0, norm, n_norm, err);
    if (!st)
        st = build_set(&a, 1, norm, n_norm, err);
done:
    if (st)
        rr__added_close(&a);
    else
        *out = a;
    return st;
}

/* The longest token at p: its index, and its bytes in *len; -1 if none. */
static int32_t longest(const rr__vocab *v, const uint8_t *p, const uint8_t *end, size_t *len) {
    const uint8_t *start = p;
    uint32_t       base = v->root;
    int32_t        best = -1;

    for (int n; p < end; p += n) {
        uint32_t label;
        uint64_t u;

        if ((n = rr__utf8_check(p, end)) < 0)
            break;
        label = v->cp[rr__utf8_get(p)];
        u = v->unit[base ^ label];
        if (rr__unit_label(u) != label)
            break;
        if (rr__unit_id(u) != RR__NO_ID) {
            best = (int32_t)rr__unit_id(u);
            *len = (size_t)(p + n - start);
        }
        base = rr__unit_base(u);
    }
    return best;
}

int rr__added_at(const rr__added *a, const uint8_t *p, const uint8_t *end) {
    size_t len;

    return a->has[0] && longest(&a->raw, p, end, &len) >= 0;
}

static uint32_t props_before(const uint8_t *p) {
    do
        p--;
    while ((*p & 0xc0) == 0x80);
    return rr__uc_props(rr__utf8_get(p));
}

static int stands_alone(const uint8_t *s, size_t from, size_t to, size_t start, size_t end) {
    return (from == start || !(props_before(s + from) & RR__UC_WORD)) &&
           (to == end || !(rr__uc_props(rr__utf8_get(s + to)) & RR__UC_WORD));
}

void rr__added_split(const rr__added *a, int normal, size_t start, size_t end, rr__parts *out) {
    const rr__vocab *v = normal ? &a->normal : &a->raw;
    const uint8_t   *s = out->text.s;
    size_t           done = start, len = 0;

    for (size_t i = start; a->has[normal] && i < end;) {
        const rr__added_token *t;
        int32_t                k;
        size_t                 from = i, to;

        if (!a->first[normal][s[i]] || (k = longest(v, s + i, s + end, &len)) < 0) {
            i += (size_t)rr__utf8_len(s[i]);
            continue;
        }
        i += len;
        to = i;
        t = &a->token[k];
        if (t->single_word && !stands_alone(s, from, to, start, end))
            continue;
        while (t->lstrip && from > done && props_before(s + from) & RR__UC_SPACE)
            do
                from--;
            while ((s[from] & 0xc0) == 0x80);
        if (t->lstrip &&
            from < done) /* rstrip of the token before took what this one begins with */
            from = done;
        while (t->rstrip && to < end && rr__uc_props(rr__utf8_get(s + to)) & RR__UC_SPACE)
            to += (size_t)rr__utf8_len(s[to]);
        if (done < from)
            rr__parts_add(out, done, from, -1);
        rr__parts_add(out, from, to, t->id);
        done = to;
    }
    if (done < end)
        rr__parts_add(out, done, end, -1);
}
