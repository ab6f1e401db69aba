# rerank.c - `make help` lists the targets. Parts whose libraries are missing drop out and say so.
#
#   BUILD=dir       where everything goes (default build)
#   SAN=address|undefined|thread   instrumented build in its own folder
#   OPT=-O0         other optimisation; T=name runs only tests whose path contains name
#   PYENV=dir       the Python environment for wheels (default build/py, made by setup)
.DEFAULT_GOAL := all
SAN   ?=
BUILD ?= build$(if $(SAN),/san-$(SAN))
PYENV ?= build/py
OPT   ?= -O3
CC    := $(if $(filter default,$(origin CC)),gcc,$(CC))
# nvcc links nothing that a sanitizer instruments: there is no CUDA module then.
NVCC  ?= $(if $(SAN),,$(firstword $(wildcard /usr/local/cuda/bin/nvcc) $(shell command -v nvcc 2>/dev/null)))

WARN   := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
          -Wno-unused-parameter
CPPFLAGS += -Iinclude -Isrc -D_POSIX_C_SOURCE=200809L
CFLAGS   += -std=c17 $(OPT) -g -fPIC -fvisibility=hidden -fno-math-errno -ffp-contract=off $(WARN)
LDLIBS   += -lpthread -ldl -lm
ifneq ($(SAN),)
CFLAGS  += -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
LDFLAGS += -fsanitize=$(SAN)
endif
ifeq ($(WERROR),1)
CFLAGS += -Werror
endif

include mk/detect.mk

# ---- what is compiled -----------------------------------------------------
LIB_SRC := $(wildcard src/base/*.c src/model/*.c src/text/*.c src/backend/*.c src/backend/ref/*.c \
             src/quant/*.c src/sched/*.c src/api/*.c) \
           $(addprefix src/backend/trt/,open.c manifest.c group.c driver.c) \
           $(if $(WITH_ONNX),$(wildcard src/onnx/*.c)) \
           $(if $(WITH_CPU),$(wildcard src/backend/cpu/*.c))
CLI_SRC := $(filter-out $(if $(WITH_SERVER),,cli/serve.c),$(wildcard cli/*.c)) \
           $(if $(WITH_SERVER),$(wildcard server/*.c server/*/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o) $(if $(WITH_ONNX),$(BUILD)/gen/onnx.pb-c.o)
CLI_OBJ := $(CLI_SRC:%.c=$(BUILD)/%.o)

all: report $(BUILD)/librerank.a $(BUILD)/librerank.so $(BUILD)/rerank $(MODULES) models

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  cc    $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_$(subst /,_,$(patsubst %/,%,$(dir $<)))) $(CFLAGS_$(notdir $*)) -MMD -MP -c -o $@ $<

$(BUILD)/librerank.a: $(LIB_OBJ)
	@echo "  ar    $@"
	@rm -f $@ && ar rcs $@ $^

$(BUILD)/librerank.so: $(LIB_OBJ)
	@echo "  link  $@"
	@$(CC) $(LDFLAGS) -shared -Wl,-soname,librerank.so.0 -o $@ $^ $(LIB_LIBS) $(LDLIBS)

$(BUILD)/rerank: $(CLI_OBJ) $(BUILD)/librerank.a
	@echo "  link  $@"
	@$(CC) $(LDFLAGS) -rdynamic -o $@ $(CLI_OBJ) $(BUILD)/librerank.a $(LIB_LIBS) $(CLI_LIBS) $(LDLIBS)

-include $(wildcard mk/parts/*.mk)

# ---- embedded model and evaluation sets, unpacked in place ----------------
PACKED  := $(wildcard models/mini/*.xz tests/data/*.xz)
UNPACKED := $(patsubst %.tar.xz,%/.unpacked,$(filter %.tar.xz,$(PACKED))) \
            $(patsubst %.xz,%,$(filter-out %.tar.xz,$(PACKED)))
models: $(UNPACKED)
$(filter-out %/.unpacked,$(UNPACKED)): %: %.xz
	@echo "  xz    $@"
	@xz -dkc -T0 $< > $@.part && mv $@.part $@
$(filter %/.unpacked,$(UNPACKED)): %/.unpacked: %.tar.xz
	@echo "  tar   $*"
	@mkdir -p $* && tar -xJf $< -C $* && touch $@

# ---- tests ----------------------------------------------------------------
TEST_SRC := $(wildcard tests/*/test_*.c)
TEST_BIN := $(TEST_SRC:%.c=$(BUILD)/%)
$(BUILD)/tests/%: tests/%.c $(BUILD)/librerank.a
	@mkdir -p $(@D)
	@echo "  cc    $<"
	@$(CC) $(if $(filter thread,$(SAN)),-Itests/tsan) $(CPPFLAGS) -Itests $(CFLAGS) $(LDFLAGS) -rdynamic -MMD -MP -MF $@.d -o $@ $< $(EXTRA_$(subst /,_,$*)) $(BUILD)/librerank.a \
	    -lcriterion $(LIB_LIBS) $(TEST_LIBS_$(notdir $*)) $(LDLIBS)

tests: all $(TEST_BIN)
run-tests: tests
	@BUILD=$(BUILD) PYENV=$(PYENV) SAN=$(SAN) tests/run.sh $(T)

# ---- the README's commands: set up what is missing, then build, then run ---
setup:
	@PYENV=$(PYENV) tools/setup.sh
demo: setup
	@$(MAKE) --no-print-directory all
	@BUILD=$(BUILD) tools/demo.sh
setup-test:
	@PYENV=$(PYENV) tools/setup.sh test
test: setup-test
	@$(MAKE) --no-print-directory run-tests T="$(T)"

help:
	@echo "make                 print what was found, build $(BUILD)/rerank and the libraries"
	@echo "make demo            set up, build, rank real passages with the embedded model"
	@echo "make test [T=name]   set up, build, run every test (or those whose path contains name)"
	@echo "make setup           install what the build needs (Debian packages, wheels under $(PYENV))"
	@echo "make setup-test      the same for the tests"
	@echo "SAN=address|undefined|thread make run-tests   the same under a sanitizer"
	@grep -hE '^## ' $(wildcard mk/parts/*.mk) | sed 's/^## //'
	@echo "make clean           remove $(BUILD) except the wheels"

clean:
	@find $(BUILD) -mindepth 1 -maxdepth 1 ! -name py -exec rm -rf {} + 2>/dev/null || true

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(TEST_BIN:=.d)

.PHONY: all report models tests run-tests setup setup-test demo test help clean
