/* fuzz_st_index.c - model.safetensors.index.json over arbitrary bytes. */
#include "model/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rr__arena    a = {0};
    rr__st_index ix;
    rr_error     err;

    if (rr__st_index_parse("fuzz", data, size, &a, &ix, &err) == RR_OK)
        for (size_t i = 0; i < ix.n; i++)
            if (ix.shard[i] < 0 || ix.shard[i] >= ix.n_file || strchr(ix.file[ix.shard[i]], '/') ||
                !ix.name[i][0])
                abort();
    rr__arena_free(&a);
    return 0;
}
