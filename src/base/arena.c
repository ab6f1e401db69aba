/* arena.c - see arena.h. Blocks double in size, so n bytes cost O(log n) calls of malloc. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16, FIRST_BLOCK = 4096 };

struct rr__arena_block {
    rr__arena_block *older;
    size_t           used, cap;
    _Alignas(ALIGN) unsigned char data[];
};

static rr__arena_block *block_new(rr__arena *a, size_t size) {
    size_t           cap = a->head ? a->head->cap * 2 : FIRST_BLOCK;
    rr__arena_block *b;

    if (cap < size)
        cap = size;
    if (cap > SIZE_MAX / 4)
        return NULL;
    b = malloc(sizeof *b + cap);
    if (!b)
        return NULL;
    b->older = a->head;
    b->used = 0;
    b->cap = cap;
    a->head = b;
    return b;
}

void *rr__arena_alloc(rr__arena *a, size_t size) {
    rr__arena_block *b = a->head;
    void            *p;

    if (size > SIZE_MAX / 4)
        return NULL;
    size = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (!b || b->cap - b->used < size) {
        b = block_new(a, size);
        if (!b)
            return NULL;
    }
    p = b->data + b->used;
    b->used += size;
    return p;
}

void *rr__arena_calloc(rr__arena *a, size_t n, size_t size) {
    void *p;

    if (size && n > SIZE_MAX / size)
        return NULL;
    p = rr__arena_alloc(a, n * size);
    if (p)
        memset(p, 0, n * size);
    return p;
}

char *rr__arena_strndup(rr__arena *a, const char *ptr, size_t len) {
    char *p = len < SIZE_MAX ? rr__arena_alloc(a, len + 1) : NULL;

    if (p) {
        if (len)
            memcpy(p, ptr, len);
        p[len] = '\0';
    }
    return p;
}

char *rr__arena_printf(rr__arena *a, const char *fmt, ...) {
    va_list ap, again;
    char   *p = NULL;
    int     n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    if (n >= 0)
        p = rr__arena_alloc(a, (size_t)n + 1);
    if (p)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    return p;
}

static void free_older(rr__arena_block *b) {
    while (b) {
        rr__arena_block *older = b->older;

        free(b);
        b = older;
    }
}

void rr__arena_reset(rr__arena *a) {
    if (!a->head)
        return;
    free_older(a->head->older); /* the newest block is the largest */
    a->head->older = NULL;
    a->head->used = 0;
}

void rr__arena_free(rr__arena *a) {
    free_older(a->head);
    a->head = NULL;
}
