/* tiles.h - the sums of kernels_body.h on AMX: a block of 32 x 32 in four tile registers.
 *
 * A packed panel [unit][32 columns] already is what the B tiles want, 16 units by 16 columns, and
 * 16 rows of a left operand are an A tile. Panels end in whole tiles, filled up with zeros, so it
 * does not matter what lies behind a row's last unit, if it is finite; and rows do not see each
 * other, so a block may read rows that are not there (cpu.c leaves room for them) as long as nobody
 * looks at their sums. A row's bits depend on the row alone.
 *
 * Of operands of several bf16 terms (kernels.h) the products of terms i and j with i + j below their
 * number go into the same sums; the others would be below the last bit. For one k the tiles of all
 * terms come one after the other, so that the second time they come from the first-level cache.
 *
 * A block reads as much from its rows as from its panel. Both do not fit into the first-level cache, so
 * rows come by loads that leave no trace there, and long panels are multiplied in runs of k.
 *
 * Multiplying leaves most of the vector units idle (a TDP keeps one of two FMA ports). So between two
 * steps over k some rows of the block before are finished, and a few lines of the next panel are asked
 * for. */
#ifndef RR_BACKEND_CPU_TILES_H
#define RR_BACKEND_CPU_TILES_H

/* Tile registers exist for a thread between these two; gemm and attend call them. */
static inline void tiles_begin(void) {
    struct {
        uint8_t  palette, start, unused[14];
        uint16_t bytes[16];
        uint8_t  rows[16];
    } config = {.palette = 1};

    for (int i = 0; i < 8; i++) {
        config.bytes[i] = 64;
        config.rows[i] = TILE;
    }
    _tile_loadconfig(&config);
}
static inline void tiles_end(void) {
    _tile_release();
}

/* What a block does beside its sums. */
typedef struct beside {
    finishing   before; /* the block before, .rows == 0: none   */
    finisher   *finish;
    int         add;   /* to what c holds                      */
    const char *ahead; /* memory that will be wanted, or NULL  */
    int32_t     lines; /* of it, a step                        */
} beside;

#define LOAD_A(r)                                                                                  \
    do {                                                                                           \
        _tile_stream_loadd(4, (r), stride);                                                        \
        if (two)                                                                                   \
            _tile_stream_loadd(5, (r) + TILE * lda, stride);                                       \
    } while (0)
#define LOAD_B(r)                                                                                  \
    do {                                                                                           \
        _tile_loadd(6, (r), NR * 4);                                                               \
        _tile_loadd(7, (r) + TILE, NR * 4);                                                        \
    } while (0)
#define MULTIPLY(DP)                                                                               \
    do {                                                                                           \
        DP(0, 4, 6);                                                                               \
        DP(1, 4, 7);                                                                               \
        if (two) {                                                                                 \
            DP(2, 5, 6);                                                                           \
            DP(3, 5, 7);                                                                           \
        }                                                                                          \
    } while (0)

/* c [16 or 32, 32] = a b^T over units of each term, which is all units long; all int but these two are
 * constants. */
INLINE void tile_sums(const int i8, const int terms, const int two, int32_t all, int32_t units,
                      const uint32_t *a, size_t lda, const uint32_t *b, uint32_t *c, size_t ldc,
                      const beside *x) {
    const size_t  stride = lda * 4, next_b = (size_t)all * NR;
    const int32_t steps = units / TILE;
    const char   *ahead = x->ahead;
    int32_t       row = 0, due = 0;

    if (x->add) {
        _tile_stream_loadd(0, c, ldc * 4);
        _tile_stream_loadd(1, c + TILE, ldc * 4);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    if (two && x->add) {
        _tile_stream_loadd(2, c + TILE * ldc, ldc * 4);
        _tile_stream_loadd(3, c + TILE * ldc + TILE, ldc * 4);
    } else if (two) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int32_t u = 0; u < units; u += TILE, a += TILE, b += TILE * NR) {
        for (int j = 0; j < terms; j++) {
            LOAD_B(b + (size_t)j * next_b);
            for (int s = 0; s < terms - j; s++) {
                const int i = j ? s : terms - 1 - s; /* down, then up: a's first term stays */

                if (j != 1 || i != 0)
                    LOAD_A(a + i * all);
                if (i8)
                    MULTIPLY(_tile_dpbusd);
                else
                    MULTIPLY(_tile_dpbf16ps);
            }
        }
        for (int32_t i = 0; i < x->lines; i++, ahead += 64)
            _mm_prefetch(ahead, _MM_HINT_T1);
        due += x->before.rows;
        if (due > row * steps) {
            const int32_t end = (due + TOGETHER * steps - 1) / (TOGETHER * steps) * TOGETHER;

            x->finish(&x->before, row, end);
            row = end;
        }
    }
    _tile_stored(0, c, ldc * 4);
    _tile_stored(1, c + TILE, ldc * 4);
    if (two) {
        _tile_stored(2, c + TILE * ldc, ldc * 4);
        _tile_stored(3, c + TILE * ldc + TILE, ldc * 4);
    }
}

