# One file, one word per thing a developer does. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := layers/dependencies/requirements.txt
CHECKOV_LOCK := tests/shape/checkov-requirements.txt
PIP := pip==26.3   # older ones do not check hashes of constraints
UV := uv==0.13.9   # writes the lock, nothing else

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# A stamp a group, so that `make demo` installs only what the demo needs.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(firstword $(PIP))"
	@$(BIN)/python -c 'import sysconfig, pathlib; pathlib.Path(sysconfig.get_path("purelib"), "aiserver.pth").write_text("$(CURDIR)/layers/aiserver\n")'

.PRECIOUS: $(VENV)/%.installed
$(VENV)/%.installed: $(LOCK) pyproject.toml | $(BIN)/python
	@echo "installing what $* needs ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary=:all: -c $(LOCK) -r layers/dependencies/requirements.in --group $*
	@touch $@

lock:  ## pin every package again, with hashes
	@$(PYTHON) -m venv .local/uv && .local/uv/bin/pip install --quiet "$(firstword $(UV))"
	@.local/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --upgrade \
		--custom-compile-command "make lock" layers/dependencies/requirements.in \
		--group pyproject.toml:local --group pyproject.toml:test --group pyproject.toml:check -o $(LOCK)
	@.local/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --upgrade --no-deps \
		--custom-compile-command "make lock" --group pyproject.toml:real-model -o local/real-model-requirements.txt
	@.local/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --upgrade \
		--custom-compile-command "make lock" --group pyproject.toml:checkov -o $(CHECKOV_LOCK)

CHECKOV := .local/checkov
$(CHECKOV)/.installed: $(CHECKOV_LOCK)
	@echo "installing checkov ..."
	@$(PYTHON) -m venv --clear $(CHECKOV)
	@$(CHECKOV)/bin/pip install --quiet --disable-pip-version-check --only-binary=:all: --require-hashes --no-deps -r $(CHECKOV_LOCK)
	@touch $@

demo: $(VENV)/local.installed  ## the main job, step by step, on the embedded cloud
	@$(BIN)/python -m local.demo

real-model: $(VENV)/local.installed  ## the product before a small real model on this CPU (130 MB; or MODEL_FILE=….gguf, or an Ollama)
	@$(BIN)/python -m local.real_model

dev: $(VENV)/local.installed  ## serve until Ctrl-C (PORT, PROVIDERS, STRICT_CALLBACKS, STATE_DIR)
	@exec $(BIN)/python -m local.dev

invoke: $(VENV)/local.installed  ## run one function on one event: make invoke E=chat
	@$(BIN)/python -m local.invoke $(E)

# npm clients and the IAM simulator are used where there is a Node.js to run them; without one their tests are skipped.
NODE_PACKAGES := $(shell node -e 'process.exit(process.versions.node.split(".")[0] < 18 ? 1 : 0)' 2>/dev/null \
	&& echo tests/flow/node/node_modules/.installed tests/iam/node_modules/.installed)
%/node_modules/.installed: %/package-lock.json
	@cd $* && npm ci --silent --no-audit --no-fund && touch node_modules/.installed

test: $(VENV)/local.installed $(VENV)/test.installed $(NODE_PACKAGES)  ## the whole suite, each randomized test with some examples
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

test-full: export HYPOTHESIS_PROFILE := full
test-full: test  ## the same, with all examples (longer)

check: $(VENV)/local.installed $(VENV)/test.installed $(VENV)/check.installed $(CHECKOV)/.installed  ## format, lint, types, floors, template, docs fresh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/cfn-lint template.yaml docs/examples/*.yaml
	SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 $(BIN)/sam validate --lint
	$(CHECKOV)/bin/checkov --config-file .checkov.yaml
	$(BIN)/python -m docs.generate --check
	$(BIN)/python -m docs.cost --check
	$(BIN)/python -m docs.security --check
	$(BIN)/python -m docs.catalogue --check
	$(BIN)/python -m docs.vendors --check
	$(BIN)/python -m docs.limits --check
	$(BIN)/python -m benchmarks.page --check

docs: $(VENV)/local.installed $(VENV)/test.installed  ## write what the docs take from the code
	@$(BIN)/python -m docs.generate
	@$(BIN)/python -m docs.cost
	@$(BIN)/python -m docs.security
	@$(BIN)/python -m docs.catalogue
	@$(BIN)/python -m docs.vendors
	@$(BIN)/python -m docs.limits
	@$(BIN)/python -m benchmarks.page

mutate: $(VENV)/local.installed $(VENV)/test.installed  ## is every condition of the job machine, and every rule of failing over, held by a test? (minutes)
	@$(BIN)/python -m tests.mutate
	@$(BIN)/python -m tests.mutate_rules

bench: $(VENV)/local.installed $(VENV)/test.installed  ## measure this machine, write benchmarks/results and docs/benchmarks.md
	@$(BIN)/python -m benchmarks.local
	@$(BIN)/python -m benchmarks.streams
	@$(BIN)/python -m benchmarks.binding
	@$(BIN)/python -m benchmarks.callbacks
	@$(BIN)/python -m benchmarks.batch
	@$(BIN)/python -m benchmarks.memory
	@$(BIN)/python -m benchmarks.calls

soak: $(VENV)/local.installed  ## 2,000 jobs among kills and faults, books balanced, write docs/soak.md (5 minutes; SEED, COUNT)
	@$(BIN)/python -m benchmarks.soak

build: $(VENV)/check.installed  ## what `make deploy` would upload (needs python3.13)
	@python3.13 --version >/dev/null 2>&1 || { echo "make build needs python3.13, Lambda's own, on the PATH"; exit 1; }
	SAM_CLI_TELEMETRY=0 $(BIN)/sam build

deploy: build  ## to your AWS account, as samconfig.toml says
	SAM_CLI_TELEMETRY=0 $(BIN)/sam deploy

verify-deploy: $(VENV)/local.installed  ## probe a deployment from outside: make verify-deploy URL=… KEY=…
	@URL="$(URL)" KEY="$(KEY)" MODEL="$(MODEL)" SLOW_MODEL="$(SLOW_MODEL)" $(BIN)/python -m local.verify_deploy

.PHONY: real-model verify-deploy bench soak mutate help lock demo dev invoke test test-full check docs build deploy
