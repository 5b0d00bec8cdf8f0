# On a fresh machine each target installs what it needs: Python 3.10 or newer and make are all there must be.
# Another interpreter: make PYTHON=python3.12 test. More for pytest: make test ARGS="-k near -x".

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo demo-django test test-all lint format bench clean

export PYTHON
ARGS ?=
PY := .venv/bin/python
TYPED := memover $(wildcard tests/typing) tests/servers

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: ## A function memoized, versioned and invalidated, in the terminal
	@scripts/bootstrap run
	@$(PY) examples/quickstart.py

demo-django: ## A small shop in Django, served on http://127.0.0.1:8000 (SHOP_CACHE=redis://... for a shared cache)
	@scripts/bootstrap django
	@$(PY) examples/django_shop/manage.py demo $(ARGS)

test: ## What CI runs: everything but the slow tests
	@scripts/bootstrap test
	$(PY) -m pytest -m "not slow" $(ARGS)

test-all: ## Every test, the slow ones and those of the types too
	@scripts/bootstrap test lint
	$(PY) -m pytest $(ARGS)

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

bench: ## Every benchmark, each with its target
	@scripts/bootstrap test
	@for bench in benchmarks/bench_*.py; do echo "== $$bench"; PYTHONPATH=. $(PY) $$bench || exit 1; done

clean: ## Remove what the other targets made, .venv included
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