/* The same for up to 32 rows of an operand of some kind. c has room for whole tiles. */
static void tile_block(rr__kind kind, int32_t rows, int32_t all, int32_t units, const uint32_t *a,
                       size_t lda, const uint32_t *b, uint32_t *c, size_t ldc, const beside *x) {
#define OF_KIND(I8, TERMS)                                                                         \
    if (rows > TILE)                                                                               \
        tile_sums(I8, TERMS, 1, all, units, a, lda, b, c, ldc, x);                                 \
    else                                                                                           \
        tile_sums(I8, TERMS, 0, all, units, a, lda, b, c, ldc, x);                                 \
    break
    switch (kind) {
    case RR__K_BF16:
        OF_KIND(0, 1);
    case RR__K_BF16X2:
        OF_KIND(0, 2);
    case RR__K_BF16X3:
        OF_KIND(0, 3);
    default:
        OF_KIND(1, 1);
    }
#undef OF_KIND
}

/* Units along k that are multiplied for all rows before the next ones: as much of a panel as stays in
 * the first-level cache beside the rows, which stream past it. And units of all rows that go through
 * the panels together: half of the second-level cache. */
enum { RUN = 256, SHARE = 1 << 18 };

/* For rows <= GEMM_ROWS. */
static void tile_rows(const rr__packed *w, const uint32_t *a, size_t lda, const rr__note *note,
                      int32_t rows, const rr__dest *o) {
    _Alignas(64) uint32_t c[GEMM_ROWS * NR];
    const size_t          panel = (size_t)w->units * (size_t)rr__terms(w->kind) * NR;
    const int32_t         blocks = (rows + ROWS - 1) / ROWS;
    const int32_t         lines = ((int32_t)panel / LINE * TILE / w->units + blocks - 1) / blocks;
    const int32_t         run = rr__terms(w->kind) == 1 ? RUN : w->units;
    beside                x = {.lines = lines, .finish = finisher_of(w, o)};

    for (int32_t j = 0; j < w->panels; j++) {
        const uint32_t *b = w->w + (size_t)j * panel;

        x.ahead = (const char *)(b + (j + 1 < w->panels ? panel : 0));
        for (int32_t u = 0; u < w->units; u += run) {
            const int32_t units = w->units - u < run ? w->units - u : run;

            x.add = u > 0;
            for (int32_t r = 0; r < rows; r += ROWS) {
                uint32_t     *to = c + (size_t)r * NR;
                const int32_t m = rows - r < ROWS ? rows - r : ROWS;

                tile_block(w->kind, m, w->units, units, a + (size_t)r * lda + u, lda,
                           b + (size_t)u * NR, to, NR, &x);
                x.before = (finishing){w, note, o, to, j * NR, r, u + run < w->units ? 0 : m};
                x.ahead += (size_t)lines * (size_t)(units / TILE) * 64;
            }
        }
    }
    x.finish(&x.before, 0, x.before.rows);
}

static void tile_gemm(const rr__packed *w, const uint32_t *a, size_t lda, const rr__note *note,
                      int32_t rows, const rr__dest *o) {
    const int32_t fit = SHARE / (w->units * rr__terms(w->kind)) / ROWS * ROWS;
    const int32_t step = fit < ROWS ? ROWS : fit < GEMM_ROWS ? fit : GEMM_ROWS;
    const size_t  size = o->bf16 ? 2 : 4;

    tiles_begin();
    for (int32_t r = 0; r < rows; r += step) {
        const rr__dest part = {(char *)o->ptr + (size_t)r * o->ld * size, o->ld, o->bf16, o->gelu};

        tile_rows(w, a + (size_t)r * lda, lda, note + r, rows - r < step ? rows - r : step, &part);
    }
    tiles_end();
}

#endif
