# sched.mk - the simulation of the scheduler, its plots, and what the real threads cost.
SCHED_BENCH := $(BUILD)/bench/sched $(BUILD)/bench/sched_threads $(BUILD)/bench/sched_cost
$(SCHED_BENCH): $(BUILD)/bench/%: bench/%.c $(BUILD)/librerank.a
	@mkdir -p $(@D)
	@echo "  cc    $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -MMD -MP -MF $@.d -o $@ $< $(BUILD)/librerank.a $(LIB_LIBS) $(LDLIBS)
-include $(SCHED_BENCH:=.d)

## make bench-sched     simulate policies, knobs and fleets with the real packing code; plots if
##                      $(PYENV) has matplotlib; then the cost of the real threads
bench-sched: $(SCHED_BENCH)
	@for x in policies knobs giant fleet equal; do echo "$$x > $(BUILD)/bench/$$x.csv"; \
	    $(BUILD)/bench/sched $$x > $(BUILD)/bench/$$x.csv || exit 1; done
	@column -s, -t $(BUILD)/bench/giant.csv
	@if $(PYENV)/bin/python -c 'import matplotlib' 2>/dev/null; then \
	    $(PYENV)/bin/python bench/sched_plot.py $(BUILD)/bench docs/img; \
	    else echo "no plots: $(PYENV)/bin/pip install matplotlib"; fi
	@$(BUILD)/bench/sched_threads

.PHONY: bench-sched
