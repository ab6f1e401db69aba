/* attend.h - attention of one head of one sequence, for kernels_body.h.
 *
 * Keys and values are packed into panels as weights are, then 32 (or 14, or 6) queries at a time:
 * scores = q k^T, their softmax in place, out = scores v. Where values are fp32 and tiles multiply bf16,
 * all four operands are sums of two or three bf16 (kernels.h). */
#ifndef RR_BACKEND_CPU_ATTEND_H
#define RR_BACKEND_CPU_ATTEND_H

/* What a head's operands are made of. */
typedef struct operands {
    rr__kind kind;
    int32_t  terms, per;       /* of an operand; elements in a unit                       */
    int32_t  n_pad;            /* keys, up to a multiple of NR                            */
    int32_t  ku, vu;           /* units of one term of a query or key, and along the keys */
    size_t   ld_s, ld_q, ld_p; /* units between rows of scores, queries, probabilities    */
    int      split;            /* fp32 becomes terms                                      */
} operands;

static operands operands_of(const rr__head *h) {
    operands      o = {.kind = h->kind, .terms = rr__terms(h->kind)};
    const int32_t step = h->kind == RR__K_F32 ? 1 : TILE;

    o.per = h->kind == RR__K_F32 ? 1 : 2;
    o.n_pad = (h->n + NR - 1) / NR * NR;
    o.ku = (h->width / o.per + step - 1) / step * step;
    o.vu = o.n_pad / o.per;
    o.split = o.terms > 1;
    o.ld_s = (size_t)o.n_pad + 16; /* rows must not fall on one cache set */
    o.ld_q = o.split ? (size_t)(o.terms * o.ku) + 16 : h->ld_q / (size_t)o.per;
    o.ld_p = o.split ? (size_t)(o.terms * o.vu) + 16 : o.ld_s;
    return o;
}

/* Two vectors of consecutive fp32 as units of two bf16, which are taken off. */
INLINE vi take_term(vf *a, vf *b) {
    const vf a16 = vf_round_bf16(*a), b16 = vf_round_bf16(*b);

    *a = VF(sub, *a, a16);
    *b = VF(sub, *b, b16);
    return vi_pack16(vf_bits(a16), vf_bits(b16));
}

/* kp [n / NR, terms, units, NR]: unit u of key j at panel j / NR, lane j % NR; missing keys, and
 * units behind the head's width, are 0. */
static void pack_keys(const rr__head *h, const operands *o) {
    const size_t  ld = h->ld_kv * (o->kind == RR__K_BF16 ? 2 : 4);
    const int32_t there = h->width / o->per;

    for (int32_t j = 0; j < o->n_pad; j += VL) {
        const char *k = (const char *)h->k + (size_t)j * ld;
        uint32_t   *to = h->kp + (size_t)(j / NR) * (size_t)(o->terms * o->ku) * NR + j % NR;

        for (int32_t u = 0; u < o->ku; u += VL) {
            vf a[VL], b[VL];
            vi r[VL];

            for (int32_t i = 0; i < VL && o->split; i++) {
                const float  *row = (const void *)(k + (size_t)i * ld);
                const int32_t left = j + i < h->n ? h->width - 2 * u : 0;

                a[i] = left > 0 ? vf_load_n(row + 2 * u, left) : vf_set(0);
                b[i] = left > VL ? vf_load_n(row + 2 * u + VL, left - VL) : vf_set(0);
            }
            for (int32_t t = 0; t < o->terms; t++) {
                uint32_t *at = to + (size_t)(t * o->ku + u) * NR;

                for (int32_t i = 0; i < VL; i++) {
                    const uint32_t *row = (const void *)(k + (size_t)i * ld);

                    if (o->split)
                        r[i] = take_term(&a[i], &b[i]);
                    else
                        r[i] =
                            j + i < h->n && u < there ? vi_load_n(row + u, there - u) : VI(set1, 0);
                }
                vi_transpose(r);
                for (int32_t i = 0; i < VL && u + i < o->ku; i++)
                    vi_store(at + (size_t)i * NR, r[i]);
            }
        }
    }
}

/* Columns i .. i + VL of a key's values, of left that are there, as fp32. */
INLINE vf value(const rr__head *h, int32_t key, int32_t i, int32_t left) {
    const size_t at = (size_t)key * h->ld_kv + (size_t)i;

    if (key >= h->n || left <= 0)
        return vf_set(0);
    return h->kind == RR__K_BF16 ? vf_load_bf16((const uint16_t *)h->v + at, left)
                                 : vf_load_n((const float *)h->v + at, left);
}

/* vp [width / NR, terms, units, NR]: unit u is key u (fp32) or keys 2u and 2u + 1 (bf16). */
static void pack_values(const rr__head *h, const operands *o) {
    for (int32_t c = 0; c < h->width; c += VL) {
        uint32_t *to = h->vp + (size_t)(c / NR) * (size_t)(o->terms * o->vu) * NR + c % NR;

        for (int32_t u = 0; u < o->vu; u++, to += NR) {
            vf a = value(h, u * o->per, c, h->width - c), b;

            if (o->per == 1) {
                vi_store(to, vf_bits(a));
                continue;
            }
            b = value(h, 2 * u + 1, c, h->width - c);
            for (int32_t t = 0; t < o->terms; t++) {
                const vf a16 = vf_round_bf16(a), b16 = vf_round_bf16(b);

                vi_store(to + (size_t)t * (size_t)o->vu * NR,
                         vi_or(vi_shift16(vf_bits(a16)), vf_bits(b16)));
                a = VF(sub, a, a16);
                b = VF(sub, b, b16);
            }
        }
    }
}

