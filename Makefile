# `make demo` and `make test` are all a newcomer needs; everything else is for those who work here.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
CALIB_BENCHMARKS := $(wildcard benchmarks/calib_*.py) benchmarks/depth_bias.py benchmarks/detect_board.py

FUSION_BENCHMARKS := $(addprefix benchmarks/,fusion.py normals.py registration.py global_start.py deviation.py)
GAUGE_BENCHMARKS := $(wildcard benchmarks/gauge_*.py)
MODEL_BENCHMARKS := $(wildcard benchmarks/models_*.py)

# torch comes first and by itself: which build fits, CPU or CUDA, the package index of the machine decides, and what
# the CUDA build needs comes with it.
TORCH := torch==2.13.0
OUTSIDE_THE_LOCK := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti \
	nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand \
	nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink \
	nvidia-nvshmem-cu13 nvidia-nvtx

.PHONY: demo test test-slow lint format bench bench-calib bench-fusion bench-gauges bench-models lock clean setup
.DEFAULT_GOAL := help

help:  ## Say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## Make .venv with the exact versions of requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(BIN)/python -I -m ensurepip --upgrade --default-pip >/dev/null; }
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

demo: $(READY)  ## Simulate three cameras and twenty parts, train a small model, inspect, show truth against verdict
	$(BIN)/depthcell demo

test: $(READY)  ## Run the everyday tests
	$(BIN)/python -m pytest --numprocesses 2 --cov --cov-report=term:skip-covered

test-slow: $(READY)  ## Run what is too long for every day
	$(BIN)/python -m pytest -m slow

lint: $(READY)  ## Check style, imports and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/basedpyright

format: $(READY)  ## Put the code into the house's shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY)  ## Measure every claim beside its peer; writes benchmarks/results/
	@for script in $(filter-out benchmarks/harness.py,$(wildcard benchmarks/*.py)); do \
		echo "== $$script"; $(BIN)/python $$script || exit 1; done

# The peer comes from Debian and is asked by its own Python; nothing else here needs it.
bench-calib: $(READY)  ## Measure the calibration beside mrcal (installed by apt) and the truth; some minutes
	@command -v mrcal-calibrate-cameras >/dev/null || \
		(apt-get update -qq && apt-get install -y -qq --no-install-recommends mrcal python3-mrcal >/dev/null) || \
		echo "mrcal could not be installed (Debian and root needed): its column stays empty"
	@for script in $(CALIB_BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-fusion: $(READY)  ## Measure fusion, registration and deviation beside open3d and small_gicp
	@for script in $(FUSION_BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-gauges: $(READY)  ## Measure the gauges against exact geometry and against the truth of simulated parts; long
	@for script in $(GAUGE_BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-models: $(READY)  ## Measure the network beside its peers: accuracy, speed, training; long
	@for script in $(MODEL_BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

lock:  ## Resolve the exact versions anew (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra dev \
		$(addprefix --no-emit-package ,$(OUTSIDE_THE_LOCK)) \
		--generate-hashes --quiet --custom-compile-command "make lock" --output-file requirements.lock

clean:  ## Remove what was built or simulated here
	rm -rf $(VENV) build dist runs *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
