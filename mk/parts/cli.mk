# cli.mk - the manual page, from the program's own help.
## make man             $(BUILD)/rerank.1 from the help of every command
man: $(BUILD)/rerank.1
$(BUILD)/rerank.1: $(BUILD)/rerank tools/man.sh
	@tools/man.sh $< > $@.part && mv $@.part $@
.PHONY: man
