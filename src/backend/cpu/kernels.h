/* kernels.h - the inner loops of the cpu backend, one table for each instruction set.
 *
 * kernels_body.h holds the code once; kernels_avx2.c, kernels_avx512.c, kernels_avx512_bf16.c and
 * kernels_amx.c compile it with their own flags; isa.c picks a table for the machine it runs on.
 *
 * A GEMM reads its operands in units of 32 bits: one fp32, two bf16, four int8 (or two where the
 * machine has no int8 dot product and int8 values travel as int16). The sum over k runs in one fixed
 * order for each row, whatever the number of rows, so a row has the same bits in any batch. */
#ifndef RR_BACKEND_CPU_KERNELS_H
#define RR_BACKEND_CPU_KERNELS_H

#include "model/model.h"

/* Trained encoders have a few channels ten or fifty times larger than the rest (docs/SPEED.md). In
 * bf16 their rounding, in int8 the scale they force on the row, would be most of all error. So an
 * element beyond a multiple of its row's root mean square is left out of the operand, and its product
 * with the weights is added in fp32 where the sums are finished. */
enum { RR__OUTLIERS = 8 };
typedef struct rr__note { /* about one row of a left operand       */
    float   scale, lift;  /* int8: q = round((x + lift) / scale)   */
    int32_t n;            /* outliers                              */
    int32_t j[RR__OUTLIERS];
    float   x[RR__OUTLIERS];
} rr__note;

/* RR__K_BF16X2 and RR__K_BF16X3 are for machines with AMX: each value as the sum of two bf16 (16 bits of
 * fraction), or of three, which is fp32. The terms lie one after the other along k, in rows of the left
 * operand and in panels. */
typedef enum rr__kind {
    RR__K_F32,
    RR__K_BF16,
    RR__K_I8,
    RR__K_BF16X2,
    RR__K_BF16X3,
    RR__N_KIND
} rr__kind;

static inline int32_t rr__terms(rr__kind kind) {
    return kind == RR__K_BF16X3 ? 3 : kind == RR__K_BF16X2 ? 2 : 1;
}

/* W [n, k] of y = x W^T + b, in panels of nr columns: panel[j][term][unit][nr]. */
typedef struct rr__packed {
    rr__kind  kind;
    int32_t   n, k, units; /* units = 32-bit units of one term along k */
    int32_t   panels;      /* ceil(n / nr)                            */
    uint32_t *w;           /* [panels, terms, units, nr]              */
    float    *bias;        /* [panels * nr]                           */
    float    *scale;       /* [panels * nr] int8: of each column      */
    float    *drop;       /* [panels * nr] int8: minus the sum of each column's weights, for lift */
    uint16_t *wt;         /* [k, panels * nr] fp16, for outliers; NULL = keeps none */
    float     amax;       /* int8: threshold of all rows; 0 = each row's own scale   */
    float    *inv_smooth; /* [k] int8: smoothing, by which x is multiplied; or NULL  */
} rr__packed;

/* Where a GEMM's rows go: (sum + bias), through GELU if asked, as fp32 or bf16.
 * GELU wants half of its argument: of such a product weights and bias are kept halved. */
typedef struct rr__dest {
    void  *ptr;
    size_t ld;   /* elements between rows */
    int    bf16; /* 0: fp32               */
    int    gelu;
} rr__dest;

/* One head of one sequence. Elements are bf16 if that is the kind, and fp32 otherwise. */
typedef struct rr__head {
    const void *q, *k, *v; /* first row of each            */
    void       *out;
    size_t      ld_q, ld_kv, ld_out; /* elements between rows        */
    int32_t     n_q, n, width;       /* queries, keys, head's width  */
    rr__kind    kind;                /* of the two products         */
    /* scratch; P = n rounded up to nr, t = terms of the kind */
    float    *scores;  /* [mr, P + 16]                          */
    uint32_t *kp, *vp; /* packed keys and values, [P, width, t / 2] */
    uint32_t *qt;      /* [mr, t units of width + 16] queries as terms, unless t is 1 */
    uint32_t *probs;   /* [mr, t units of P + 16] the same of what scores become      */
} rr__head;

typedef struct rr__kernels {
    const char *name;
    int32_t     mr, nr;      /* a block of C, kept in registers           */
    int32_t     tile;        /* rows that a thread takes through a chain of products */
    int32_t     unit_step;   /* operands but fp32 are filled up to a multiple of it */
    int32_t     q_bytes;     /* of a quantised activation: 1 or 2         */
    rr__kind    half;        /* of bf16 work: fp32 where no instruction multiplies bf16 */
    rr__kind    exact;       /* of fp32 work in large products                          */
    rr__kind    fine;        /* of bf16 work where bf16 is not enough                   */
    int32_t     fine_layers; /* how many layers that is                                 */

    /* dest = a W^T + b for rows rows of a, lda units apart; note [rows], NULL for fp32. Rows of a, and of
     * dest if that is fp32, end at a multiple of mr: what is in those that nobody asked for does not matter. */
    void (*gemm)(const rr__packed *w, const uint32_t *a, size_t lda, const rr__note *note,
                 int32_t rows, const rr__dest *dest);
    /* x = LN(x + y) * g + b, one row; y may be NULL. */
    void (*layernorm)(float *x, const float *y, const float *g, const float *b, float eps,
                      int32_t d);
    /* One row of fp32, or of bf16 if half, as left operand of m. */
    void (*operand)(const rr__packed *m, const void *x, int half, void *out, rr__note *note);
    void (*attend)(const rr__head *h);
    /* x = t, or x += t, for n elements of a mapped tensor from element first. */
    void (*row)(float *x, const rr__tensor *t, size_t first, int32_t n, int add);
    void (*to_f32)(const uint16_t *x, int32_t n, float *out);
} rr__kernels;

/* The best table for this machine, or the one RR_CPU_ISA names; NULL with *err filled if none. */
const rr__kernels *rr__kernels_pick(rr_error *err);
/* 32-bit units of one term of k elements of a kind. */
int32_t                  rr__units(const rr__kernels *kx, rr__kind kind, int32_t k);
extern const rr__kernels rr__kernels_avx2, rr__kernels_avx512, rr__kernels_avx512_bf16,
    rr__kernels_amx;

#endif
