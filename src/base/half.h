/* half.h - fp16 and bf16 to and from fp32, scalar, round to nearest even. */
#ifndef RR_BASE_HALF_H
#define RR_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float rr__bits_f32(uint32_t u) {
    float f;

    memcpy(&f, &u, 4);
    return f;
}

static inline uint32_t rr__f32_bits(float f) {
    uint32_t u;

    memcpy(&u, &f, 4);
    return u;
}

static inline float rr__bf16_to_f32(uint16_t h) {
    return rr__bits_f32((uint32_t)h << 16);
}

static inline uint16_t rr__f32_to_bf16(float f) {
    uint32_t u = rr__f32_bits(f);

    if ((u & 0x7fffffff) > 0x7f800000) /* NaN stays NaN */
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float rr__f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 1023;

    if (exp == 31)
        return rr__bits_f32(sign | 0x7f800000 | man << 13);
    if (exp == 0) /* zero or subnormal: man * 2^-24 is exact in fp32 */
        return rr__bits_f32(sign | rr__f32_bits((float)man * 5.9604644775390625e-8f));
    return rr__bits_f32(sign | (exp + 112) << 23 | man << 13);
}

#endif
