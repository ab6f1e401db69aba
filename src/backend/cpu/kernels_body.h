/* kernels_body.h - the code of one rr__kernels table; see kernels.h. Included once by each
 * kernels_*.c, which defines KERNELS (the table) and ISA (its name).
 *
 * The one inner loop: a block of MR rows x NR = 2 VL columns of C stays in registers while k runs;
 * each step loads two vectors of the packed panel and broadcasts one unit of each row. Loads stay
 * below the two a cycle that the core can do, so multiplying is what takes the time. With AMX, tile
 * registers take the block's place for bf16 and int8 (tiles.h). The same block
 * makes Q K^T and P V of attention, with keys and values packed on the fly. */
#include "backend/cpu/kernels.h"
#include "backend/cpu/vec.h"

#include <math.h>
#include <string.h>

enum { NR = 2 * VL };
#ifdef __AVX512BF16__
#define HALF RR__K_BF16
#else
#define HALF RR__K_F32 /* as fast as bf16 without its instruction, and exact */
#endif

/* Elements this many times the root mean square of their row are outliers. */
#define BEYOND 5.0f

#ifdef __AVX512VNNI__
enum { Q_BYTES = 1 }; /* 0 .. 255, as the instruction wants it  */
#else
enum { Q_BYTES = 2 }; /* the same in int16, for pairwise products */
#endif

/* ---- one step: acc += a * b over one unit of each lane -------------------- */

INLINE vf step_f32(vf acc, vi a, vi b) {
    return vf_fma(vi_as_vf(a), vi_as_vf(b), acc);
}

#ifdef __AVX512BF16__
INLINE vf step_bf16(vf acc, vi a, vi b) {
    return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
}
#endif

INLINE vi step_i8(vi acc, vi a, vi b) {
#ifdef __AVX512VNNI__
    return _mm512_dpbusd_epi32(acc, a, b);
#else
    return VI(add, acc, vi_madd16(a, b));
#endif
}

/* ---- the block ------------------------------------------------------------- */

INLINE vi broadcast(const char *p) {
    int32_t unit;

    memcpy(&unit, p, 4);
    return VI(set1, unit);
}

/* While it multiplies, a block asks for memory that a later one needs, a cache line a unit: the
 * weights of a large model come from memory, a panel at a time. */
enum { LINE = 16 }; /* units */
INLINE void prefetch(const uint32_t *p) {
    _mm_prefetch((const char *)p, _MM_HINT_T1);
}

/* c [rows, ldc] = sum over units; rows is a constant wherever this is inlined. Row pointers are
 * kept for every third row only: x86 addresses reach the two between. */
#define BLOCK(KIND, ACC, ZERO, TO_BITS)                                                            \
    INLINE void block_##KIND(const int rows, int32_t units, const uint32_t *a, size_t lda,         \
                             const uint32_t *b, uint32_t *c, size_t ldc, const uint32_t *ahead) {  \
        const size_t ld = lda * 4;                                                                 \
        const char  *p[(MR + 2) / 3];                                                              \
        ACC          acc[MR][2];                                                                   \
        for (int i = 0; i < (rows + 2) / 3; i++)                                                   \
            p[i] = (const char *)a + (size_t)i * 3 * ld;                                           \
        _Pragma("GCC unroll 14") for (int i = 0; i < rows; i++) acc[i][0] = acc[i][1] = ZERO;      \
        for (int32_t u = 0; u < units; u++) {                                                      \
            vi b0 = vi_load(b), b1 = vi_load(b + VL);                                              \
            b += NR;                                                                               \
            prefetch(ahead + (size_t)u * LINE);                                                    \
            _Pragma("GCC unroll 14") for (int i = 0; i < rows; i++) {                              \
                vi x = broadcast(p[i / 3] + (size_t)(i % 3) * ld + 4 * (size_t)u);                 \
                acc[i][0] = step_##KIND(acc[i][0], x, b0);                                         \
                acc[i][1] = step_##KIND(acc[i][1], x, b1);                                         \
            }                                                                                      \
        }                                                                                          \
        _Pragma("GCC unroll 14") for (int i = 0; i < rows; i++) {                                  \
            vi_store(c + (size_t)i * ldc, TO_BITS(acc[i][0]));                                     \
            vi_store(c + (size_t)i * ldc + VL, TO_BITS(acc[i][1]));                                \
        }                                                                                          \
    }                                                                                              \
    static void rows_##KIND(int rows, int32_t units, const uint32_t *a, size_t lda,                \
                            const uint32_t *b, uint32_t *c, size_t ldc, const uint32_t *ahead) {   \
        for (; rows >= MR; rows -= MR, a += MR * lda, c += MR * ldc)                               \
            block_##KIND(MR, units, a, lda, b, c, ldc, ahead);                                     \
        for (; rows >= 4; rows -= 4, a += 4 * lda, c += 4 * ldc)                                   \
            block_##KIND(4, units, a, lda, b, c, ldc, ahead);                                      \
        for (; rows > 0; rows--, a += lda, c += ldc)                                               \
            block_##KIND(1, units, a, lda, b, c, ldc, ahead);                                      \
    }
