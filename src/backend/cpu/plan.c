/* plan.c - all memory of the weights or of an instance as one block; see cpu.h. */
#define _GNU_SOURCE /* madvise */
#include "backend/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *rr__plan_take(rr__plan *p, size_t n, size_t size) {
    void *at = p->base ? p->base + p->used : NULL;

    p->used += (n * size + 127) / 64 * 64; /* a cache line spare: vectors may read past the end */
    return at;
}

rr_status rr__plan_alloc(rr__plan *p, const char *what, rr_error *err) {
    const size_t huge = (size_t)2 << 20, size = (p->used + huge - 1) / huge * huge;

    p->base = aligned_alloc(huge, size);
    if (!p->base)
        return rr__fail(err, RR_E_NOMEM, "cpu: no memory for %s (%zu MiB)", what, size >> 20);
    madvise(p->base, size, MADV_HUGEPAGE); /* fewer TLB misses; only a hint */
    memset(p->base, 0, p->used);
    p->used = 0;
    return RR_OK;
}

size_t rr__cpu_ld(int32_t d) {
    return (size_t)d + 32;
}
