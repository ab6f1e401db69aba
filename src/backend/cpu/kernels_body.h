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
#ifdef __AMX_TILE__
enum {
    TILE = 16,
    ROWS = 2 * TILE
}; /* rows, and units of a row, of a tile register; rows of C in one go */
enum { GEMM_ROWS = 128 };
#else
enum { TILE = 1, ROWS = MR };
enum { GEMM_ROWS = 112 };
#endif
#ifdef __AVX512BF16__
#define HALF RR__K_BF16
#else
#define HALF RR__K_F32 /* as fast as bf16 without its instruction, and exact */
#endif

#ifdef __AMX_TILE__
#define EXACT RR__K_BF16X3 /* six bf16 products are faster than one in fp32 */
#define FINE  RR__K_BF16X2
enum { FINE_LAYERS = 2 };
#else
#define EXACT RR__K_F32
#define FINE  RR__K_F32
enum { FINE_LAYERS = 3 };
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
#ifndef __AMX_TILE__
#ifdef __AVX512BF16__
BLOCK(bf16, vf, vf_set(0), vf_bits)
#endif
BLOCK(i8, vi, VI(set1, 0), AS_IS)
#endif

/* ---- what follows the sums -------------------------------------------------- */

/* Rows row .. row + rows of columns j .. j + NR of C, whose sums are done. */
typedef struct finishing {
    const rr__packed *w;
    const rr__note   *note;
    const rr__dest   *o;
    const uint32_t   *c; /* [rows, ldc] */
    size_t            ldc;
    int32_t           j, row, rows;
} finishing;

/* Scale, bias, GELU, store, for rows first .. first + rows; all but f and first are constants. Their
 * vectors go through each step side by side: alone each would wait for its own results. */
enum { TOGETHER = 4 };
INLINE void finish_some(const int i8, const int bf16, const int gelu, const int rows,
                        const finishing *f, int32_t first) {
    const rr__packed *w = f->w;
    const size_t      ld = f->o->ld, size = bf16 ? 2 : 4;
    const int32_t     left = w->n - f->j;
    const uint32_t   *c = f->c + (size_t)first * f->ldc;
    const rr__note   *note = f->note + (i8 || w->wt ? f->row + first : 0);
    char *to = (char *)f->o->ptr + ((size_t)(f->row + first) * ld + (size_t)f->j) * size;
    vf    y[2 * TOGETHER];

    UNROLL for (int i = 0; i < 2 * rows; i++) {
        const vi  u = vi_load(c + (size_t)(i / 2) * f->ldc + i % 2 * VL);
        const int j = f->j + i % 2 * VL;

        if (i8) {
            const vf low =
                vf_fma(vf_set(note[i / 2].lift), vf_load(w->drop + j), vf_load(w->bias + j));

            y[i] = VF(mul, vi_to_vf(u), vf_set(note[i / 2].scale));
            y[i] = vf_fma(y[i], vf_load(w->scale + j), low);
        } else {
            y[i] = VF(add, vi_as_vf(u), vf_load(w->bias + j));
        }
    }
    if (w->wt) {
        UNROLL for (int r = 0; r < rows; r++) for (int32_t i = 0; i < note[r].n; i++) {
            const uint16_t *row = w->wt + (size_t)note[r].j[i] * (size_t)w->panels * NR + f->j;
            const vf        x = vf_set(note[r].x[i]);

            y[2 * r] = vf_fma(x, vf_load_f16(row, VL), y[2 * r]);
            y[2 * r + 1] = vf_fma(x, vf_load_f16(row + VL, VL), y[2 * r + 1]);
        }
    }
    if (gelu && bf16)
        vf_gelu_bf16(y, 2 * rows);
    else if (gelu)
        vf_gelu(y, 2 * rows);
    UNROLL for (int i = 0; i < 2 * rows; i += 2) {
        if (bf16 && left >= NR)
            vf_store_bf16_pair((uint16_t *)(void *)to + (size_t)(i / 2) * ld, y[i], y[i + 1]);
    }
    if (bf16 && left >= NR)
        return;
    UNROLL for (int i = 0; i < 2 * rows; i++) {
        char *at = to + ((size_t)(i / 2) * ld + (size_t)(i % 2 * VL)) * size;

        if (i % 2 && left <= VL)
            continue;
        if (bf16)
            vf_store_bf16((void *)at, y[i], left - i % 2 * VL);
        else
            vf_store_n((void *)at, y[i], left - i % 2 * VL);
    }
}

