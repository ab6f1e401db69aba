# trt.mk - librerank-trt.so: the C++ calls into TensorRT, compiled against its headers only, and the
# C of the backend around them. The library's own parts come from librerank.a.
ifneq ($(WITH_TRT),)
TRT_OBJ := $(addprefix $(BUILD)/src/backend/trt/,shim.o shim_run.o module.o instance.o)

## make trt TRT=/path   only the TensorRT module, from headers under /path (default: those of tensorrt-headers)
trt: $(BUILD)/librerank-trt.so
$(BUILD)/src/backend/trt/%.o: src/backend/trt/%.cpp
	@mkdir -p $(@D)
	@echo "  c++   $<"
	@g++ -std=c++17 -O2 -g -fPIC -fvisibility=hidden -Wall -Wextra -Wno-deprecated-declarations $(if $(filter 1,$(WERROR)),-Werror) \
	    -Iinclude -Isrc -isystem $(TRT_INCLUDE) -isystem $(CUDA_INCLUDE) -MMD -MP -c -o $@ $<
$(BUILD)/librerank-trt.so: $(TRT_OBJ) $(BUILD)/librerank.a
	@echo "  link  $@"
	@g++ -shared -o $@ $(TRT_OBJ) $(BUILD)/librerank.a -Wl,--exclude-libs=ALL,-z,defs $(LIB_LIBS) $(LDLIBS)

-include $(TRT_OBJ:.o=.d)
else
trt:
	@echo "TensorRT's headers (NvInfer.h, NvOnnxParser.h) and CUDA's are needed: make tensorrt-headers, or make trt TRT=/path"; exit 1
endif

# NVIDIA's public headers (Apache-2.0) at a release: TRT_TAG=v10.16 for TensorRT 10, whose parser's
# header is another repository's.
TRT_TAG    ?= v11.1
TRT_REPO   ?= https://github.com/NVIDIA/TensorRT
TRT_PARSER ?= https://github.com/onnx/onnx-tensorrt

## make tensorrt-headers   fetch the headers that the TensorRT module needs into $(BUILD)/tensorrt (git, internet)
tensorrt-headers:
	@tools/tensorrt_headers.sh $(BUILD)/tensorrt $(TRT_TAG) $(TRT_REPO) $(TRT_PARSER)
.PHONY: trt tensorrt-headers

# The test of instance.c brings a device and an engine of its own, so it needs neither headers nor card.
EXTRA_trt_test_instance := $(BUILD)/src/backend/trt/instance.o
$(BUILD)/tests/trt/test_instance: $(EXTRA_trt_test_instance)
