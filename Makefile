# paretopose: `make quickstart` and `make test` do all set-up on a fresh machine (Python >= 3.11 with venv and headers, gcc).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PP     := $(BIN)/paretopose

.PHONY: install quickstart
install: $(VENV)/installed

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch and torchvision come as a pair from PyPI, chosen by pip; xtcocotools has no wheel for numpy 2 and is built against the numpy that is here
$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel cython "numpy>=2"
	$(BIN)/python -m pip install --quiet -e ".[onnx]"
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-binary xtcocotools -e ".[onnx,crowdpose,test]"
	touch $@
