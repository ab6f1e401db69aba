/* half.h - fp16, bf16 and fp8 (e4m3) to and from fp32, scalar, round to nearest even. */
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

static inline uint16_t rr__f32_to_f16(float f) {
    uint32_t u = rr__f32_bits(f), sign = u >> 16 & 0x8000, mag = u & 0x7fffffff;

    if (mag > 0x7f800000) /* NaN */
        return (uint16_t)(sign | 0x7e00);
    if (mag >= 0x477ff000) /* rounds to 65536 or more: infinity */
        return (uint16_t)(sign | 0x7c00);
    if (mag < 0x38800000) /* subnormal: adding 0.5 leaves mag * 2^24 rounded in the low bits */
        return (uint16_t)(sign | (rr__f32_bits(rr__bits_f32(mag) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | (mag - 0x38000000 + 0xfff + (mag >> 13 & 1)) >> 13);
}

/* e4m3fn: bias 7, largest 448, no infinity; values beyond saturate as ONNX and CUDA do. */
static inline uint8_t rr__f32_to_e4m3(float f) {
    uint32_t u = rr__f32_bits(f), sign = u >> 24 & 0x80, mag = u & 0x7fffffff;

    if (mag > 0x7f800000)
        return (uint8_t)(sign | 0x7f);
    if (mag >= 0x43e00000) /* 448 */
        return (uint8_t)(sign | 0x7e);
    if (mag < 0x3c800000) /* below 2^-6: subnormal, steps of 2^-9 */
        return (uint8_t)(sign | (rr__f32_bits(rr__bits_f32(mag) + 16384.0f) - 0x46800000));
    return (uint8_t)(sign | (mag - 0x3c000000 + 0x7ffff + (mag >> 20 & 1)) >> 20);
}

static inline float rr__e4m3_to_f32(uint8_t h) {
    uint32_t sign = (uint32_t)(h & 0x80) << 24, exp = h >> 3 & 15, man = h & 7;

    if (exp == 15 && man == 7)
        return rr__bits_f32(sign | 0x7fc00000);
    if (exp == 0)
        return rr__bits_f32(sign | rr__f32_bits((float)man * 0.001953125f)); /* 2^-9 */
    return rr__bits_f32(sign | (exp + 120) << 23 | man << 20);
}

#endif
