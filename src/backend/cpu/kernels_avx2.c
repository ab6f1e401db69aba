/* kernels_avx2.c - kernels_body.h compiled for AVX2; flags in mk/parts/cpu.mk. */
#define KERNELS rr__kernels_avx2
#define ISA     "avx2"
#include "backend/cpu/kernels_body.h"
