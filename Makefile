# Two commands do everything: `make pipeline` and `make test`. `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/buildonce

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: pipeline pipeline-aws test test-all test-unit lint format doctor setup lock protos benchmark benchmark-commit benchmark-rollout planted faults fleet clean help

pipeline: setup ## Set up what is missing and ship the dashboard, commit to production
	@BUILDONCE_PROFILE="$$(cat $(VENV)/profile)" $(RUN) run $(BIN)/python ci/main.py

pipeline-aws: $(VENV)/.test setup ## The same pipeline, to three simulated AWS accounts on this machine
	@BUILDONCE_PROFILE="$$(cat $(VENV)/profile),aws-simulated" $(BIN)/python -m tests.aws -- sh -ec '\
	    for each in staging production; do $(RUN) env apply $$each --as dashboard-stacks; done; \
	    $(RUN) run $(BIN)/python ci/main.py; \
	    $(BIN)/python -m tests.aws.listing'

# Hundreds of processes load this project: compiled once, whatever the shell says of bytecode.
test: $(VENV)/.test setup ## Set up what is missing and run the tests
	@PYTHONDONTWRITEBYTECODE= BUILDONCE_PROFILE="$$(cat $(VENV)/profile)" $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-all: ## The same with the long tests (some 20 minutes)
	@$(MAKE) test ARGS='-m "" $(ARGS)'

test-unit: $(VENV)/.test ## Run the tests that need nothing of the machine
	@$(BIN)/python -m pytest -m "not e2e and not long" $(ARGS)

lint: $(VENV)/.dev ## Check format, style and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --strict src

format: $(VENV)/.dev ## Format and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

doctor: $(VENV)/.base ## List each part: found where, which version, or what to type
	@$(RUN) doctor

setup: $(VENV)/.base ## Bring this machine to where pipelines run
	@$(RUN) setup --profile-file $(VENV)/profile

# A stamp says that the environment has at least this list. The lists include each other.
$(VENV)/.base: requirements/base.txt pyproject.toml $(BIN)/python
	@$(call install,base)
	@touch $@

$(VENV)/.test: requirements/test.txt pyproject.toml $(BIN)/python
	@$(call install,test)
	@touch $@ $(VENV)/.base

$(VENV)/.dev: requirements/dev.txt pyproject.toml $(BIN)/python
	@$(call install,dev)
	@touch $@ $(VENV)/.test $(VENV)/.base

$(BIN)/python:
	@PYTHON="$(PYTHON)" sh scripts/make-venv $(VENV)

define install
sh scripts/install-requirements $(BIN)/python requirements/$(1).txt && \
$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check \
    --no-deps --no-build-isolation --editable .
endef

# `dev` first: the smaller lists take the versions it found, so that all agree.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-annotate --custom-compile-command "make lock" $(UPGRADE)

lock: $(VENV)/.dev ## Write the hash-pinned lists anew (UPGRADE=--upgrade for newer versions)
	$(LOCK) --extra build --extra dev pyproject.toml -o requirements/dev.txt
	$(LOCK) --extra build --extra test -c requirements/dev.txt pyproject.toml -o requirements/test.txt
	$(LOCK) --extra build -c requirements/dev.txt pyproject.toml -o requirements/base.txt
	@find src -name requirements.in -o -path '*/stages/scanners/*.in' | while read -r list; do \
	    echo "$$list"; $(LOCK) "$$list" -o "$${list%.in}.txt" || exit 1; done

protos: $(VENV)/.dev ## Write the Python of engine/buildkit/proto/*.proto anew
	PATH="$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I src --python_out=src --mypy_out=src \
	    src/buildonce/engine/buildkit/proto/*.proto

benchmark: $(VENV)/.test setup ## Measure the engine beside raw buildctl and Dagger, where present
	@PATH="$(BIN):$$PATH" $(BIN)/python benchmarks/engine.py $(ARGS)

benchmark-commit: $(VENV)/.test setup ## Measure the commit stage: cold, a line changed, nothing changed (10 min)
	@BUILDONCE_PROFILE="$$(cat $(VENV)/profile)" $(BIN)/python benchmarks/commit_stage.py $(ARGS)

benchmark-rollout: $(VENV)/.test setup ## Measure rollouts under load: the split, and how fast it goes back
	@PATH="$(BIN):$$PATH" $(BIN)/python benchmarks/rollout.py $(ARGS)

faults: $(VENV)/.test ## Run the whole fault table: every step, every fault, every target (30 min)
	@$(BIN)/python -m tests.faults $(ARGS)

fleet: $(VENV)/.test ## Promote through 50 and 200 simulated environments, and count
	@$(BIN)/python benchmarks/fleet.py $(ARGS)

planted: $(VENV)/.test setup ## Plant faults in a repository and list which of them the checks find
	@BUILDONCE_PROFILE="$$(cat $(VENV)/profile)" $(BIN)/python -m tests.planted

clean: ## Remove what was made in this folder (not the registry, the cache or the environments)
	rm -rf $(VENV) out dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