#define AS_IS(x) (x)
BLOCK(f32, vf, vf_set(0), vf_bits)
#ifdef __AMX_TILE__
#include "backend/cpu/tiles.h"
enum { ROWS = 2 * TILE }; /* of C in one go; fp32 takes them MR at a time */
#else
enum { ROWS = MR };
#ifdef __AVX512BF16__
BLOCK(bf16, vf, vf_set(0), vf_bits)
#endif
BLOCK(i8, vi, VI(set1, 0), AS_IS)
static inline void tiles_begin(void) {
}
static inline void tiles_end(void) {
}
#endif

static void block(rr__kind kind, int rows, int32_t units, const uint32_t *a, size_t lda,
                  const uint32_t *b, uint32_t *c, size_t ldc, const uint32_t *ahead) {
    switch (kind) {
    case RR__K_F32:
        rows_f32(rows, units, a, lda, b, c, ldc, ahead);
        break;
#ifdef __AVX512BF16__
    case RR__K_BF16:
        rows_bf16(rows, units, a, lda, b, c, ldc, ahead);
        break;
#endif
    default:
        rows_i8(rows, units, a, lda, b, c, ldc, ahead);
    }
}

/* ---- what follows the sums -------------------------------------------------- */

/* Columns j .. j + NR of rows of C: scale, bias, GELU, store. */
static void finish_panel(const rr__packed *w, int32_t j, const uint32_t *c, size_t ldc,
                         const rr__note *note, int32_t row, int32_t rows, const rr__dest *o) {
    const size_t columns = (size_t)w->panels * NR;

    for (int32_t half = 0; half < 2 && j < w->n; half++, j += VL, c += VL) {
        const int32_t left = w->n - j;
        const vf      bias = vf_load(w->bias + j);
        vf            scale = vf_set(1);
        vi            sum = VI(set1, 0);

        if (w->kind == RR__K_I8) {
            scale = vf_load(w->scale + j);
            sum = vi_load(w->sum + j);
        }
        for (int32_t r = 0; r < rows; r++) {
            vi     u = vi_load(c + (size_t)r * ldc);
            size_t at = (size_t)(row + r) * o->ld + (size_t)j;
            vf     y;

            if (w->kind == RR__K_I8) {
                u = VI(sub, u, VI(mullo, sum, VI(set1, note[row + r].zero)));
                y = VF(mul, vi_to_vf(u), vf_set(note[row + r].scale));
                y = vf_fma(y, scale, bias);
            } else {
                y = VF(add, vi_as_vf(u), bias);
            }
            for (int32_t i = 0; w->wt && i < note[row + r].n; i++)
                y = vf_fma(
                    vf_set(note[row + r].x[i]),
                    vf_load_f16(w->wt + (size_t)note[row + r].j[i] * columns + (size_t)j, VL), y);
            if (o->bf16)
                vf_store_bf16((uint16_t *)o->ptr + at, o->gelu ? vf_gelu_bf16(y) : y, left);
            else
                vf_store_n((float *)o->ptr + at, o->gelu ? vf_gelu(y) : y, left);
        }
    }
}

static void gemm(const rr__packed *w, const uint32_t *a, size_t lda, const rr__note *note,
                 int32_t rows, const rr__dest *o) {
    _Alignas(64) uint32_t c[ROWS * NR];

    tiles_begin();
    for (int32_t j = 0; j < w->panels; j++) {
        const uint32_t *b = w->w + (size_t)j * (size_t)w->units * NR;

        for (int32_t r = 0; r < rows; r += ROWS) {
            int32_t m = rows - r < ROWS ? rows - r : ROWS;

            const uint32_t *ahead = b;

            if (j + 1 < w->panels && r == ROWS) /* the first block waits for this panel itself */
                ahead = b + (size_t)w->units * NR;
            else if (j + 1 < w->panels && r == 2 * ROWS)
                ahead = b + (size_t)w->units * (NR + LINE);
            block(w->kind, m, w->units, a + (size_t)r * lda, lda, b, c, NR, ahead);
            finish_panel(w, j * NR, c, NR, note, r, m, o);
        }
    }
    tiles_end();
}

