# house.mk - checks of the source, sanitized test runs, and installing.
VERSION := $(shell sed -n 's/^\#define RR_VERSION "\(.*\)"/\1/p' include/rerank.h)

## make check           include ladder, exported symbols, header alone, format, static analysis
check: all
	@BUILD=$(BUILD) CC=$(CC) tools/check.sh

## make sanitize        C tests under ASan + UBSan, then the threaded ones under TSan
sanitize: setup-test
	@$(MAKE) --no-print-directory SAN=address,undefined run-tests
	@$(MAKE) --no-print-directory SAN=thread run-tests T=base
	@$(MAKE) --no-print-directory SAN=thread run-tests T=sched
	@$(MAKE) --no-print-directory SAN=thread run-tests T=api

# The installed tree finds its modules in lib/rerank beside it, wherever the tree is moved.
PREFIX  ?= /usr/local
DESTDIR ?=
BINDIR  := $(DESTDIR)$(PREFIX)/bin
LIBDIR  := $(DESTDIR)$(PREFIX)/lib
SHARE   := $(DESTDIR)$(PREFIX)/share/rerank

## make install         PREFIX=/usr/local DESTDIR=: binary, libraries, header, pkg-config, CMake, model
install: all man
	@install -d $(BINDIR) $(LIBDIR)/rerank $(LIBDIR)/pkgconfig $(LIBDIR)/cmake/rerank $(SHARE)/models/mini \
	    $(DESTDIR)$(PREFIX)/include
	@install -m 644 include/rerank.h $(DESTDIR)$(PREFIX)/include/
	@install -Dm 644 $(BUILD)/rerank.1 $(DESTDIR)$(PREFIX)/share/man/man1/rerank.1
	@install -m 644 $(BUILD)/librerank.a $(LIBDIR)/
	@$(CC) $(LDFLAGS) -shared -Wl,-soname,librerank.so.0 -o $(LIBDIR)/librerank.so.$(VERSION) $(LIB_OBJ) \
	    $(LIB_LIBS) $(LDLIBS)
	@ln -sf librerank.so.$(VERSION) $(LIBDIR)/librerank.so.0 && ln -sf librerank.so.0 $(LIBDIR)/librerank.so
	@$(CC) $(LDFLAGS) -rdynamic -o $(BINDIR)/rerank $(CLI_OBJ) $(BUILD)/librerank.a $(LIB_LIBS) $(CLI_LIBS) \
	    $(LDLIBS)
	@$(foreach m,$(MODULES),install -m 755 $(m) $(LIBDIR)/rerank/;)
	@install -m 644 models/mini/*.json models/mini/model.safetensors models/mini/*.md $(SHARE)/models/mini/
	@sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@VERSION@|$(VERSION)|g' \
	    -e 's|@PRIVATE@|$(LIB_LIBS) $(LDLIBS)|' \
	    mk/rerank.pc.in > $(LIBDIR)/pkgconfig/rerank.pc
	@sed -e 's|@VERSION@|$(VERSION)|g' -e 's|@LIBS@|$(patsubst -l%,%,$(filter-out -lpthread -ldl -lm,$(LIB_LIBS)))|' mk/rerank-config.cmake.in \
	    > $(LIBDIR)/cmake/rerank/rerank-config.cmake
	@sed -e 's|@VERSION@|$(VERSION)|g' mk/rerank-config-version.cmake.in \
	    > $(LIBDIR)/cmake/rerank/rerank-config-version.cmake
	@echo "installed rerank $(VERSION) under $(DESTDIR)$(PREFIX)"

uninstall:
	rm -rf $(BINDIR)/rerank $(LIBDIR)/librerank.* $(LIBDIR)/rerank $(LIBDIR)/pkgconfig/rerank.pc \
	    $(LIBDIR)/cmake/rerank $(SHARE) $(DESTDIR)$(PREFIX)/include/rerank.h $(DESTDIR)$(PREFIX)/share/man/man1/rerank.1

.PHONY: check sanitize install uninstall