/* One for each combination of flags, for the rows first .. end that are there. */
typedef void finisher(const finishing *f, int32_t first, int32_t end);
#define FINISHER(I8, BF16, GELU)                                                                   \
    static void finish_##I8##BF16##GELU(const finishing *f, int32_t first, int32_t end) {          \
        end = end < f->rows ? end : f->rows;                                                       \
        for (; first + TOGETHER <= end; first += TOGETHER)                                         \
            finish_some(I8, BF16, GELU, TOGETHER, f, first);                                       \
        for (; first < end; first++)                                                               \
            finish_some(I8, BF16, GELU, 1, f, first);                                              \
    }
FINISHER(0, 0, 0)
FINISHER(0, 0, 1)
FINISHER(0, 1, 0)
FINISHER(0, 1, 1)
FINISHER(1, 0, 0)
FINISHER(1, 0, 1)
FINISHER(1, 1, 0)
FINISHER(1, 1, 1)
static finisher *finisher_of(const rr__packed *w, const rr__dest *o) {
    static finisher *const all[2][2][2] = {{{finish_000, finish_001}, {finish_010, finish_011}},
                                           {{finish_100, finish_101}, {finish_110, finish_111}}};

    return all[w->kind == RR__K_I8][o->bf16 != 0][o->gelu != 0];
}

#ifdef __AMX_TILE__
#include "backend/cpu/tiles.h"
#else
static inline void tiles_begin(void) {
}
static inline void tiles_end(void) {
}
#endif

/* c [rows, ldc] = a b^T over units, for up to ROWS rows. */
static void block(rr__kind kind, int32_t rows, int32_t units, const uint32_t *a, size_t lda,
                  const uint32_t *b, uint32_t *c, size_t ldc, const uint32_t *ahead) {
    if (kind == RR__K_F32) {
        rows_f32(rows, units, a, lda, b, c, ldc, ahead);
        return;
    }
#ifdef __AMX_TILE__
    tile_block(kind, rows, units, units, a, lda, b, c, ldc, &(beside){0});
#else
#ifdef __AVX512BF16__
    if (kind == RR__K_BF16) {
        rows_bf16(rows, units, a, lda, b, c, ldc, ahead);
        return;
    }
#endif
    rows_i8(rows, units, a, lda, b, c, ldc, ahead);
#endif
}

static void gemm(const rr__packed *w, const uint32_t *a, size_t lda, const rr__note *note,
                 int32_t rows, const rr__dest *o) {
    _Alignas(64) uint32_t c[ROWS * NR];
    finisher *const       finish = finisher_of(w, o);

#ifdef __AMX_TILE__
    if (w->kind != RR__K_F32) {
        tile_gemm(w, a, lda, note, rows, o);
        return;
    }
#endif
    for (int32_t j = 0; j < w->panels; j++) {
        const uint32_t *b = w->w + (size_t)j * (size_t)w->units * NR;

        for (int32_t r = 0; r < rows; r += ROWS) {
            int32_t         m = rows - r < ROWS ? rows - r : ROWS;
            const uint32_t *ahead = b;

            if (j + 1 < w->panels && r == ROWS) /* the first block waits for this panel itself */
                ahead = b + (size_t)w->units * NR;
            else if (j + 1 < w->panels && r == 2 * ROWS)
                ahead = b + (size_t)w->units * (NR + LINE);
            block(w->kind, m, w->units, a + (size_t)r * lda, lda, b, c, NR, ahead);
            finish(&(finishing){w, note, o, c, NR, j * NR, r, m}, 0, m);
        }
    }
}

#include "backend/cpu/rows.h"

#include "backend/cpu/attend.h"

const rr__kernels KERNELS = {
    .name = ISA,
    .mr = ROWS,
    .nr = NR,
    .tile = GEMM_ROWS,
    .unit_step = TILE,
    .q_bytes = Q_BYTES,
    .half = HALF,
    .exact = EXACT,
    .fine = FINE,
    .fine_layers = FINE_LAYERS,
    .gemm = gemm,
    .layernorm = layernorm,
    .operand = operand,
    .attend = attend,
    .row = row,
    .to_f32 = to_f32,
};
