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

# Most tests run in two processes; what starts processes and reads clocks of its own runs alone, after them.
SIDE_BY_SIDE := $(addprefix tests/,kinds methods stats subjects tasks toolkit)

unit: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report= --timeout=300 $(SIDE_BY_SIDE)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --cov --cov-append --cov-report=term --timeout=300 \
		$(addprefix --ignore=,$(SIDE_BY_SIDE))

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
