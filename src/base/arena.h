/* arena.h - memory that lives and dies together: one request, one line, one open model.
 *
 *     rr__arena a = {0};
 *     char     *p = rr__arena_alloc(&a, 100);   // 16-byte aligned, NULL when out of memory
 *     rr__arena_reset(&a);                      // all gone, the largest block kept for reuse
 *     rr__arena_free(&a);
 *
 * Not thread-safe. */
#ifndef RR_BASE_ARENA_H
#define RR_BASE_ARENA_H

#include "base/error.h"

typedef struct rr__arena_block rr__arena_block;

typedef struct rr__arena {
    rr__arena_block *head; /* newest block, the one being filled */
} rr__arena;

void *rr__arena_alloc(rr__arena *a, size_t size);
/* n * size zeroed bytes; NULL also when the product overflows. */
void *rr__arena_calloc(rr__arena *a, size_t n, size_t size);
/* A copy of len bytes with a NUL behind them. */
char *rr__arena_strndup(rr__arena *a, const char *ptr, size_t len);
/* Formatted text; NULL when out of memory. */
char *rr__arena_printf(rr__arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void rr__arena_reset(rr__arena *a);
void rr__arena_free(rr__arena *a);

#endif
