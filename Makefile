# Two commands do everything on a fresh machine: `make leaderboard` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: install leaderboard test lint types unit slow bench docs workflows clean

install: $(INSTALLED)

# torch comes first and pinned: left to the other packages, pip would take a build with CUDA on any machine.
$(INSTALLED): pyproject.toml ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c ci/constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c ci/constraints.txt -e '.[dev]'
	touch $@

leaderboard: $(INSTALLED)
	$(BIN)/zoo run smoke

test: lint types unit

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

unit: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --cov --cov-report=term --timeout=300

slow: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow

bench: $(INSTALLED)
	$(BIN)/zoo bench

docs: $(INSTALLED)
	$(BIN)/python docs/make_pages.py

# Needs check-jsonschema and zizmor on the path; the project itself depends on neither.
workflows:
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --builtin-schema vendor.github-actions ci/action/action.yml
	zizmor --offline .github ci/action

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .coverage
