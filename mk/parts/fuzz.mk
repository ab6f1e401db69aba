# fuzz.mk - libFuzzer programs of fuzz/fuzz_*.c over the parsers, built by clang into $(BUILD)/fuzz.
# A fuzzer NAME finds its seeds in fuzz/seeds/NAME; its corpus grows in $(BUILD)/fuzz/corpus/NAME.
FUZZERS  := $(patsubst fuzz/%.c,%,$(wildcard fuzz/fuzz_*.c))
FUZZ_OBJ := $(filter-out $(BUILD)/src/backend/% $(BUILD)/src/sched/% $(BUILD)/src/api/%,$(LIB_OBJ)) \
            $(BUILD)/cli/lines.o $(BUILD)/src/backend/trt/manifest.o

## make fuzz [T=name]   run every fuzzer (or those whose name contains it) for ten minutes each
fuzz: fuzzers
	@tools/fuzz.sh $(BUILD)/fuzz 600 "$(T)"

## make fuzz-ci         the same for 20 seconds each
fuzz-ci: fuzzers
	@tools/fuzz.sh $(BUILD)/fuzz 20 "$(T)"

fuzzers:
	@$(MAKE) --no-print-directory CC=clang SAN=fuzzer-no-link,address,undefined OPT=-O1 \
	    BUILD=$(BUILD)/fuzz $(addprefix $(BUILD)/fuzz/,$(FUZZERS))

$(BUILD)/libfuzzed.a: $(FUZZ_OBJ)
	@rm -f $@ && ar rcs $@ $^
$(BUILD)/fuzz_%: fuzz/fuzz_%.c $(BUILD)/libfuzzed.a
	@echo "  fuzz  $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -fsanitize=fuzzer,address,undefined -MMD -MP -MF $@.d \
	    -o $@ $< $(BUILD)/libfuzzed.a -Wl,--as-needed $(LIB_LIBS) $(LDLIBS)

-include $(addprefix $(BUILD)/,$(FUZZERS:=.d))
.PHONY: fuzz fuzz-ci fuzzers
