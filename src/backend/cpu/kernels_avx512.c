/* kernels_avx512.c - kernels_body.h compiled for AVX-512; flags in mk/parts/cpu.mk. */
#define KERNELS rr__kernels_avx512
#define ISA     "avx512"
#include "backend/cpu/kernels_body.h"
