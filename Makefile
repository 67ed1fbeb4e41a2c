# `make demo` and `make test` need only Python >= 3.11 and a C++ compiler; they make .venv themselves.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# A machine with an NVIDIA driver takes the CUDA build of torch. One without takes the release that the tests
# ran with; where pip is configured with an index or a folder of CPU wheels, that is the CPU build.
TORCH  ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo 'torch>=2.11' || echo 'torch==2.13.0')

.PHONY: demo test lint clean

$(VENV)/.installed: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet '$(TORCH)' --editable '.[train,dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python benchmarks/demo.py --out runs/demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info
