/* kernels_avx512_bf16.c - kernels_body.h compiled for AVX-512 with VNNI and BF16; flags in mk/parts/cpu.mk. */
#define KERNELS rr__kernels_avx512_bf16
#define ISA     "avx512_bf16"
#include "backend/cpu/kernels_body.h"
