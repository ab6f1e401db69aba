# trt.mk - librerank-trt.so: the C++ calls into TensorRT, compiled against its headers only.
ifneq ($(WITH_TRT),)
## make trt TRT=/path   only the TensorRT module, from headers under /path
trt: $(BUILD)/librerank-trt.so
$(BUILD)/librerank-trt.so: src/backend/trt/shim.cpp src/backend/trt/trt.h
	@mkdir -p $(@D)
	@echo "  c++   $<"
	@g++ -std=c++17 -O2 -fPIC -shared -fvisibility=hidden -Wall -Wextra -Iinclude -Isrc -isystem $(TRT_INCLUDE) \
	    -isystem $(CUDA_INCLUDE) -o $@ $< -ldl
else
trt:
	@echo "TensorRT's headers (NvInfer.h, NvOnnxParser.h) and CUDA's are needed: make trt TRT=/path"; exit 1
endif
.PHONY: trt
