/* fuzz_vocab.c - vocab.txt over arbitrary bytes; what stands before a NUL is tokenizer_config.json. */
#include "fuzz_tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t         n_config = nul ? (size_t)(nul - data) : 0, skip = nul ? n_config + 1 : 0;
    rr__tokenizer *t = NULL;
    rr_error       err = {0};
    rr_status      st = rr__tokenizer_from_vocab(
             data + skip, size - skip, (rr_str){(const char *)data, n_config}, "fuzz", &t, &err);

    check_tokenizer(st, t, &err, data, size);
    return 0;
}
