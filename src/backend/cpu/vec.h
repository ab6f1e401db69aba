/* vec.h - one vector of floats, 16 wide with AVX-512 and 8 wide with AVX2, for kernels_body.h.
 *
 * A compiler flag of each kernels_*.c decides. Counts n below are of what is left of a row: loads and
 * stores touch min(n, VL) elements; rows are multiples of 8. */
#ifndef RR_BACKEND_CPU_VEC_H
#define RR_BACKEND_CPU_VEC_H

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

#ifdef __AVX512F__

enum { VL = 16, MR = 14 };
typedef __m512  vf;
typedef __m512i vi;

#define VF(op, ...)   _mm512_##op##_ps(__VA_ARGS__)
#define VI(op, ...)   _mm512_##op##_epi32(__VA_ARGS__)
#define vi_and        _mm512_and_si512
#define vi_or         _mm512_or_si512
#define vi_shift_left _mm512_slli_epi32
#define vi_shift16(v) _mm512_srli_epi32(v, 16)
#define vf_bits       _mm512_castps_si512
#define vi_as_vf      _mm512_castsi512_ps
#define vi_to_vf      _mm512_cvtepi32_ps
#define vi_madd16     _mm512_madd_epi16
INLINE vi vi_load(const void *p) {
    return _mm512_loadu_si512(p);
}
INLINE void vi_store(void *p, vi v) {
    _mm512_storeu_si512(p, v);
}
/* The first n lanes (0 < n); the others are 0. */
INLINE vi vi_load_n(const uint32_t *p, int32_t n) {
    return _mm512_maskz_loadu_epi32((__mmask16)(n >= VL ? 0xffff : (1u << n) - 1), p);
}
INLINE __mmask16 vf_mask(int32_t n) {
    return n >= VL ? 0xffff : (__mmask16)((1u << n) - 1);
}
INLINE vf vf_load_n(const float *p, int32_t n) {
    return _mm512_maskz_loadu_ps(vf_mask(n), p);
}
INLINE void vf_store_n(float *p, vf v, int32_t n) {
    _mm512_mask_storeu_ps(p, vf_mask(n), v);
}
INLINE float vf_sum(vf v) {
    return _mm512_reduce_add_ps(v);
}
INLINE float vf_top(vf v) {
    return _mm512_reduce_max_ps(v);
}
INLINE vf vf_abs(vf v) {
    return _mm512_abs_ps(v);
}
INLINE int vf_any_above(vf v, float limit) {
    return _mm512_cmp_ps_mask(v, VF(set1, limit), _CMP_GT_OQ) != 0;
}
/* The lanes from n on become 0. */
INLINE vf vf_first_n(vf v, int32_t n) {
    return _mm512_maskz_mov_ps(vf_mask(n), v);
}
INLINE vf vf_round(vf v) {
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* p * 2^e for whole e >= -126 */
INLINE vf vf_ldexp(vf p, vf e) {
    return _mm512_scalef_ps(p, e);
}
INLINE vf vf_load_bf16(const uint16_t *p, int32_t n) {
    __m256i h = _mm256_maskz_loadu_epi16(vf_mask(n), p);
    return vi_as_vf(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
INLINE vf vf_load_f16(const uint16_t *p, int32_t n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vf_mask(n), p));
}
INLINE void vf_store_bf16(uint16_t *p, vf v, int32_t n) {
#ifdef __AVX512BF16__
    __m256i h = (__m256i)_mm512_cvtneps_pbh(v);
#else
    vi      u = vf_bits(v), odd = vi_and(_mm512_srli_epi32(u, 16), VI(set1, 1));
    __m256i h =
        _mm512_cvtepi32_epi16(_mm512_srli_epi32(VI(add, VI(add, u, VI(set1, 0x7fff)), odd), 16));
#endif
    _mm256_mask_storeu_epi16(p, vf_mask(n), h);
}
/* Two vectors, one behind the other. */
INLINE void vf_store_bf16_pair(uint16_t *p, vf a, vf b) {
#ifdef __AVX512BF16__
    vi_store(p, (__m512i)_mm512_cvtne2ps_pbh(b, a));
#else
    vf_store_bf16(p, a, VL);
    vf_store_bf16(p + VL, b, VL);
#endif
}
/* Whole numbers: 0 .. 255 as bytes with VNNI, small ones as int16 without. */
INLINE void vf_store_q(void *p, vf v, int32_t n) {
#ifdef __AVX512VNNI__
    __m128i q = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v));
    _mm_mask_storeu_epi8(p, vf_mask(n), q);
#else
    _mm256_mask_storeu_epi16(p, vf_mask(n), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v)));
#endif
}

