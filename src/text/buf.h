/* buf.h - text under way from raw bytes to pieces, with where each byte came from.
 *
 * al[i] is the byte range of the raw text that byte i stands for; kept only when token spans are
 * wanted (spans != 0). Growth failure sticks in oom, checked once at the end. */
#ifndef RR_TEXT_BUF_H
#define RR_TEXT_BUF_H

#include <stddef.h>
#include <stdint.h>

typedef struct rr__range {
    uint32_t start, end;
} rr__range;

typedef struct rr__buf {
    uint8_t   *s;
    rr__range *al;
    size_t     n, cap;
    int        spans, oom;
} rr__buf;

void rr__buf_free(rr__buf *b);
/* Room for n more bytes; 0 when out of memory. */
int rr__buf_room(rr__buf *b, size_t n);
/* Append one code point that stands for a range of the raw text. */
void rr__buf_put(rr__buf *b, uint32_t c, rr__range from);
/* Append bytes start .. end of another text with their ranges. */
void rr__buf_copy(rr__buf *b, const rr__buf *from, size_t start, size_t end);

#endif
