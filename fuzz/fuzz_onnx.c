/* fuzz_onnx.c - the ONNX checker over arbitrary bytes, external data looked for in this folder. Every
 * finding is text that ends. */
#include "onnx/onnx.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void finding(void *user, rr__onnx_level level, const char *text) {
    size_t *n = user;

    (void)level;
    if (!*text || strlen(text) >= 512)
        abort();
    ++*n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rr__onnx_report r = {0};
    size_t          n = 0;
    rr_error        err;

    if (rr__onnx_check(data, size, ".", finding, &n, &r, &err) == RR_OK &&
        r.n_fault + r.n_warning > n)
        abort();
    return 0;
}
