/* utf8.h - decoding and encoding of UTF-8.
 *
 * Text is made valid once, at the door (rr__utf8_sanitize); everything behind it decodes without
 * checks. Invalid bytes become U+FFFD by the practice of "maximal subparts", as Rust's
 * from_utf8_lossy and Python's errors="replace" do. */
#ifndef RR_TEXT_UTF8_H
#define RR_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the well-formed sequence at p (1..4), or minus the bytes of the maximal subpart that
 * one U+FFFD stands for (-1..-3). p < end. */
static inline int rr__utf8_check(const uint8_t *p, const uint8_t *end) {
    uint8_t b = *p, low = 0x80, high = 0xbf;
    int     n;

    if (b < 0x80)
        return 1;
    if (b < 0xc2 || b > 0xf4)
        return -1;
    n = b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
    if (b == 0xe0)
        low = 0xa0; /* no overlong forms */
    else if (b == 0xed)
        high = 0x9f; /* no surrogates */
    else if (b == 0xf0)
        low = 0x90;
    else if (b == 0xf4)
        high = 0x8f; /* nothing above U+10FFFF */
    for (int i = 1; i < n; i++) {
        if (p + i == end || p[i] < low || p[i] > high)
            return -i;
        low = 0x80;
        high = 0xbf;
    }
    return n;
}

static inline int rr__utf8_len(uint8_t lead) {
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* The code point at p of valid text. */
static inline uint32_t rr__utf8_get(const uint8_t *p) {
    if (p[0] < 0x80)
        return p[0];
    if (p[0] < 0xe0)
        return (uint32_t)(p[0] & 31) << 6 | (p[1] & 63);
    if (p[0] < 0xf0)
        return (uint32_t)(p[0] & 15) << 12 | (uint32_t)(p[1] & 63) << 6 | (p[2] & 63);
    return (uint32_t)(p[0] & 7) << 18 | (uint32_t)(p[1] & 63) << 12 | (uint32_t)(p[2] & 63) << 6 |
           (p[3] & 63);
}

/* Write c at out (room for 4); returns its bytes. */
static inline int rr__utf8_put(uint8_t *out, uint32_t c) {
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 63));
        out[2] = (uint8_t)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    out[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

#endif
