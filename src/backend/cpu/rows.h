/* rows.h - what kernels_body.h does to single rows: LayerNorm, left operands, embeddings. */
#ifndef RR_BACKEND_CPU_ROWS_H
#define RR_BACKEND_CPU_ROWS_H

static void layernorm(float *x, const float *y, const float *g, const float *b, float eps,
                      int32_t d) {
    vf    sum = vf_set(0), sq = vf_set(0), mean, inv;
    float m;

    for (int32_t i = 0; i < d; i += VL) {
        vf v = vf_load_n(x + i, d - i);

        if (y) {
            v = VF(add, v, vf_load_n(y + i, d - i));
            vf_store_n(x + i, v, d - i);
        }
        sum = VF(add, sum, v);
    }
    m = vf_sum(sum) / (float)d;
    mean = vf_set(m);
    for (int32_t i = 0; i < d; i += VL) { /* the lanes past d must not count */
        const vf v = vf_first_n(VF(sub, vf_load_n(x + i, d - i), mean), d - i);

        sq = vf_fma(v, v, sq);
    }
    inv = vf_set(1.0f / sqrtf(vf_sum(sq) / (float)d + eps));
    for (int32_t i = 0; i < d; i += VL) {
        const vf v = VF(mul, VF(sub, vf_load_n(x + i, d - i), mean), inv);

        vf_store_n(x + i, vf_fma(v, vf_load_n(g + i, d - i), vf_load_n(b + i, d - i)), d - i);
    }
}

/* A row of d elements, fp32 or bf16, as an operand sees it: multiplied by by, where that is not NULL. */
typedef struct source {
    const void  *x;
    const float *by;
    int          half;
    int32_t      d;
} source;

INLINE vf load_row(source s, int32_t i) {
    vf v = s.half ? vf_load_bf16((const uint16_t *)s.x + i, s.d - i)
                  : vf_load_n((const float *)s.x + i, s.d - i);

    return s.by ? VF(mul, v, vf_load_n(s.by + i, s.d - i)) : v;
}

/* Elements beyond limit go to the note; the others lie in *low .. *high, which contain 0. */
INLINE void find_outliers(source s, float limit, rr__note *note, float *low, float *high) {
    vf    top = vf_set(0), bottom = vf_set(0);
    float v[VL];

    note->n = 0;
    for (int32_t i = 0; i < s.d; i += VL) {
        vf a = load_row(s, i);

        if (vf_any_above(vf_abs(a), limit) && note->n < RR__OUTLIERS) {
            vf_store_n(v, a, VL);
            for (int32_t k = 0; k < VL; k++)
                if (fabsf(v[k]) > limit && note->n < RR__OUTLIERS) {
                    note->j[note->n] = i + k;
                    note->x[note->n++] = v[k];
                    v[k] = 0;
                }
            a = vf_load(v);
        }
        top = VF(max, top, a);
        bottom = VF(max, bottom, VF(sub, vf_set(0), a));
    }
    *high = vf_top(top);
    *low = -vf_top(bottom);
}

/* fp32 as two or three bf16, each of what those before leave. */
INLINE void make_terms(const int terms, source s, int32_t units, uint16_t *out) {
    for (int32_t i = 0; i < s.d; i += VL) {
        vf v = load_row(s, i);

        for (int32_t t = 0; t < terms; t++) {
            vf_store_bf16(out + t * units * 2 + i, v, s.d - i);
            v = VF(sub, v, vf_round_bf16(v));
        }
    }
}

/* int8 has one scale and zero point a row: q = round(x / scale) + zero in 0 .. 255. */
INLINE void make_operand(rr__kind kind, int outliers, source s, void *out, rr__note *note) {
    float   low, high, inverse, limit = INFINITY;
    vf      k, zero;
    int32_t middle; /* what 0 becomes */

    note->n = 0;
    if (outliers) {
        vf sq = vf_set(0);

        for (int32_t i = 0; i < s.d; i += VL) {
            vf v = load_row(s, i);
            sq = vf_fma(v, v, sq);
        }
        limit = BEYOND * sqrtf(vf_sum(sq) / (float)s.d);
    }
    if (kind == RR__K_BF16) {
        if (outliers)
            find_outliers(s, limit, note, &low, &high);
        for (int32_t i = 0; i < s.d; i += VL)
            vf_store_bf16((uint16_t *)out + i, load_row(s, i), s.d - i);
        for (int32_t i = 0; i < note->n; i++)
            ((uint16_t *)out)[note->j[i]] = 0;
        return;
    }
    find_outliers(s, limit, note, &low, &high);
    inverse = high > low ? 255.0f / (high - low) : 0;
    middle = (int32_t)(-low * inverse + 0.5f);
    note->scale = (high - low) / 255.0f;
    note->lift = note->scale * (float)middle;
    k = vf_set(inverse);
    zero = vf_set((float)middle);
    for (int32_t i = 0; i < s.d; i += VL) {
        vf q = vf_round(vf_fma(load_row(s, i), k, zero));

        q = VF(min, VF(max, q, vf_set(0)), vf_set(255));
        vf_store_q((char *)out + i * Q_BYTES, q, s.d - i);
    }
    for (int32_t i = 0; i < note->n; i++) {
        if (Q_BYTES == 1)
            ((uint8_t *)out)[note->j[i]] = (uint8_t)middle;
        else
            ((int16_t *)out)[note->j[i]] = (int16_t)middle;
    }
}

