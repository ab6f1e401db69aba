# hf.mk - the developer's comparison on a model of the real size; needs torch and transformers.
HF_DIR ?= $(BUILD)/hf-24x1024

## make test-hf         every backend and precision against HF on a random 24x1024 model (needs torch)
test-hf: all $(BUILD)/tests/backend/test_backends $(HF_DIR)/truth.safetensors
	@RR_HF_DIR=$(HF_DIR) $(BUILD)/tests/backend/test_backends --timeout 1800 \
	    --filter 'backends/agree_with_hf_on_24x1024'

$(HF_DIR)/truth.safetensors:
	@$(PYENV)/bin/python -c 'import torch, transformers' 2>/dev/null || \
	    { echo "make test-hf needs torch and transformers in $(PYENV): pip install torch transformers"; exit 1; }
	@$(PYENV)/bin/python tools/random_model.py $(HF_DIR)

.PHONY: test-hf
