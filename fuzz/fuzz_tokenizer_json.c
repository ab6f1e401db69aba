/* fuzz_tokenizer_json.c - tokenizer.json over arbitrary bytes. */
#include "fuzz_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rr__tokenizer *t = NULL;
    rr_error       err = {0};
    rr_status      st = rr__tokenizer_from_json(data, size, "fuzz", &t, &err);

    check_tokenizer(st, t, &err, data, size);
    return 0;
}