/* int8 with one scale for all rows; what lies beyond saturates. Zero is at 128. */
INLINE void saturated(float amax, source s, void *out, rr__note *note) {
    const vf k = vf_set(127.0f / amax), zero = vf_set(128), low = vf_set(1), high = vf_set(255);

    *note = (rr__note){.scale = amax / 127.0f, .lift = amax / 127.0f * 128};
    for (int32_t i = 0; i < s.d; i += VL) {
        vf q = VF(add, vf_round(VF(mul, load_row(s, i), k)), zero);

        vf_store_q((char *)out + i * Q_BYTES, VF(min, VF(max, q, low), high), s.d - i);
    }
}

INLINE void make_int8(const rr__packed *m, source s, void *out, rr__note *note) {
    if (m->amax > 0)
        saturated(m->amax, s, out, note);
    else
        make_operand(RR__K_I8, m->wt != NULL, s, out, note);
}

/* Where a row ends inside a tile the rest of each term is zero. */
static void fill_up(const rr__packed *m, void *out) {
    const size_t k = (size_t)m->k * (m->kind == RR__K_I8 ? Q_BYTES : 2),
                 term = (size_t)m->units * 4;

    for (int32_t t = 0; t < rr__terms(m->kind) && k < term; t++)
        memset((char *)out + (size_t)t * term + k, 0, term - k);
}

/* The branches differ in constants that the compiler then folds into the loops. */
static void operand(const rr__packed *m, const void *x, int half, void *out, rr__note *note) {
    if (m->kind != RR__K_F32)
        fill_up(m, out);
    if (m->kind == RR__K_F32) /* of bf16 */
        for (int32_t i = 0; i < m->k; i += VL)
            vf_store_n((float *)out + i, load_row((source){x, NULL, half, m->k}, i), m->k - i);
    else if (m->kind == RR__K_BF16X3)
        make_terms(3, (source){x, NULL, half, m->k}, m->units, out);
    else if (m->kind == RR__K_BF16X2)
        make_terms(2, (source){x, NULL, half, m->k}, m->units, out);
    else if (m->kind == RR__K_BF16)
        make_operand(RR__K_BF16, m->wt != NULL, (source){x, NULL, half, m->k}, out, note);
    else if (m->inv_smooth && half)
        make_int8(m, (source){x, m->inv_smooth, 1, m->k}, out, note);
    else if (m->inv_smooth)
        make_int8(m, (source){x, m->inv_smooth, 0, m->k}, out, note);
    else if (half)
        make_int8(m, (source){x, NULL, 1, m->k}, out, note);
    else
        make_int8(m, (source){x, NULL, 0, m->k}, out, note);
}

static void row(float *x, const rr__tensor *t, size_t first, int32_t n, int add) {
    const char *p = (const char *)t->data + first * (t->dtype == RR__DT_F32 ? 4 : 2);

    for (int32_t i = 0; i < n; i += VL) {
        vf v;

        switch (t->dtype) { /* through void: the file aligns tensors as it likes */
        case RR__DT_F32:
            v = vf_load_n((const void *)(p + 4 * i), n - i);
            break;
        case RR__DT_F16:
            v = vf_load_f16((const void *)(p + 2 * i), n - i);
            break;
        default:
            v = vf_load_bf16((const void *)(p + 2 * i), n - i);
        }
        vf_store_n(x + i, add ? VF(add, vf_load_n(x + i, n - i), v) : v, n - i);
    }
}

static void to_f32(const uint16_t *x, int32_t n, float *out) {
    for (int32_t i = 0; i < n; i += VL)
        vf_store_n(out + i, vf_load_bf16(x + i, n - i), n - i);
}

#endif
