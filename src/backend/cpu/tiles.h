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
    int         add;         /* to what c holds                      */
    const char *ahead;       /* the next panel at the same k         */
    int32_t     line, lines; /* first, and how many, of it in a term of a step */
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
    const char   *ahead = x->ahead + (size_t)x->line * 64;
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
        for (int j = 0; j < terms; j++)
            for (int32_t i = 0; i < x->lines; i++)
                _mm_prefetch(ahead + (size_t)j * next_b * 4 + (size_t)i * 64, _MM_HINT_T1);
        ahead += TILE * NR * 4;
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

/* What the caches hold, in units. Of a panel as much as stays in the first-level cache (RUN), beside rows
 * that stream past it, is multiplied for all rows before its next run of k (unless terms are many: then
 * multiplying takes long enough). The rows themselves stay
 * in the second-level cache: if they are too long (FIT), fewer at a time, or better slices of them (SLICE).
 * Then all panels see a slice before the next one, and sums wait where the results will be, if
 * these are few enough (WIDE) to stay there too. */
enum { RUN = 256, SLICE = 512, FIT = 3 << 17, WIDE = 1024 };

/* For rows <= GEMM_ROWS, of which a slice of k goes through all panels. */
static void tile_rows(const rr__packed *w, const uint32_t *a, size_t lda, const rr__note *note,
                      int32_t rows, const rr__dest *o, int32_t slice) {
    _Alignas(64) uint32_t c[GEMM_ROWS * NR];
    const size_t          panel = (size_t)w->units * (size_t)rr__terms(w->kind) * NR;
    const int32_t         blocks = (rows + ROWS - 1) / ROWS, of_step = TILE * NR / LINE;
    const int32_t         run = rr__terms(w->kind) == 1 && RUN < slice ? RUN : slice;
    const int             wait = slice < w->units;
    const size_t          ldc = wait ? o->ld : NR;
    beside x = {.finish = finisher_of(w, o), .lines = (of_step + blocks - 1) / blocks};

    for (int32_t first = 0; first < w->units; first += slice)
        for (int32_t j = 0; j < w->panels; j++) {
            const uint32_t *b = w->w + (size_t)j * panel;
            uint32_t       *sums = wait ? (uint32_t *)o->ptr + j * NR : c;
            const int32_t   end = first + slice < w->units ? first + slice : w->units;

            for (int32_t u = first; u < end; u += run) {
                const int32_t units = end - u < run ? end - u : run;

                x.add = u > 0;
                x.ahead = (const char *)(b + (size_t)u * NR + (j + 1 < w->panels ? panel : 0));
                x.line = 0;
                for (int32_t r = 0; r < rows; r += ROWS) {
                    uint32_t     *to = sums + (size_t)r * ldc;
                    const int32_t m = rows - r < ROWS ? rows - r : ROWS;

                    tile_block(w->kind, m, w->units, units, a + (size_t)r * lda + u, lda,
                               b + (size_t)u * NR, to, ldc, &x);
                    x.before =
                        (finishing){w, note, o, to, ldc, j * NR, r, u + units < w->units ? 0 : m};
                    x.line += x.lines;
                }
            }
        }
    x.finish(&x.before, 0, x.before.rows);
}

static void tile_gemm(const rr__packed *w, const uint32_t *a, size_t lda, const rr__note *note,
                      int32_t rows, const rr__dest *o) {
    const int32_t terms = rr__terms(w->kind), fit = FIT / (w->units * terms);
    const int     sliced = !o->bf16 && w->n % NR == 0 && w->n <= WIDE && rows > fit;
    const int32_t parts = sliced || rows <= fit ? 1 : (rows + fit - 1) / fit;
    const int32_t step = (rows + parts * ROWS - 1) / (parts * ROWS) * ROWS;
    const size_t  size = o->bf16 ? 2 : 4;

    tiles_begin();
    for (int32_t r = 0; r < rows; r += step) {
        const rr__dest part = {(char *)o->ptr + (size_t)r * o->ld * size, o->ld, o->bf16, o->gelu};

        tile_rows(w, a + (size_t)r * lda, lda, note + r, rows - r < step ? rows - r : step, &part,
                  sliced ? SLICE / terms / TILE * TILE : w->units);
    }
    tiles_end();
}

#endif
