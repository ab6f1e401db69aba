/* fuzz_gunzip.c - a gzip body: never more than allowed comes out, and what comes out at one limit comes
 * out at any higher one. */
#include "server/gunzip.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char         *a, *b;
    size_t        n_a, n_b, cap, most;
    rr__gunzip_rc rc;

    if (size < 2)
        return 0;
    most = (size_t)data[0] * 256 + data[1];
    data += 2;
    size -= 2;
    rc = rr__gunzip((const char *)data, size, most, &a, &n_a, &cap);
    if (rc != RR__GUNZIP_OK)
        return 0;
    if (n_a > most || cap < n_a)
        abort();
    if (rr__gunzip((const char *)data, size, 1 << 20, &b, &n_b, &cap) != RR__GUNZIP_OK ||
        n_a != n_b || memcmp(a, b, n_a) != 0)
        abort();
    free(a);
    free(b);
    if (n_a > 0 &&
        rr__gunzip((const char *)data, size, n_a - 1, &b, &n_b, &cap) != RR__GUNZIP_LARGE)
        abort();
    return 0;
}
