# On a fresh machine each target installs what it needs: Python 3.10 or newer and make are all there must be.
# Another interpreter: make PYTHON=python3.12 test. More for pytest: make test ARGS="-k near -x".

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo demo-django check types test test-slow test-others test-all test-alerts lint format docs bench bench-fleet bench-parts clean

export PYTHON
ARGS ?=
# How many processes share the tests. Each has servers of its own; a file's tests stay in one process.
JOBS ?= 2
PY := .venv/bin/python
XDIST := -n $(JOBS) --dist loadfile
PYTEST := $(PY) -m pytest $(XDIST)
TYPED := memover $(wildcard tests/typing) tests/servers
# What depends on the interpreter's version most and takes little time: what `make check` runs on every one.
# Not every byte of every payload turned over: that takes as long as all the others.
QUICK := tests/test_package.py tests/test_floors.py tests/keys tests/engine tests/face tests/examples/test_examples.py \
	$(filter-out tests/codec/test_hostile.py,$(wildcard tests/codec/test_*.py))

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

demo: ## A function memoized, versioned and invalidated, in the terminal
	@scripts/bootstrap run
	@$(PY) examples/quickstart.py

demo-django: ## A small shop in Django, served on http://127.0.0.1:8000 (SHOP_CACHE=redis://... for a shared cache)
	@scripts/bootstrap django
	@$(PY) examples/django_shop/manage.py demo $(ARGS)

check: lint docs types test-others test ## What CI runs: lint, types, documentation, the tests, the quick ones on each Python

types: ## What type checkers see of decorated functions, as tests
	@scripts/bootstrap test lint
	$(PY) -m pytest tests/typing

test: ## Every test but the slow ones
	@scripts/bootstrap test
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: ## The slow tests: deeper searches, longer histories, what type checkers see
	@scripts/bootstrap test lint
	$(PYTEST) -m slow $(ARGS)

test-others: ## The quick part of the tests on each other interpreter that this machine has
	@scripts/bootstrap run
	@scripts/test-others quick $(XDIST) -m "not slow" -q $(QUICK)

test-all: ## Every test, the slow ones too; and every one that is not slow on each other interpreter that this machine has
	@scripts/bootstrap test lint
	$(PYTEST) $(ARGS)
	@scripts/test-others test $(XDIST) -m "not slow" $(ARGS)

test-alerts: ## The alert rules of integrations/, by Prometheus' own promtool
	@scripts/bootstrap run promtool
	promtool test rules integrations/prometheus-alerts-test.yml

lint: ## ruff, mypy --strict and pyright
	@scripts/bootstrap lint
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy $(TYPED)
	$(PY) -m pyright

format: ## Rewrite the code as `make lint` wants it
	@scripts/bootstrap lint
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

docs: ## The documentation as pages, in docs/_build/html/index.html; a warning is an error
	@scripts/bootstrap docs
	$(PY) -m sphinx -q -W --keep-going -b html docs docs/_build/html

bench: ## One table beside other caches (ARGS=--quick: a minute instead of several), into docs/speed.md, with plots
	@scripts/bootstrap bench
	PYTHONPATH=. $(PY) benchmarks/table.py --page docs/speed.md --pictures docs/plots $(ARGS)

bench-fleet: ## What a large fleet asks of a Cluster: a model fed with times measured here
	@scripts/bootstrap bench
	PYTHONPATH=. $(PY) benchmarks/fleet.py --svg docs/plots/large-fleets.svg $(ARGS)

bench-parts: ## The benchmarks of single parts, each with its target
	@scripts/bootstrap bench
	@for bench in benchmarks/bench_*.py; do echo "== $$bench"; PYTHONPATH=. $(PY) $$bench || exit 1; done

clean: ## Remove what the other targets made, .venv included
	rm -rf .venv .venv-* build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
