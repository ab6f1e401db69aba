# server.mk - the embedded page and OpenAPI document, and the server over an engine without a model.
CPPFLAGS      += -I.
CFLAGS_assets := -I$(BUILD)/gen
SERVER_INC    := $(BUILD)/gen/playground.inc $(BUILD)/gen/openapi.inc
$(BUILD)/gen/playground.inc: server/assets/playground.html
$(BUILD)/gen/openapi.inc: server/assets/openapi.json
$(SERVER_INC):
	@mkdir -p $(@D)
	@od -An -v -tx1 $< | sed 's/ \(..\)/0x\1,/g' > $@.part && mv $@.part $@
$(BUILD)/server/assets.o: $(SERVER_INC)

# Linked like the real one; the null engine comes before the library and so replaces src/api.
NULL_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard server/*.c server/*/*.c) cli/serve.c \
              cli/options.c cli/trt.c cli/export.c cli/lines.c tests/serve/null_engine.c tests/serve/null_main.c)
$(BUILD)/serve-null: $(NULL_OBJ) $(BUILD)/librerank.a
	@echo "  link  $@"
	@$(CC) $(LDFLAGS) -o $@ $(NULL_OBJ) $(BUILD)/librerank.a $(LIB_LIBS) $(CLI_LIBS) $(LDLIBS)
ifneq ($(WITH_SERVER),)
all: $(BUILD)/serve-null
endif

# What makes a server's card fault (tests/serve/test_engine.py).
$(BUILD)/fault.so: tests/serve/fault.c tests/backend/fault.h
	@echo "  cc    $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -shared -fPIC -o $@ $< -lpthread -ldl
ifneq ($(WITH_CUDA),)
all: $(BUILD)/fault.so
endif

# The same with the real engine, over a backend that answers at once.
SCHED_OBJ := $(filter-out %/null_engine.o,$(NULL_OBJ)) $(BUILD)/bench/null_backend.o
$(BUILD)/serve-sched: $(SCHED_OBJ) $(BUILD)/librerank.a
	@echo "  link  $@"
	@$(CC) $(LDFLAGS) -o $@ $(SCHED_OBJ) $(BUILD)/librerank.a $(LIB_LIBS) $(CLI_LIBS) $(LDLIBS)
-include $(BUILD)/bench/null_backend.d

## make soak            SECONDS=600: a full queue for a minute, then mixed load; memory must not grow, nothing fail
SECONDS ?= 600
soak: setup-test
	@$(MAKE) --no-print-directory all
	@FULL_S=60 BUILD=$(BUILD) $(PYENV)/bin/python -m pytest -q tests/serve/test_http.py -k queue_full
	@$(PYENV)/bin/python bench/serve_soak.py --binary $(BUILD)/rerank --seconds $(SECONDS)
.PHONY: soak

## make bench-serve     INFINITY=.../infinity_emb: both under one open-loop load; then our own overhead
INFINITY ?= $(shell command -v infinity_emb 2>/dev/null)
bench-serve: setup-test
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory $(BUILD)/serve-sched
	@$(PYENV)/bin/python bench/serve_overhead.py --build $(BUILD)
	@$(if $(INFINITY),,echo "infinity_emb is not here: pip install 'infinity-emb[torch,server]' 'transformers<5' and set INFINITY")
	@$(PYENV)/bin/python bench/serve.py --binary $(BUILD)/rerank $(if $(INFINITY),--infinity $(INFINITY))
.PHONY: bench-serve

# The dialects' fuzzer needs the server around it, and an engine to tokenize with.
$(BUILD)/fuzz_request: fuzz/fuzz_request.c $(filter-out %/null_main.o $(BUILD)/cli/%,$(NULL_OBJ)) $(BUILD)/librerank.a
	@echo "  fuzz  $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -fsanitize=fuzzer,address,undefined -MMD -MP -MF $@.d \
	    -o $@ $(filter %.c %.o,$^) $(BUILD)/librerank.a $(CLI_LIBS) $(LDLIBS)

$(BUILD)/fuzz_gunzip: fuzz/fuzz_gunzip.c $(BUILD)/server/gunzip.o
	@echo "  fuzz  $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -fsanitize=fuzzer,address,undefined -MMD -MP -MF $@.d -o $@ $< $(BUILD)/server/gunzip.o -lz