/* The upper halves of a's lanes, then of b's, in half the room. */
INLINE vi vi_pack16(vi a, vi b) {
    return _mm512_inserti64x4(
        _mm512_castsi256_si512(_mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16))),
        _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)), 1);
}
/* r[i], lane j becomes r[j], lane i. */
INLINE void vi_transpose(vi r[VL]) {
    vi t[VL];

    for (int i = 0; i < 16; i += 2) { /* pairs of 32 bits, then of 64, of each quarter */
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int k = 0; k < 2; k++) {
            r[i + 2 * k] = _mm512_unpacklo_epi64(t[i + k], t[i + 2 + k]);
            r[i + 2 * k + 1] = _mm512_unpackhi_epi64(t[i + k], t[i + 2 + k]);
        }
    for (int i = 0; i < 4; i++) { /* then the quarters of four rows */
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

#else /* AVX2 with FMA and F16C */

enum { VL = 8, MR = 6 };
typedef __m256  vf;
typedef __m256i vi;

#define VF(op, ...)   _mm256_##op##_ps(__VA_ARGS__)
#define VI(op, ...)   _mm256_##op##_epi32(__VA_ARGS__)
#define vi_and        _mm256_and_si256
#define vi_or         _mm256_or_si256
#define vi_shift_left _mm256_slli_epi32
#define vi_shift16(v) _mm256_srli_epi32(v, 16)
#define vf_bits       _mm256_castps_si256
#define vi_as_vf      _mm256_castsi256_ps
#define vi_to_vf      _mm256_cvtepi32_ps
#define vi_madd16     _mm256_madd_epi16
INLINE vi       vi_load(const void *p) {
          return _mm256_loadu_si256(p);
}
INLINE void vi_store(void *p, vi v) {
    _mm256_storeu_si256(p, v);
}
INLINE vi vi_load_n(const uint32_t *p, int32_t n) {
    const vi lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

    return _mm256_maskload_epi32((const int *)p, _mm256_cmpgt_epi32(VI(set1, n), lane));
}
INLINE vf vf_load_n(const float *p, int32_t n) {
    return _mm256_loadu_ps(p);
}
INLINE void vf_store_n(float *p, vf v, int32_t n) {
    _mm256_storeu_ps(p, v);
}
INLINE float vf_sum(vf v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
INLINE float vf_top(vf v) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
INLINE int vf_any_above(vf v, float limit) {
    return _mm256_movemask_ps(_mm256_cmp_ps(v, VF(set1, limit), _CMP_GT_OQ)) != 0;
}
INLINE vf vf_first_n(vf v, int32_t n) {
    return v; /* there are none */
}
INLINE vf vf_abs(vf v) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
}
INLINE vf vf_round(vf v) {
    return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE vf vf_ldexp(vf p, vf e) {
    return vi_as_vf(VI(add, vf_bits(p), _mm256_slli_epi32(_mm256_cvtps_epi32(e), 23)));
}
INLINE vf vf_load_bf16(const uint16_t *p, int32_t n) {
    __m128i h = _mm_loadu_si128((const void *)p);
    return vi_as_vf(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
INLINE vf vf_load_f16(const uint16_t *p, int32_t n) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}
/* The low 16 bits of each lane. */
INLINE __m128i vi_narrow(vi v) {
    return _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}
INLINE void vf_store_bf16(uint16_t *p, vf v, int32_t n) {
    vi u = vf_bits(v), odd = vi_and(_mm256_srli_epi32(u, 16), VI(set1, 1));
    u = VI(add, VI(add, u, VI(set1, 0x7fff)), odd);
    _mm_storeu_si128((void *)p, vi_narrow(_mm256_srli_epi32(u, 16)));
}
INLINE void vf_store_bf16_pair(uint16_t *p, vf a, vf b) {
    vf_store_bf16(p, a, VL);
    vf_store_bf16(p + VL, b, VL);
}
INLINE void vf_store_q(void *p, vf v, int32_t n) {
    vi q = _mm256_cvtps_epi32(v);
    _mm_storeu_si128(p, _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1)));
}
INLINE vi vi_pack16(vi a, vi b) {
    return _mm256_set_m128i(vi_narrow(_mm256_srli_epi32(b, 16)),
                            vi_narrow(_mm256_srli_epi32(a, 16)));
}
INLINE void vi_transpose(vi r[VL]) {
    vi t[VL];

    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            r[i + 2 * k] = _mm256_unpacklo_epi64(t[i + k], t[i + 2 + k]);
            r[i + 2 * k + 1] = _mm256_unpackhi_epi64(t[i + k], t[i + 2 + k]);
        }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i++)
        r[i] = t[i];
}

#endif

INLINE vf vf_load(const float *p) {
    return VF(loadu, p);
}
INLINE vf vf_fma(vf a, vf b, vf c) {
    return VF(fmadd, a, b, c);
}
INLINE vf vf_set(float x) {
    return VF(set1, x);
}

