# Developer commands; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := layers/dependencies/requirements.txt
CHECKOV_LOCK := tests/shape/checkov-requirements.txt
PIP := pip==26.3   # earlier versions do not check hashes of constraints
UV := uv==0.13.9   # only writes the lock files

help:  ## list all targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# One stamp file per dependency group, so that `make demo` installs only the packages of the demo.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is required, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(firstword $(PIP))"
	@$(BIN)/python -c 'import sysconfig, pathlib; pathlib.Path(sysconfig.get_path("purelib"), "aiserver.pth").write_text("$(CURDIR)/layers/aiserver\n")'

.PRECIOUS: $(VENV)/%.installed
$(VENV)/%.installed: $(LOCK) pyproject.toml | $(BIN)/python
	@echo "installing the packages of $* ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary=:all: -c $(LOCK) -r layers/dependencies/requirements.in --group $*
	@touch $@

lock:  ## update and pin every package, with hashes
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

demo: $(VENV)/local.installed  ## synchronous, streamed and queued requests, step by step, on the embedded cloud
	@$(BIN)/python -m local.demo

real-model: $(VENV)/local.installed  ## the gateway with a small real model on this CPU (130 MB; or MODEL_FILE=….gguf, or an Ollama server)
	@$(BIN)/python -m local.real_model

dev: $(VENV)/local.installed  ## serve until Ctrl-C (PORT, PROVIDERS, STRICT_CALLBACKS, STATE_DIR)
	@exec $(BIN)/python -m local.dev

invoke: $(VENV)/local.installed  ## invoke one function with one event: make invoke E=chat
	@$(BIN)/python -m local.invoke $(E)

# Tests of npm clients and of the IAM simulator need Node.js 18 or later; without it they are skipped.
NODE_PACKAGES := $(shell node -e 'process.exit(process.versions.node.split(".")[0] < 18 ? 1 : 0)' 2>/dev/null \
	&& echo tests/flow/node/node_modules/.installed tests/iam/node_modules/.installed)
%/node_modules/.installed: %/package-lock.json
	@cd $* && npm ci --silent --no-audit --no-fund && touch node_modules/.installed

test: $(VENV)/local.installed $(VENV)/test.installed $(NODE_PACKAGES)  ## all tests, with few examples per randomized test
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

LANGUAGE_PACKAGES := $(if $(NODE_PACKAGES),$(patsubst %,tests/languages/tools/%/node_modules/.installed,typescript kotlin fsharp dart cli))
test-languages: export LANGUAGES := 1
test-languages: $(VENV)/local.installed $(VENV)/test.installed $(NODE_PACKAGES) $(LANGUAGE_PACKAGES)  ## compile and run the types of /types with the compilers found
	@$(BIN)/python -m pytest tests/languages -n 0 -rs

test-full: export HYPOTHESIS_PROFILE := full
test-full: test  ## all tests, with all examples (longer)

check: $(VENV)/local.installed $(VENV)/test.installed $(VENV)/check.installed $(CHECKOV)/.installed  ## format, lint, types, layers, template, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/shape/test_names.py tests/shape/test_phrases.py
	$(BIN)/cfn-lint template.yaml docs/examples/*.yaml
	SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 $(BIN)/sam validate --lint
	$(CHECKOV)/bin/checkov --config-file .checkov.yaml
	$(BIN)/python -m docs.generate --check
	$(BIN)/python -m docs.dtos --check
	$(BIN)/python -m docs.quick_starts --check
	$(BIN)/python -m docs.cost --check
	$(BIN)/python -m docs.security --check
	$(BIN)/python -m docs.catalogue --check
	$(BIN)/python -m docs.vendors --check
	$(BIN)/python -m docs.limits --check
	$(BIN)/python -m docs.log_events --check
	$(BIN)/python -m docs.layers --check
	$(BIN)/python -m benchmarks.page --check

docs: $(VENV)/local.installed $(VENV)/test.installed  ## update the generated parts of the docs
	@$(BIN)/python -m docs.generate
	@$(BIN)/python -m docs.dtos
	@$(BIN)/python -m docs.quick_starts
	@$(BIN)/python -m docs.cost
	@$(BIN)/python -m docs.security
	@$(BIN)/python -m docs.catalogue
	@$(BIN)/python -m docs.vendors
	@$(BIN)/python -m docs.limits
	@$(BIN)/python -m docs.log_events
	@$(BIN)/python -m docs.layers
	@$(BIN)/python -m benchmarks.page

mutate: $(VENV)/local.installed $(VENV)/test.installed  ## mutation tests for the state machine and failover (minutes)
	@$(BIN)/python -m tests.mutate
	@$(BIN)/python -m tests.mutate_rules

bench: $(VENV)/local.installed $(VENV)/test.installed  ## run the benchmarks, write benchmarks/results and docs/benchmarks.md
	@$(BIN)/python -m benchmarks.local
	@$(BIN)/python -m benchmarks.streams
	@$(BIN)/python -m benchmarks.binding
	@$(BIN)/python -m benchmarks.callbacks
	@$(BIN)/python -m benchmarks.batch
	@$(BIN)/python -m benchmarks.memory
	@$(BIN)/python -m benchmarks.calls
	@$(BIN)/python -m benchmarks.audio

soak: $(VENV)/local.installed  ## 2,000 jobs with killed processes and faults, checked against invariants; writes docs/soak.md (5 minutes; SEED, COUNT)
	@$(BIN)/python -m benchmarks.soak

build: $(VENV)/check.installed  ## build the deployment package (needs python3.13)
	@python3.13 --version >/dev/null 2>&1 || { echo "make build requires python3.13, the version of the Lambda runtime, on the PATH"; exit 1; }
	SAM_CLI_TELEMETRY=0 $(BIN)/sam build

deploy: build  ## deploy to your AWS account, with the settings of samconfig.toml
	SAM_CLI_TELEMETRY=0 $(BIN)/sam deploy

verify-deploy: $(VENV)/local.installed  ## test a deployment over HTTP: make verify-deploy URL=… KEY=…
	@URL="$(URL)" KEY="$(KEY)" MODEL="$(MODEL)" SLOW_MODEL="$(SLOW_MODEL)" SPEECH_MODEL="$(SPEECH_MODEL)" VOICE="$(VOICE)" TRANSCRIPTION_MODEL="$(TRANSCRIPTION_MODEL)" \
		$(BIN)/python -m local.verify_deploy

.PHONY: real-model verify-deploy bench soak mutate help lock demo dev invoke test test-full test-languages check docs build deploy
