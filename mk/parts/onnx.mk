# onnx.mk - C for the ONNX messages, generated from our own description of the format.
ifneq ($(WITH_ONNX),)
$(BUILD)/gen/onnx.pb-c.c $(BUILD)/gen/onnx.pb-c.h &: src/onnx/onnx.proto
	@mkdir -p $(@D)
	@echo "  proto $<"
	@protoc-c --c_out=$(BUILD)/gen -Isrc/onnx $<
$(BUILD)/gen/onnx.pb-c.o: $(BUILD)/gen/onnx.pb-c.c
	@$(CC) $(CFLAGS) -Wno-pedantic -I$(BUILD)/gen -c -o $@ $<
$(patsubst %.c,$(BUILD)/%.o,$(wildcard src/onnx/*.c tests/onnx/*.c)): | $(BUILD)/gen/onnx.pb-c.h

# a tool of the export tests: logits of ids by the reference backend
tests: $(BUILD)/tests/onnx/ids_ref
endif