/* To the nearest bf16, ties to even; a NaN may become something else. */
INLINE vf vf_round_bf16(vf v) {
    vi u = vf_bits(v), odd = vi_and(vi_shift16(u), VI(set1, 1));

    return vi_as_vf(vi_and(VI(add, VI(add, u, VI(set1, 0x7fff)), odd), VI(set1, (int)0xffff0000)));
}

/* 2^x for -126 <= x <= 0; relative error 2e-7. */
INLINE vf vf_exp2(vf x) {
    vf e = vf_round(x), f = VF(sub, x, e), p = vf_set(0.0013276466634124517f);

    p = vf_fma(p, f, vf_set(0.009675540961325169f));
    p = vf_fma(p, f, vf_set(0.05550713464617729f));
    p = vf_fma(p, f, vf_set(0.24022120237350464f));
    p = vf_fma(p, f, vf_set(0.6931469440460205f));
    p = vf_fma(p, f, vf_set(1.0f));
    return vf_ldexp(p, e);
}

/* The same for results that are rounded to bf16: relative error 7e-05. Adding 1.5 * 2^23 leaves round(x)
 * in the low bits, which are then added to the exponent. */
INLINE vf vf_exp2_bf16(vf x) {
    const vf magic = vf_set(12582912.0f);
    vf e = VF(add, x, magic), f = VF(sub, x, VF(sub, e, magic)), p = vf_set(0.05517107993364334f);

    p = vf_fma(p, f, vf_set(0.24261128902435303f));
    p = vf_fma(p, f, vf_set(0.6932610869407654f));
    p = vf_fma(p, f, vf_set(0.9999280571937561f));
    return vi_as_vf(VI(add, vf_bits(p), vi_shift_left(vf_bits(e), 23)));
}

/* Over several vectors side by side, so that none waits for its own results; n <= GROUP, a constant. */
enum { GROUP = 8 };
#define UNROLL          _Pragma("GCC unroll 16")
#define EACH            UNROLL for (int i = 0; i < n; i++)
#define HORNER(p, s, c) EACH p[i] = vf_fma(p[i], s[i], vf_set(c))

/* GELU of 2x: x + x erf(x sqrt 2). erf(t sqrt 2) = t P(t^2) / Q(t^2) on |t| <= 2.75, fitted here by
 * weighted least squares: error of erf 4e-7, of GELU 1.3e-6 for |x| <= 4. */
INLINE void vf_gelu(vf *x, const int n) {
    vf t[GROUP], s[GROUP], p[GROUP], q[GROUP];

    EACH t[i] = VF(max, VF(min, x[i], vf_set(2.75f)), vf_set(-2.75f));
    EACH s[i] = VF(mul, t[i], t[i]);
    EACH p[i] = vf_set(2 * 0x1p10f * 4.549881182924764e-08f);
    EACH q[i] = vf_set(0x1p10f * 1.1974850622209487e-06f);
    HORNER(p, s, 2 * 0x1p8f * 1.2703705579042435e-05f);
    HORNER(q, s, 0x1p8f * 7.364192424574867e-05f);
    HORNER(p, s, 2 * 0x1p6f * 0.00033762218663468957f);
    HORNER(q, s, 0x1p6f * 0.001884364290162921f);
    HORNER(p, s, 2 * 0x1p4f * 0.009354344569146633f);
    HORNER(q, s, 0x1p4f * 0.028645126149058342f);
    HORNER(p, s, 2 * 0x1p2f * 0.06770279258489609f);
    HORNER(q, s, 0x1p2f * 0.25151878595352173f);
    HORNER(p, s, 2 * 0.797884464263916f);
    HORNER(q, s, 1.0f);
    EACH x[i] = vf_fma(x[i], VF(div, VF(mul, t[i], p[i]), q[i]), x[i]);
}

/* The same for results that are rounded to bf16: x + min(|x|, x^2 P(x^2)), whose second argument is the
 * larger one by itself where erf is 1. Fitted by linear programming: error below 2.7e-4. */
INLINE void vf_gelu_bf16(vf *x, const int n) {
    vf s[GROUP], p[GROUP];

    EACH s[i] = VF(mul, x[i], x[i]);
    EACH p[i] = vf_set(0.0005251682551674477f);
    HORNER(p, s, -0.008377339830181886f);
    HORNER(p, s, 0.05763892612084399f);
    HORNER(p, s, -0.22767594859753215f);
    HORNER(p, s, 0.5828941298514106f);
    HORNER(p, s, -1.0434915022385658f);
    HORNER(p, s, 1.5928594975071557f);
    EACH x[i] = VF(add, x[i], VF(min, vf_abs(x[i]), VF(mul, s[i], p[i])));
}

#endif