/* ---- rows ------------------------------------------------------------------ */

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
    for (int32_t i = 0; i < d; i += VL) { /* the lanes past d must not count: they become 0 */
        vf v = VF(sub, vf_load_n(x + i, d - i), mean);

        vf_store_n(x + i, v, d - i);
        v = vf_load_n(x + i, d - i);
        sq = vf_fma(v, v, sq);
    }
    inv = vf_set(1.0f / sqrtf(vf_sum(sq) / (float)d + eps));
    for (int32_t i = 0; i < d; i += VL) {
        vf v = VF(mul, vf_load_n(x + i, d - i), inv);

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

        if (vf_top(vf_abs(a)) > limit && note->n < RR__OUTLIERS) {
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

/* int8 has one scale and zero point a row: q = round(x / scale) + zero in 0 .. 255. */
INLINE void make_operand(rr__kind kind, int outliers, source s, void *out, rr__note *note) {
    float low, high, inverse, limit = INFINITY;
    vf    k, zero;

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
    note->scale = (high - low) / 255.0f;
    note->zero = (int32_t)(-low * inverse + 0.5f);
    k = vf_set(inverse);
    zero = vf_set((float)note->zero);
    for (int32_t i = 0; i < s.d; i += VL) {
        vf q = vf_round(vf_fma(load_row(s, i), k, zero));

        q = VF(min, VF(max, q, vf_set(0)), vf_set(255));
        vf_store_q((char *)out + i * Q_BYTES, q, s.d - i);
    }
    for (int32_t i = 0; i < note->n; i++) {
        if (Q_BYTES == 1)
            ((uint8_t *)out)[note->j[i]] = (uint8_t)note->zero;
        else
            ((int16_t *)out)[note->j[i]] = (int16_t)note->zero;
    }
}

/* int8 with one scale for all rows; what lies beyond saturates. Zero is at 128. */
INLINE void saturated(float amax, source s, void *out, rr__note *note) {
    const vf k = vf_set(127.0f / amax), zero = vf_set(128), low = vf_set(1), high = vf_set(255);

    *note = (rr__note){.scale = amax / 127.0f, .zero = 128};
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

/* The branches differ in constants that the compiler then folds into the loops. */
static void operand(const rr__packed *m, const void *x, int half, void *out, rr__note *note) {
    if (m->kind == RR__K_F32) /* of bf16 */
        for (int32_t i = 0; i < m->k; i += VL)
            vf_store_n((float *)out + i, load_row((source){x, NULL, half, m->k}, i), m->k - i);
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

/* ---- attention --------------------------------------------------------------- */

/* kp [n / NR, units, NR]: unit u of key j at panel j / NR, lane j % NR; missing keys are 0. */
static void pack_keys(const rr__head *h, int32_t units, int32_t n_pad) {
    const size_t ld = h->ld_kv / (h->bf16 ? 2 : 1);

    for (int32_t j = 0; j < n_pad; j++) {
        const uint32_t *k = (const uint32_t *)h->k + (size_t)j * ld;
        uint32_t       *out = h->kp + (size_t)(j / NR) * (size_t)units * NR + j % NR;

        for (int32_t u = 0; u < units; u++)
            out[(size_t)u * NR] = j < h->n ? k[u] : 0;
    }
}

/* vp [width / NR, units, NR]: unit u is key u (fp32) or keys 2u and 2u + 1 (bf16). */
static void pack_values(const rr__head *h, int32_t units) {
    for (int32_t c0 = 0; c0 < h->width; c0 += NR) {
        int32_t   w = h->width - c0 < NR ? h->width - c0 : NR;
        uint32_t *out = h->vp + (size_t)c0 * (size_t)units;

        for (int32_t u = 0; u < units; u++, out += NR) {
            if (!h->bf16) {
                const float *v = (const float *)h->v + (size_t)u * h->ld_kv + c0;

                memset(out, 0, NR * sizeof *out);
                if (u < h->n)
                    memcpy(out, v, (size_t)w * sizeof *v);
            } else {
                const uint16_t *v = (const uint16_t *)h->v + (size_t)u * 2 * h->ld_kv + c0;
                const uint16_t *v1 = v + h->ld_kv;
                int             n = h->n - 2 * u;

                for (int32_t i = 0; i < NR; i++)
                    out[i] = 0;
                if (n >= 2)
                    for (int32_t i = 0; i < w; i++)
                        out[i] = (uint32_t)v[i] | (uint32_t)v1[i] << 16;
                else if (n == 1)
                    for (int32_t i = 0; i < w; i++)
                        out[i] = v[i];
            }
        }
    }
}

/* One row of scores becomes exp((s - max) / sqrt(width)) in place (bf16: in the front half of it);
 * returns the sum. Columns past n become 0. n_pad is a multiple of NR. */
static float softmax_row(float *s, int32_t n, int32_t n_pad, float scale, int bf16) {
    const vf k = vf_set(scale * 1.44269504088896341f), low = vf_set(-126);
    vf       top, sum = vf_set(0), shift;

    for (int32_t i = n; i < n_pad; i++)
        s[i] = -INFINITY;
    top = vf_load(s);
    for (int32_t i = VL; i < n_pad; i += VL)
        top = VF(max, top, vf_load(s + i));
    shift = VF(mul, vf_set(-vf_top(top)), k);
    for (int32_t i = 0; i < n_pad; i += VL) {
        vf p = vf_exp2(VF(max, vf_fma(vf_load(s + i), k, shift), low));

        sum = VF(add, sum, p);
        if (bf16)
            vf_store_bf16((uint16_t *)s + i, p, VL);
        else
            vf_store_n(s + i, p, VL);
    }
    return vf_sum(sum);
}

static void attend(const rr__head *h) {
    const rr__kind        kind = h->bf16 ? RR__K_BF16 : RR__K_F32;
    const int32_t         per = h->bf16 ? 2 : 1; /* elements in a unit */
    const int32_t         n_pad = (h->n + NR - 1) / NR * NR, ku = h->width / per, vu = n_pad / per;
    const size_t          lds = (size_t)n_pad + 16; /* rows must not fall on one cache set */
    const float           scale = 1.0f / sqrtf((float)h->width);
    float                 inv[ROWS];
    _Alignas(64) uint32_t c[ROWS * NR];

    pack_keys(h, ku, n_pad);
    pack_values(h, vu);
    tiles_begin();
    for (int32_t q = 0; q < h->n_q; q += ROWS) {
        const int32_t   m = h->n_q - q < ROWS ? h->n_q - q : ROWS;
        const uint32_t *qp = (const uint32_t *)h->q + (size_t)q * (h->ld_q / (size_t)per);

        for (int32_t j = 0; j < n_pad; j += NR)
            block(kind, m, ku, qp, h->ld_q / (size_t)per, h->kp + (size_t)j * (size_t)ku,
                  (uint32_t *)h->scores + j, lds, h->kp + (size_t)j * (size_t)ku);
        for (int32_t r = 0; r < m; r++)
            inv[r] = 1.0f / softmax_row(h->scores + (size_t)r * lds, h->n, n_pad, scale, h->bf16);
        for (int32_t j = 0; j < h->width; j += NR) {
            block(kind, m, vu, (const uint32_t *)h->scores, lds, h->vp + (size_t)j * (size_t)vu, c,
                  NR, h->vp + (size_t)j * (size_t)vu);
            for (int32_t r = 0; r < m; r++)
                for (int32_t i = 0; i < NR && j + i < h->width; i += VL) {
                    vf     o = vi_as_vf(vi_load(c + r * NR + i));
                    size_t at = (size_t)(q + r) * h->ld_out + (size_t)(j + i);

                    o = VF(mul, o, vf_set(inv[r]));
                    if (h->bf16)
                        vf_store_bf16((uint16_t *)h->out + at, o, h->width - j - i);
                    else
                        vf_store_n((float *)h->out + at, o, h->width - j - i);
                }
        }
    }
    tiles_end();
}

const rr__kernels KERNELS = {
    .name = ISA,
    .mr = ROWS,
    .nr = NR,
    .q_bytes = Q_BYTES,
    .half = HALF,
    .gemm = gemm,
    .layernorm = layernorm,
    .operand = operand,
    .attend = attend,
    .row = row,
    .to_f32 = to_f32,
};
