/* buf.c - see buf.h. */
#include "text/buf.h"

#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

void rr__buf_free(rr__buf *b) {
    free(b->s);
    free(b->al);
    *b = (rr__buf){0};
}

int rr__buf_room(rr__buf *b, size_t n) {
    size_t cap;
    void  *p;

    if (b->cap - b->n >= n)
        return 1;
    if (b->oom || n > SIZE_MAX / 32 - b->n)
        goto fail;
    cap = b->n + n + b->cap / 2 + 64;
    p = realloc(b->s, cap);
    if (!p)
        goto fail;
    b->s = p;
    if (b->spans) {
        p = realloc(b->al, cap * sizeof *b->al);
        if (!p)
            goto fail;
        b->al = p;
    }
    b->cap = cap;
    return 1;
fail:
    b->oom = 1;
    return 0;
}

void rr__buf_put(rr__buf *b, uint32_t c, rr__range from) {
    int n;

    if (!rr__buf_room(b, 4))
        return;
    n = rr__utf8_put(b->s + b->n, c);
    if (b->spans)
        for (int i = 0; i < n; i++)
            b->al[b->n + (size_t)i] = from;
    b->n += (size_t)n;
}

void rr__buf_copy(rr__buf *b, const rr__buf *from, size_t start, size_t end) {
    size_t n = end - start;

    if (n == 0 || !rr__buf_room(b, n))
        return;
    memcpy(b->s + b->n, from->s + start, n);
    if (b->spans)
        memcpy(b->al + b->n, from->al + start, n * sizeof *b->al);
    b->n += n;
}
