# Everything one does with Aarokya; `make help` lists it.
# It needs git, make and Python 3.11 or newer (PYTHON=... names another than the first one found).

ifndef PYTHON
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
endif
BOOTSTRAP = $(if $(PYTHON),"$(PYTHON)",$(error Python 3.11 or newer is needed, and none is on the PATH)) deploy/bootstrap.py
# -P keeps the current folder from the front of the import path; the virtualenv knows all folders in their order.
RUN := .venv/bin/python -P -m

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Start everything on this machine, and stop it again with Ctrl-C; the data stays in .data
	@$(BOOTSTRAP) && exec $(RUN) deploy.local

.PHONY: demo
demo: ## Walk a partner's journey through the system that `make run` started
	@$(BOOTSTRAP) && exec $(RUN) deploy.demo

.PHONY: test
test: dev ## Run all tests; ARGS="-k mrn" runs some
	@$(RUN) pytest $(ARGS)

.PHONY: fuzz
fuzz: dev ## Send made-up requests as every kind of caller; ARGS="--seed 7" repeats a run
	@$(RUN) tests.fuzz $(ARGS)

.PHONY: check
check: dev ## Check style, types, imports, protos and generated code
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@.venv/bin/lint-imports
	@.venv/bin/python protos/lint.py
	@.venv/bin/python protos/generate.py --check
	@.venv/bin/python docs/generate_variables.py --check

.PHONY: mutate-guards
mutate-guards: dev ## Make mistakes in the guards of every route, and check that the access test finds them
	@$(RUN) tests.e2e.mutate_guards

.PHONY: chaos
chaos: dev ## Break a system on purpose, and check that it keeps its promises (15 minutes)
	@$(RUN) chaos --record $(ARGS)

.PHONY: chaos-full
chaos-full: dev ## The same at full length (90 minutes)
	@$(RUN) chaos --scale full --record $(ARGS)

.PHONY: bench
bench: dev ## Measure CPU and latency beside what one would write instead (10 minutes, nothing else running)
	@$(RUN) bench --record $(ARGS)

.PHONY: generate
generate: dev ## Generate Python from the protos, and the table of variables
	@.venv/bin/python protos/generate.py
	@.venv/bin/python docs/generate_variables.py

.PHONY: compose-secrets
compose-secrets: ## Make the secrets of deploy/docker-compose.yml, once
	@deploy/compose/make_secrets

.PHONY: compose-build
compose-build: ## Build the images of this checkout, and have deploy/.env name them
	@"$(PYTHON)" -m deploy.compose.build $(ARGS)

.PHONY: compose-test
compose-test: dev ## Try deploy/docker-compose.yml on this machine's Docker, beside whatever runs
	@$(RUN) deploy.compose.test

.PHONY: backup
backup: ## Back up the databases of deploy/docker-compose.yml to deploy/backups
	@"$(PYTHON)" -m deploy.compose.backup $(ARGS)

.PHONY: restore
restore: ## Bring the databases back: make restore FROM=deploy/backups/<time>
	@"$(PYTHON)" -m deploy.compose.restore $(FROM) $(ARGS)

.PHONY: rolling-restart
rolling-restart: ## Replace running containers, losing no request; ARGS=records only those
	@"$(PYTHON)" -m deploy.compose.rolling_restart $(ARGS)

.PHONY: upgrade
upgrade: ## Bring running containers and databases to the images of AAROKYA_VERSION
	@"$(PYTHON)" -m deploy.compose.rolling_restart --migrate

.PHONY: lock
lock: dev ## Pin the packages of requirements.in and requirements-dev.in
	@for set in requirements requirements-dev; do \
		$(RUN) uv pip compile --universal --python-version 3.11 --generate-hashes --quiet \
			--no-emit-index-url --no-emit-find-links --no-header "$$set.in" --output-file "$$set.lock" || exit 1; \
	done

.PHONY: dev
dev:
	@$(BOOTSTRAP) --dev
