/* fuzz_safetensors.c - headers over arbitrary bytes; every tensor it accepts lies inside the file. */
#include "model/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rr__arena a = {0};
    rr__st    st;
    rr_error  err;

    if (rr__st_parse("fuzz", data, size, &a, &st, &err) == RR_OK)
        for (size_t i = 0; i < st.n; i++) {
            const rr__st_tensor *t = &st.tensor[i];
            const unsigned char *p = t->data;

            if (t->bytes && (p < data || t->bytes > size || p > data + size - t->bytes))
                abort();
            if (rr__st_find(&st, t->name) != t)
                abort();
        }
    rr__arena_free(&a);
    return 0;
}