/* A row of queries as terms. */
static void split_query(const float *q, const rr__head *h, const operands *o, uint32_t *to) {
    for (int32_t u = 0; u < o->ku; u += VL) {
        const int32_t left = h->width - 2 * u;
        vf            a = left > 0 ? vf_load_n(q + 2 * u, left) : vf_set(0);
        vf            b = left > VL ? vf_load_n(q + 2 * u + VL, left - VL) : vf_set(0);

        for (int32_t t = 0; t < o->terms; t++)
            vi_store(to + t * o->ku + u, take_term(&a, &b));
    }
}

/* One row of scores becomes p = exp((s - max) / sqrt(width)), an operand; returns the sum. Columns past
 * n become 0. to may be s, if p is not split. */
INLINE float softmax_row(float *s, const rr__kind kind, int32_t n, const operands *o, float scale,
                         uint32_t *to) {
    const vf k = vf_set(scale * 1.44269504088896341f), low = vf_set(-126);
    vf       top, sum = vf_set(0), shift;

    for (int32_t i = n; i < o->n_pad; i++)
        s[i] = -INFINITY;
    top = vf_load(s);
    for (int32_t i = VL; i < o->n_pad; i += VL)
        top = VF(max, top, vf_load(s + i));
    shift = VF(mul, vf_set(-vf_top(top)), k);
    for (int32_t i = 0; i < o->n_pad; i += 2 * VL) {
        vf a = VF(max, vf_fma(vf_load(s + i), k, shift), low);
        vf b = VF(max, vf_fma(vf_load(s + i + VL), k, shift), low);

        a = kind == RR__K_BF16 ? vf_exp2_bf16(a) : vf_exp2(a);
        b = kind == RR__K_BF16 ? vf_exp2_bf16(b) : vf_exp2(b);
        sum = VF(add, VF(add, sum, a), b);
        if (kind == RR__K_F32) {
            vf_store_n((float *)(void *)to + i, a, VL);
            vf_store_n((float *)(void *)to + i + VL, b, VL);
        } else if (kind == RR__K_BF16) {
            vf_store_bf16((uint16_t *)(void *)to + i, a, VL);
            vf_store_bf16((uint16_t *)(void *)to + i + VL, b, VL);
        } else {
            for (int32_t t = 0; t < rr__terms(kind); t++)
                vi_store(to + t * o->vu + i / 2, take_term(&a, &b));
        }
    }
    return vf_sum(sum);
}

static float softmax(float *s, int32_t n, const operands *o, float scale, uint32_t *to) {
    switch (o->kind) {
    case RR__K_F32:
        return softmax_row(s, RR__K_F32, n, o, scale, to);
    case RR__K_BF16X2:
        return softmax_row(s, RR__K_BF16X2, n, o, scale, to);
    case RR__K_BF16X3:
        return softmax_row(s, RR__K_BF16X3, n, o, scale, to);
    default:
        return softmax_row(s, RR__K_BF16, n, o, scale, to);
    }
}

/* Queries q .. q + m, m <= ROWS. */
static void attend_rows(const rr__head *h, const operands *o, int32_t q, int32_t m) {
    const float           scale = 1.0f / sqrtf((float)h->width);
    const size_t          size = o->kind == RR__K_BF16 ? 2 : 4;
    const uint32_t       *qp = (const void *)((const char *)h->q + (size_t)q * h->ld_q * size);
    uint32_t             *p = o->split ? h->probs : (uint32_t *)(void *)h->scores;
    float                 inv[ROWS];
    _Alignas(64) uint32_t c[ROWS * NR];

    for (int32_t r = 0; r < m && o->split; r++)
        split_query((const float *)h->q + (size_t)(q + r) * h->ld_q, h, o,
                    h->qt + (size_t)r * o->ld_q);
    for (int32_t j = 0; j < o->n_pad; j += NR) {
        const uint32_t *b = h->kp + (size_t)j * (size_t)(o->terms * o->ku);

        block(o->kind, m, o->ku, o->split ? h->qt : qp, o->ld_q, b,
              (uint32_t *)(void *)h->scores + j, o->ld_s, b);
    }
    for (int32_t r = 0; r < m; r++)
        inv[r] = 1.0f /
                 softmax(h->scores + (size_t)r * o->ld_s, h->n, o, scale, p + (size_t)r * o->ld_p);
    for (int32_t j = 0; j < h->width; j += NR) {
        const uint32_t *b = h->vp + (size_t)j * (size_t)(o->terms * o->vu);

        block(o->kind, m, o->vu, p, o->ld_p, b, c, NR, b);
        for (int32_t r = 0; r < m; r++)
            for (int32_t i = 0; i < NR && j + i < h->width; i += VL) {
                const vf     y = VF(mul, vi_as_vf(vi_load(c + r * NR + i)), vf_set(inv[r]));
                const size_t at = (size_t)(q + r) * h->ld_out + (size_t)(j + i);

                if (o->kind == RR__K_BF16)
                    vf_store_bf16((uint16_t *)h->out + at, y, h->width - j - i);
                else
                    vf_store_n((float *)h->out + at, y, h->width - j - i);
            }
    }
}

static void attend(const rr__head *h) {
    const operands o = operands_of(h);

    pack_keys(h, &o);
    pack_values(h, &o);
    tiles_begin();
    for (int32_t q = 0; q < h->n_q; q += ROWS)
        attend_rows(h, &o, q, h->n_q - q < ROWS ? h->n_q - q : ROWS);
    tiles_end();
}

#endif
