/* kernels_amx.c - kernels_body.h compiled for AMX beside AVX-512; flags in mk/parts/cpu.mk. */
#define KERNELS rr__kernels_amx
#define ISA     "amx"
#include "backend/cpu/kernels_body.h"
