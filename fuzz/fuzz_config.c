/* fuzz_config.c - config.json over arbitrary bytes; what it accepts must be a possible model. */
#include "model/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rr__arena  a = {0};
    rr__config c;
    rr_error   err;

    if (rr__config_parse("fuzz", data, size, &a, &c, &err) == RR_OK) {
        if (c.n_layer < 1 || c.d_model < 1 || c.n_head < 1 || c.d_model % c.n_head || c.d_ff < 1 ||
            c.vocab_size < 1 || c.n_type < 1 || c.pad_id < 0 || !(c.ln_eps > 0) || !c.arch)
            abort();
        if (c.arch->pos_behind_pad && c.n_pos - c.pad_id - 1 < 1)
            abort();
    } else {
        for (const char *p = err.text; *p; p++) /* a message is one clean line */
            if ((unsigned char)*p < 0x20)
                abort();
    }
    rr__arena_free(&a);
    return 0;
}
