/* tensor.c - elements of a mapped tensor as fp32; see model.h. */
#include "base/half.h"
#include "model/model.h"

const char *rr__dtype_name(rr__dtype dtype) {
    return dtype == RR__DT_F32 ? "F32" : dtype == RR__DT_F16 ? "F16" : "BF16";
}

size_t rr__dtype_size(rr__dtype dtype) {
    return dtype == RR__DT_F32 ? 4 : 2;
}

void rr__tensor_f32(const rr__tensor *t, size_t first, size_t n, float *out) {
    const unsigned char *p = (const unsigned char *)t->data + first * rr__dtype_size(t->dtype);
    uint16_t             h;

    switch (t->dtype) { /* memcpy: a file may align a tensor to nothing */
    case RR__DT_F32:
        memcpy(out, p, n * 4);
        break;
    case RR__DT_F16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&h, p + 2 * i, 2);
            out[i] = rr__f16_to_f32(h);
        }
        break;
    case RR__DT_BF16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&h, p + 2 * i, 2);
            out[i] = rr__bf16_to_f32(h);
        }
        break;
    }
}
