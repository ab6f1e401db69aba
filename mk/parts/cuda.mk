# cuda.mk - librerank-cuda.so: kernels by nvcc for each architecture, host files by the C compiler.
# CUDA_ARCH="80 90" builds fewer. Cards newer than all of them compile the PTX at first use.
ifneq ($(WITH_CUDA),)
CUDA      ?= $(abspath $(dir $(shell readlink -f $(NVCC)))/..)
CUDA_ARCH ?= 80 86 89 90
CUDA_SRC  := $(wildcard src/backend/cuda/*.c) $(wildcard src/backend/cuda/*.cu)
CUDA_OBJ  := $(patsubst %,$(BUILD)/%.o,$(basename $(CUDA_SRC)))
CUDA_CODE := $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$a,code=sm_$a) \
             -gencode arch=compute_$(lastword $(CUDA_ARCH)),code=compute_$(lastword $(CUDA_ARCH))
NVCCFLAGS ?= -std=c++17 -O3 -Xcompiler -fPIC,-fvisibility=hidden,-Wall

CFLAGS_src_backend_cuda += -isystem $(CUDA)/include
$(BUILD)/tests/backend/test_cuda_plan: CPPFLAGS += -isystem $(CUDA)/include -DRR_WITH_CUDA

## make cuda            only the CUDA module, $(BUILD)/librerank-cuda.so
cuda: $(BUILD)/librerank-cuda.so

$(BUILD)/src/backend/cuda/%.o: src/backend/cuda/%.cu
	@mkdir -p $(@D)
	@echo "  nvcc  $<"
	@$(NVCC) -ccbin $(CC) $(NVCCFLAGS) $(CUDA_CODE) -Iinclude -Isrc -MMD -MP -c -o $@ $<

# Hopper's own instructions exist under sm_90a only.
$(BUILD)/src/backend/cuda/sm90_%.o: CUDA_CODE := -gencode arch=compute_90a,code=sm_90a

$(BUILD)/librerank-cuda.so: $(CUDA_OBJ) $(BUILD)/librerank.a
	@echo "  link  $@"
	@$(NVCC) -ccbin $(CC) -shared -cudart static -o $@ $(CUDA_OBJ) $(BUILD)/librerank.a \
	    -Xlinker --exclude-libs=ALL,-z,defs -lpthread -ldl -lm

-include $(CUDA_OBJ:.o=.d)
endif
.PHONY: cuda

$(BUILD)/gpu_engine: bench/gpu_engine.c $(BUILD)/librerank.a
	@echo "  cc    $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(BUILD)/librerank.a $(LIB_LIBS) $(LDLIBS)

## make bench-gpu       ours beside Hugging Face and the best PyTorch, one table (needs a card, torch)
GPU_PYTHON ?= $(if $(wildcard $(PYENV)/bin/python),$(PYENV)/bin/python,python3)
GPU_MODEL  ?= $(BUILD)/random
bench-gpu: $(BUILD)/librerank-cuda.so $(BUILD)/gpu_engine $(GPU_MODEL)/model.safetensors
	@$(GPU_PYTHON) bench/gpu.py $(BUILD)/gpu_engine $(GPU_MODEL)

## make bench-gpu-serve p50, p99 and pairs/s of top-100 requests over HTTP on a card
bench-gpu-serve: all $(BUILD)/gpu_engine $(GPU_MODEL)/model.safetensors
	@$(GPU_PYTHON) bench/gpu_serve.py $(BUILD)/rerank $(BUILD)/gpu_engine $(GPU_MODEL)

$(BUILD)/random/model.safetensors:
	@$(GPU_PYTHON) tools/random_model.py $(@D) --dtype float16 --pairs 24
.PHONY: bench-gpu bench-gpu-serve
