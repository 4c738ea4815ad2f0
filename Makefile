# Everything from a bare machine with Python 3.11+ and make:
#   make demo       install, run the quick suite, show the leaderboard
#   make test       install, run the tests       (make test-all: the slow ones too)
#   make lint       style, types, imports        make speed: ratios measured side by side

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# --prefer-binary: nothing is compiled on the way
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary -c docker/constraints.txt

.PHONY: demo test test-all lint speed clean

demo: $(VENV)/.core
	$(BIN)/backbench run quick
	@$(BIN)/backbench leaderboard --suite quick --format html

# Two workers with a thread each: torch's own threads would only wait for one another.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(VENV)/.test
	$(BIN)/python -m pytest -m "not speed"

speed: $(VENV)/.test
	$(BIN)/python -m pytest -m speed -s

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "backbench needs Python 3.11 or newer; say PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# An interrupted install leaves no stamp and is taken up again.
$(VENV)/.core: pyproject.toml docker/constraints.txt | $(VENV)/bin/python
	@echo "installing backbench and its libraries into $(VENV) (about 6 GB with torch, a few minutes)"
	$(PIP) -e .
	@touch $@

$(VENV)/.test: pyproject.toml docker/constraints.txt | $(VENV)/bin/python
	@echo "installing backbench with its test tools into $(VENV) (about 6 GB with torch, a few minutes)"
	$(PIP) -e ".[test,openmmlab]"
	@touch $@ $(VENV)/.core

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
