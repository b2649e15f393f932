PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
BY_HAND := $(addprefix benchmarks/,coverage.py channel_bench.py criteria.py evaluators.py faults.py flexibert.py inheritance.py language_model.py latency.py latency_search.py long_searches.py methods.py methods_cifar10.py rank_fidelity.py recovery.py rungs.py rungs_synthetic.py scaling.py)
BENCHMARKS := $(sort $(filter-out $(BY_HAND),$(wildcard benchmarks/*.py)))

.PHONY: help demo test lint docs bench coverage methods picture clean
.DELETE_ON_ERROR:

help:  ## show this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 14

demo: .venv/test.stamp  ## search widths for ResNet-20 on digits; prints the verdict and where the report lies
	$(BIN)/autoprune search configs/digits_resnet20.yaml

test: .venv/test.stamp  ## run the tests, two at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/dev.stamp  ## ruff, mypy --strict, import layers, links of the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(SITE) --strict

docs: .venv/dev.stamp  ## the documentation as a site: build/site/index.html
	$(SITE)

bench: .venv/test.stamp  ## run the scripts in benchmarks/ that need nothing else and take minutes
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python "$$script"; done

coverage: .venv/test.stamp  ## which of 238 models can be pruned, beside the peers; takes an hour or two
	$(PIP) -r benchmarks/coverage_dependencies.txt
	$(PIP) --no-deps -r benchmarks/coverage_requirements.txt
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/coverage.py

methods: .venv/test.stamp  ## every method that has a job in configs/methods/, where its result is missing
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/methods.py

picture: .venv/test.stamp  ## draw docs/architecture.png from the imports
	$(BIN)/python docs/draw_architecture.py

clean:  ## remove the environment, caches and build leftovers; runs stay
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "autoprune needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
			"name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/test.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	@touch $@

.venv/dev.stamp: .venv/test.stamp
	$(PIP) -e '.[dev]'
	@touch $@
