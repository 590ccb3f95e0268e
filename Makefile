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
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-binary xtcocotools -e ".[onnx,crowdpose,train,test]"
	touch $@

# ---------------------------------------------------------------------------------------------------------------
export OMP_WAIT_POLICY ?= PASSIVE
PYTEST := $(BIN)/python -m pytest

quickstart: install
	$(PP) run suites/quickstart.yaml --jobs 2

# From one seed, one after the other; three start from the trunk of another. Their record is measured from the very
# files that are committed. PRECISION=bfloat16 is twice as fast on a CPU that has the instructions, and many times
# slower on one that has not.
TINY := simplebaseline_tiny hrnet_tiny fasterpose_tiny srpose_tiny vitpose_tiny sharpose_tiny maskrcnn_tiny
INIT_fasterpose_tiny := --init results/quickstart/simplebaseline_tiny.safetensors
INIT_srpose_tiny := --init results/quickstart/simplebaseline_tiny.safetensors
INIT_sharpose_tiny := --init results/quickstart/vitpose_tiny.safetensors
PRECISION ?= float32
.PHONY: train-quickstart record-quickstart $(TINY:%=train-%)
$(TINY:%=train-%): train-%: install
	OMP_NUM_THREADS=1 $(PP) train $* --data synthetic --recipe quick --precision $(PRECISION) --workers 1 \
	  $(INIT_$*) --out results/train/$*
	$(PP) weights convert results/train/$*/$*.safetensors results/quickstart/$*.safetensors --as $* --half

train-quickstart:
	for variant in $(TINY); do $(MAKE) train-$$variant || exit 1; done
	$(MAKE) record-quickstart

record-quickstart: install
	rm -rf results/quickstart/records results/quickstart/arrays results/quickstart/passes results/quickstart/runs
	$(PP) run suites/quickstart.yaml --jobs 2 --store results/quickstart --report results

.PHONY: lint types test test-slow bench
lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-test
	$(BIN)/mypy

test: lint types
	$(PYTEST) -n 2

# tests/slow needs the machine for itself: clusters, browsers, processes that are killed
test-slow: $(VENV)/installed-test
	$(PYTEST) -m slow -n 2 --ignore tests/slow
	$(PYTEST) -m slow tests/slow

# on the committed baseline; exit 1 when AP, cost or speed became worse
.PHONY: gate gate-selftest
gate: install
	$(PP) run suites/ci.yaml
	$(PP) gate results/baselines/ci.json ci --repeat 3 --confirm --junit results/reports/ci/gate.xml --summary results/reports/ci/gate.md

gate-selftest: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python tests/slow/gate_selftest.py $(ARGS)

bench: $(VENV)/installed-test
	$(PYTEST) -m benchmark_suite -s tests/benchmarks

# on a CUDA machine, with the interpreter that is there: installs nothing, resumes, at most 8 minutes a call
.PHONY: gpu
gpu:
	$(PYTHON) tests/benchmarks/gpu.py $(ARGS)

# the same for training; exit 4: more to do, call again
GPU_TRAIN ?= hrnet_w32 simplebaseline_r50
GPU_DATA ?= synthetic
.PHONY: gpu-train
gpu-train:
	$(PYTHON) -m harness.cli.train_pieces --minutes 8 $(GPU_TRAIN) -- --data $(GPU_DATA) --recipe quick --precision bfloat16 --workers 4
