# Everything a fresh machine with Python 3.11 and make needs: each target makes its own environment.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/installed
PYTHONPATH =
export PYTHONPATH

.PHONY: demo test test-slow bench bench-scale bench-instances bench-spiked lint types format clean
.DEFAULT_GOAL := test

demo: $(INSTALLED)  ## the main job: the campaign `quickstart`, its tables and its figure
	$(BIN)/hesscape run quickstart

test: $(INSTALLED)  ## the fast tests, some minutes
	$(BIN)/python -m pytest

test-slow: $(INSTALLED)  ## all tests, with statistics and real clusters
	$(BIN)/python -m pytest --runslow

bench: $(INSTALLED)  ## the kernel against the machine's limits, ten minutes; wants an idle machine, and the extra `bench` for JAX and PyTorch
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 XLA_FLAGS=--xla_cpu_multi_thread_eigen=false $(BIN)/python tests/benchmarks/bench_all.py \
		--output tests/benchmarks/RESULTS.md

bench-scale: $(INSTALLED)  ## campaigns of many runs: memory, dispatch, files; some minutes; wants an idle machine
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_scale.py \
		--output tests/benchmarks/RESULTS_SCALE.md

bench-instances: $(INSTALLED)  ## instances without the matrix against dense ones, about ten minutes; wants an idle machine
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_all.py instances \
		--output tests/benchmarks/RESULTS_INSTANCES.md

bench-spiked: $(INSTALLED)  ## a step of the spiked model against N, half a minute; wants an idle machine
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_all.py spiked \
		--output tests/benchmarks/RESULTS_SPIKED.md

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) quickstart.zarr quickstart.zarr.lock quickstart-figures

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hesscape needs Python 3.11 or newer, got " + sys.version.split()[0] + "; give make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
