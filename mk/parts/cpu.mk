# cpu.mk - the cpu backend's kernels, compiled for each instruction set.
AVX512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512
CFLAGS_kernels_avx2        := -mavx2 -mfma -mf16c
CFLAGS_kernels_avx512      := $(AVX512)
CFLAGS_kernels_avx512_bf16 := $(AVX512) -mavx512vnni -mavx512bf16
CFLAGS_kernels_amx         := $(CFLAGS_kernels_avx512_bf16) -mamx-tile -mamx-bf16 -mamx-int8

ifneq ($(WITH_CPU),)
$(BUILD)/bench/cpu_engine: bench/cpu_engine.c $(BUILD)/librerank.a
	@mkdir -p $(@D)
	@echo "  cc    $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(BUILD)/librerank.a $(LIB_LIBS) $(LDLIBS)

# The yardstick, where the wheels onednn-cpu-gomp and onednn-devel-cpu-gomp are in PYENV.
$(BUILD)/bench/onednn_rate: bench/onednn_rate.c $(BUILD)/librerank.a
	@mkdir -p $(@D)
	@echo "  cc    $<"
	@$(CC) $(CPPFLAGS) -I$(PYENV)/include $(CFLAGS) $(LDFLAGS) -o $@ $< $(BUILD)/librerank.a $(LDLIBS) \
	    -L$(PYENV)/lib -Wl,-rpath,$(abspath $(PYENV)/lib) -ldnnl

## make bench-cpu       the cpu backend beside torch, ONNX Runtime and OpenVINO (needs them in PYENV)
bench-cpu: all $(BUILD)/bench/cpu_engine $(if $(wildcard $(PYENV)/include/dnnl.h),$(BUILD)/bench/onednn_rate)
	@BUILD=$(BUILD) $(PYENV)/bin/python bench/cpu.py $(BENCH_ARGS)

# Pairs of the evaluation sets whose queries are not among the first 100 of their set.
## make calibration     models/mini/calibration.int8.json anew, some minutes
calibration: $(BUILD)/rerank
	@$(PYENV)/bin/python bench/quantization.py --queries 100 --pairs-only $(BUILD)/calibration.jsonl
	@$(BUILD)/rerank calibrate -m models/mini --backend cpu --pairs $(BUILD)/calibration.jsonl -n 256 --measured 128 \
	    --method max --smooth 0.5 --per-token --keep 16 -o models/mini/calibration.int8.json
.PHONY: bench-cpu calibration
endif

## make bench-table     everything that runs here beside PyTorch and ONNX Runtime (in PYENV), as one table
bench-table: all
	@$(BUILD)/rerank bench --table --eval $(EVAL) $(BENCH_ARGS) --work $(BUILD)/work.json
	@$(PYENV)/bin/python bench/peers.py $(BUILD)/work.json -o $(BUILD)/peers.json --rerank $(BUILD)/rerank
	@$(BUILD)/rerank bench --table --eval $(EVAL) $(BENCH_ARGS) --with $(BUILD)/peers.json --svg $(BUILD)/table.svg
bench-table: EVAL ?= models/mini/eval/xquad-en
.PHONY: bench-table
