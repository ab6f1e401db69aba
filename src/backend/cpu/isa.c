/* isa.c - which kernels run on this machine; see kernels.h.
 *
 * RR_CPU_ISA=avx2|avx512|avx512_bf16|amx takes that table, for tests and comparisons. */
#define _GNU_SOURCE /* syscall */
#include "backend/cpu/kernels.h"

#include "base/error.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int has_avx2(void) {
    unsigned a, b, c, d;

    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C); /* clang 14 has no name for it */
}

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static int has_avx512_bf16(void) {
    return has_avx512() && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512bf16");
}

/* CPUID.(7,0).EDX says what the processor has. Linux saves tile registers, 8 KB a thread, only for
 * a process that asked (arch_prctl ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA; 5.16 and later). */
static int has_amx(void) {
    enum { BF16 = 1 << 22, TILES = 1 << 24, INT8 = 1 << 25, REQUEST = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;

    return has_avx512_bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           (d & (BF16 | TILES | INT8)) == (BF16 | TILES | INT8) &&
           syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

const rr__kernels *rr__kernels_pick(rr_error *err) {
    static const struct {
        const rr__kernels *table;
        int (*runs)(void);
    } all[] = {{&rr__kernels_amx, has_amx},
               {&rr__kernels_avx512_bf16, has_avx512_bf16},
               {&rr__kernels_avx512, has_avx512},
               {&rr__kernels_avx2, has_avx2}};
    const char *want = getenv("RR_CPU_ISA");

    __builtin_cpu_init();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if ((!want || !*want || strcmp(want, all[i].table->name) == 0) && all[i].runs())
            return all[i].table;
    if (want && *want)
        rr__fail(err, RR_E_UNSUPPORTED,
                 "RR_CPU_ISA=%s: not known, or not on this machine (avx2, avx512, "
                 "avx512_bf16, amx)",
                 want);
    else
        rr__fail(err, RR_E_UNSUPPORTED, "the cpu backend needs AVX2, FMA and F16C; use ref");
    return NULL;
}
