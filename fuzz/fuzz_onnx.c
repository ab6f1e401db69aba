/* fuzz_onnx.c - the ONNX checker over arbitrary bytes. */
#include "onnx/onnx.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rr__onnx_check(data, size, NULL, NULL, NULL, NULL, NULL);
    return 0;
}
