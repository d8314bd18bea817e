.DEFAULT_GOAL := help
.PHONY: help demo test setup lint format unit integration e2e soak bench image lock clean

VENV := .venv/bin
export PATH := $(CURDIR)/bin:$(PATH)
# What pytest and the benchmarks get besides: make unit PYTEST="-k cache", make bench BENCH=--help
PYTEST ?=
BENCH ?=

help: ## Show these commands
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: ## Set up what builds need, build examples/hello and show what is in its archive
	@scripts/timed "make demo" sh -c 'scripts/setup --without-tests && scripts/demo'

test: ## Set up, then unit, integration and e2e tests with coverage
	@scripts/timed "make test" sh -c 'scripts/setup && scripts/test'

setup: ## Bring what is missing, for tests too: packages, Python environment, tools in bin/
	@scripts/setup

lint: setup ## Check style and types, workflows, actions and shell scripts
	@scripts/lint

format: setup ## Put the code into the project's style
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

unit: setup ## Tests without processes or sockets
	$(VENV)/pytest tests/unit $(PYTEST)

integration: setup ## Tests on the real BuildKit, both versions
	$(VENV)/pytest tests/integration $(PYTEST)

e2e: setup ## Tests of the images in a Docker engine, which is started where none runs
	$(VENV)/pytest tests/e2e -m "e2e and not soak" $(PYTEST)

soak: setup ## The long tests: many rounds of killing, corrupting and racing
	$(VENV)/pytest tests/integration tests/e2e -m soak --timeout=3600 $(PYTEST)

bench: setup ## Measure builds, rebuilds and publications beside other tools; QUICK=1: 5 minutes
	$(VENV)/python -m benchmarks $(BENCH)

image: setup ## Build both container images natively; archives in build/
	@scripts/timed "make image" $(VENV)/python -m scripts.images

lock: ## Pin the newest allowed dependencies in requirements/
	@scripts/lock

clean: ## Remove what commands above made in this tree (the user's cache stays)
	rm -rf .cache .venv bin build .coverage .coverage.* \
		.hypothesis .mypy_cache .pytest_cache .ruff_cache dist htmlcov coverage.xml
