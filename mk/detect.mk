# detect.mk - what this machine has; sets WITH_*, LIB_LIBS, CLI_LIBS, MODULES and prints a report.
have_header = $(shell $(CC) $(2) -include $(1) -E -x c /dev/null >/dev/null 2>&1 && echo 1)

# cpu backend: its kernels are x86-64 only; which of them run is decided at run time
WITH_CPU := $(if $(filter x86_64-%,$(shell $(CC) -dumpmachine 2>/dev/null)),1)
ifneq ($(WITH_CPU),)
CPPFLAGS += -DRR_WITH_CPU
endif

# ONNX: protobuf-c, its runtime and its compiler
WITH_ONNX := $(if $(call have_header,protobuf-c/protobuf-c.h),$(shell command -v protoc-c))
ifneq ($(WITH_ONNX),)
CPPFLAGS += -DRR_WITH_ONNX -I$(BUILD)/gen
LIB_LIBS += -lprotobuf-c
endif

# server: libmicrohttpd, zlib
WITH_SERVER := $(if $(call have_header,zlib.h),$(call have_header,microhttpd.h))
ifneq ($(WITH_SERVER),)
CPPFLAGS += -DRR_WITH_SERVER
CLI_LIBS += -lmicrohttpd -lz
endif

# modules loaded at run time: cuda, trt (their rules live in mk/parts)
WITH_CUDA := $(if $(NVCC),$(if $(wildcard src/backend/cuda/*.cu),1))

# TensorRT's headers, from TRT=/path or make tensorrt-headers; they need CUDA's beside them. The
# library itself is opened at run time.
TRT          ?= $(wildcard $(BUILD)/tensorrt)
TRT_INCLUDE  := $(firstword $(dir $(wildcard $(if $(TRT),$(TRT)/include/NvInfer.h $(TRT)/NvInfer.h) \
                  /usr/include/x86_64-linux-gnu/NvInfer.h)))
CUDA_INCLUDE := $(firstword $(dir $(wildcard $(if $(CUDA),$(CUDA)/include/cuda_runtime_api.h) \
                  /usr/local/cuda/include/cuda_runtime_api.h /usr/include/cuda_runtime_api.h)))
WITH_TRT     := $(if $(TRT_INCLUDE),$(if $(CUDA_INCLUDE),$(shell command -v g++)))
MODULES   := $(if $(WITH_CUDA),$(BUILD)/librerank-cuda.so) $(if $(WITH_TRT),$(BUILD)/librerank-trt.so)

comma := ,
mark = $(if $(1),✓,✗)
report:
	@echo "$(call mark,1) $(shell $(CC) --version | head -n 1)"
	@echo "$(call mark,$(WITH_CPU)) cpu backend    $(if $(WITH_CPU),AVX2 | AVX-512 | AVX-512 BF16 and VNNI | AMX; picked at run time,x86-64 only)"
	@echo "$(call mark,$(WITH_CUDA)) cuda backend   $(if $(WITH_CUDA),$(NVCC),needs nvcc of the CUDA toolkit on PATH)"
	@echo "$(call mark,$(WITH_TRT)) TensorRT       $(if $(WITH_TRT),headers in $(TRT_INCLUDE),$(if $(CUDA_INCLUDE),needs its headers: make tensorrt-headers$(comma) or TRT=/path,needs the CUDA toolkit's headers: CUDA=/path))"
	@echo "$(call mark,$(WITH_ONNX)) ONNX           $(if $(WITH_ONNX),protobuf-c,needs libprotobuf-c-dev and protobuf-c-compiler: make setup)"
	@echo "$(call mark,$(WITH_SERVER)) server         $(if $(WITH_SERVER),libmicrohttpd and zlib,needs libmicrohttpd-dev and zlib1g-dev: make setup)"
	@echo "→ $(BUILD)/rerank, librerank.a, librerank.so$(if $(strip $(MODULES)), and $(notdir $(MODULES)))"
