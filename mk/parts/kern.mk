# kern.mk - the lab: one program an operation, checked against double precision, then timed.
ifneq ($(WITH_CUDA),)
LAB := $(patsubst lab/%.cu,$(BUILD)/lab/%,$(wildcard lab/*.cu))

## make lab             kernel versions of Hopper beside cuBLASLt and cuDNN (lab/README.md)
lab: $(LAB)

$(BUILD)/lab/attention: LAB_WITH := src/backend/cuda/sm90_attention.cu src/backend/cuda/attention_mma.cu
$(BUILD)/lab/gemm: LAB_WITH := -lcublasLt
$(BUILD)/lab/rows: LAB_WITH := src/backend/cuda/rows.cu
$(BUILD)/lab/%: lab/%.cu
	@mkdir -p $(@D)
	@echo "  nvcc  $<"
	@$(NVCC) -ccbin $(CC) -std=c++17 -O3 -gencode arch=compute_90a,code=sm_90a -Iinclude -Isrc \
	    -o $@ $< $(LAB_WITH)

endif
.PHONY: lab
