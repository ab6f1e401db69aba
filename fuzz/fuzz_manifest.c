/* fuzz_manifest.c - the parser of an engine's manifest over arbitrary bytes; what it takes is then
 * checked as an engine would be. */
#include "backend/trt/manifest.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rr__trt_manifest m;
    rr__trt_here     h = {.sm = 86};

    if (rr__trt_manifest_parse(data, size, "fuzz", &m, NULL) != RR_OK)
        return 0;
    for (int32_t i = 0; i < m.n_profile; i++)
        for (int k = 0; k < 2; k++)
            if (m.profile[i].min[k] < 1 || m.profile[i].min[k] > m.profile[i].opt[k] ||
                m.profile[i].opt[k] > m.profile[i].max[k])
                abort();
    memcpy(h.model_hash, m.model_hash, sizeof h.model_hash);
    memcpy(h.plan_hash, m.plan_hash, sizeof h.plan_hash);
    memcpy(h.library, m.library, sizeof h.library);
    rr__trt_fresh(&m, &h, "fuzz", NULL);
    return 0;
}
