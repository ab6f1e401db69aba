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

TEXT_BENCH := $(BUILD)/bench/tokenizer
$(TEXT_BENCH): bench/tokenizer.c $(BUILD)/librerank.a
	@mkdir -p $(@D)
	@echo "  cc    $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(BUILD)/librerank.a $(LIB_LIBS) $(LDLIBS)

## make bench-tokenizer our tokenizer beside PyPI tokenizers and sentencepiece (pip install sentencepiece)
bench-tokenizer: $(TEXT_BENCH) $(XLMR)/tokenizer.json models
	@$(PYENV)/bin/python bench/tokenizer.py $(TEXT_BENCH) $(XLMR)

## make fuzz-tokenizer  100,000 random strings against PyPI tokenizers, fresh seed
fuzz-tokenizer: $(TEXT_ENCODE) $(XLMR)/tokenizer.json models
	@BUILD=$(BUILD) TOKENIZER_STRINGS=100000 $(PYENV)/bin/python -m pytest -q -s -p no:cacheprovider tests/text/test_tokenizer.py
.PHONY: bench-tokenizer fuzz-tokenizer
