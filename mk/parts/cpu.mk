# cpu.mk - the cpu backend's kernels, compiled for each instruction set.
AVX512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512
CFLAGS_kernels_avx2        := -mavx2 -mfma -mf16c
CFLAGS_kernels_avx512      := $(AVX512)
CFLAGS_kernels_avx512_bf16 := $(AVX512) -mavx512vnni -mavx512bf16
