# docs.mk - the programs of docs/code, built against the static library as a user would.
DOC_CODE := $(patsubst docs/code/%.c,$(BUILD)/docs/code/%,$(wildcard docs/code/*.c))
$(DOC_CODE): $(BUILD)/docs/code/%: docs/code/%.c $(BUILD)/librerank.a
	@mkdir -p $(@D)
	@echo "  cc    $<"
	@$(CC) -Iinclude $(CFLAGS) $(LDFLAGS) -rdynamic -o $@ $< $(BUILD)/librerank.a $(LIB_LIBS) $(LDLIBS)
tests: $(DOC_CODE)
