/* tiles.h - the block of kernels_body.h on AMX: sums of 32 x 32 in four tile registers.
 *
 * A packed panel [unit][32 columns] already is what the B tiles want, 16 units by 16 columns, and
 * 16 rows of a left operand are an A tile. Every tile is configured whole, 16 rows of 64 bytes: where
 * rows or units end inside a tile, a copy filled up with zeros is loaded, which adds zeros to the
 * sums and so changes no bit. Rows do not see each other: a row's bits depend on the row alone. */
#ifndef RR_BACKEND_CPU_TILES_H
#define RR_BACKEND_CPU_TILES_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { TILE = 16 }; /* rows, and 32-bit units of a row, of one tile register */

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

/* A tile's worth of rows ld units apart: in place, or the copy where it would reach too far. */
typedef struct tile_at {
    const uint32_t *ptr;
    size_t          stride; /* bytes */
} tile_at;

static inline tile_at tile_of(const uint32_t *p, size_t ld, int rows, int32_t units,
                              uint32_t copy[TILE * TILE]) {
    if (rows >= TILE && units >= TILE)
        return (tile_at){p, ld * 4};
    rows = rows < TILE ? rows : TILE;
    units = units < TILE ? units : TILE;
    memset(copy, 0, TILE * TILE * sizeof *copy);
    for (int r = 0; r < rows; r++)
        memcpy(copy + r * TILE, p + (size_t)r * ld, (size_t)units * sizeof *copy);
    return (tile_at){copy, TILE * 4};
}

/* c [rows up to the next 16, 32] = sum over units, for up to 32 rows; c has room for whole tiles. */
#define TILES(KIND, DP)                                                                            \
    static void rows_##KIND(int rows, int32_t units, const uint32_t *a, size_t lda,                \
                            const uint32_t *b, uint32_t *c, size_t ldc, const uint32_t *ahead) {   \
        _Alignas(64) uint32_t copy[4][TILE * TILE];                                                \
        _tile_zero(0);                                                                             \
        _tile_zero(1);                                                                             \
        _tile_zero(2);                                                                             \
        _tile_zero(3);                                                                             \
        for (int32_t u = 0; u < units; u += TILE) {                                                \
            const int32_t left = units - u;                                                        \
            for (int32_t i = u; i < units && i < u + TILE; i++)                                    \
                prefetch(ahead + (size_t)i * LINE);                                                \
            const tile_at a0 = tile_of(a + u, lda, rows, left, copy[0]);                           \
            const tile_at b0 = tile_of(b + u * 2 * TILE, 2 * TILE, left, TILE, copy[1]);           \
            const tile_at b1 = tile_of(b + u * 2 * TILE + TILE, 2 * TILE, left, TILE, copy[2]);    \
            _tile_loadd(4, a0.ptr, a0.stride);                                                     \
            _tile_loadd(6, b0.ptr, b0.stride);                                                     \
            _tile_loadd(7, b1.ptr, b1.stride);                                                     \
            DP(0, 4, 6);                                                                           \
            DP(1, 4, 7);                                                                           \
            if (rows > TILE) {                                                                     \
                const tile_at a1 = tile_of(a + TILE * lda + u, lda, rows - TILE, left, copy[3]);   \
                _tile_loadd(5, a1.ptr, a1.stride);                                                 \
                DP(2, 5, 6);                                                                       \
                DP(3, 5, 7);                                                                       \
            }                                                                                      \
        }                                                                                          \
        _tile_stored(0, c, ldc * 4);                                                               \
        _tile_stored(1, c + TILE, ldc * 4);                                                        \
        if (rows > TILE) {                                                                         \
            _tile_stored(2, c + TILE * ldc, ldc * 4);                                              \
            _tile_stored(3, c + TILE * ldc + TILE, ldc * 4);                                       \
        }                                                                                          \
    }
TILES(bf16, _tile_dpbf16ps)
TILES(i8, _tile_dpbusd)

#endif
