# `make help` lists the targets.  Each makes what it needs; ARGS="…" is passed on, for example ARGS="-k redis -x".
BIN := .venv/bin
INSTALLED := .venv/.installed
ARGS ?=
# Tests wait more than they compute, so three processes fit two cores.  A module's tests stay together: they share what is slow to make.
TEST_PROCESSES ?= 3

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-exotic test-versions test-celerys-own check format bench

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 24

install: $(INSTALLED) ## Make .venv with the project in it, and what its tests and its demo need
	@echo "Ready: $(BIN)/celeriac --help"

$(INSTALLED): pyproject.toml scripts/install.sh tests/tools/requirements.txt
	@scripts/install.sh

demo: $(INSTALLED) ## Run the reference system: an API, two worker pools, a mailbox
	@$(BIN)/python -m demo $(ARGS)

test: $(INSTALLED) ## Run the tests against real servers
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope $(ARGS)

test-slow: $(INSTALLED) ## Run the tests that wait for real minutes: partitions longer than every timeout
	@$(BIN)/python -m pytest -m slow -n 4 --dist load $(ARGS)

test-exotic: $(INSTALLED) ## Run the tests on a real Kafka and Cassandra (takes java and mvn)
	@scripts/test-exotic.sh $(ARGS)

test-versions: $(INSTALLED) ## Run the stores' tests on other versions: PostgreSQL (java, mvn), RabbitMQ 4, Redis 8, Valkey (root)
	@scripts/test-versions.sh $(ARGS)
	@scripts/test-newer.sh $(ARGS)

test-celerys-own: $(INSTALLED) ## Run Celery's own integration and smoke tests on our worker (WORKER=stock: on Celery's)
	@scripts/test-celerys-own.sh $(ARGS)

check: $(INSTALLED) ## Lint, formatting, strict types, import rules
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## Format the code and fix what ruff can fix
	$(BIN)/python -m ruff check --fix --quiet . || true
	$(BIN)/python -m ruff format .

bench: $(INSTALLED) ## Measure against Celery and its peers (takes a while)
	@$(BIN)/python -m benchmarks $(ARGS)
