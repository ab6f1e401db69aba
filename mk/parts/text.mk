# text.mk - the tokenizer's helper program for tests, its benchmark and its long runs.
TEXT_ENCODE := $(BUILD)/tests/text/encode
$(TEXT_ENCODE): tests/text/encode.c $(BUILD)/librerank.a
	@mkdir -p $(@D)
	@echo "  cc    $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -MMD -MP -MF $@.d -o $@ $< $(BUILD)/librerank.a $(LIB_LIBS) $(LDLIBS)
tests: $(TEXT_ENCODE)
-include $(TEXT_ENCODE).d

# The full XLM-RoBERTa tokenizer, from the sentencepiece model that is committed.
XLMR := $(BUILD)/tests/xlmr
$(XLMR)/tokenizer.json: tools/xlmr_tokenizer.py tests/data/xlmr.model
	@echo "  gen   $@"
	@python3 $^ $(XLMR)
tests: $(XLMR)/tokenizer.json
