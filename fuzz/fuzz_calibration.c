/* fuzz_calibration.c - the calibration file's parser over arbitrary bytes. */
#include "quant/quant.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rr__calibration *c;

    if (rr__calibration_parse(data, size, "fuzz", &c, NULL) == RR_OK)
        rr__calibration_free(c);
    return 0;
}
