# Needs only make and Python >= 3.11; PYTHON=/path/to/python selects the interpreter.
# Written for GNU make 3.81, which macOS has.

SHELL := /bin/sh
.DEFAULT_GOAL := help

UV_VERSION := 0.13.8
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/python -m uv
RUN_READY := $(VENV)/.ready-to-run
DEV_READY := $(VENV)/.ready-to-develop
EXCLUDED := $(VENV)/.excluded
INSTALL := $(UV) pip install --python $(BIN)/python --no-deps
# Must also run on a Python that is too old.
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
FAST := not slow and not model and not postgres and not kafka and not ray and not gpu
# As many processes as the smallest machine has cores; one of them runs all tests that start Ray.
PARALLEL := -n 2 --no-loadscope-reorder
ARGS ?=

# Send no usage data to third parties.
export RAY_USAGE_STATS_ENABLED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH
unexport VIRTUAL_ENV

FAMILIES := $(addprefix tests/serve/,test_families.py test_heads_of_families.py test_multi_head.py \
	tasks/test_fill_mask.py)

.PHONY: help setup setup-dev demo demo-release test test-architectures check chaos bench bench-ops lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

setup: $(RUN_READY) ## install what the product needs: .venv, locked packages, Kafka's jars

setup-dev: $(DEV_READY) ## setup, plus what tests and checks need

demo: $(RUN_READY) ## run the whole product on this machine with sample data, in under 2 minutes
	$(BIN)/bertstream demo

demo-release: $(RUN_READY) ## show releases under load: one good version, three bad ones; takes minutes
	$(BIN)/bertstream demo-release

test: $(DEV_READY) ## run all tests, with a real Kafka and Ray; ARGS="-k name" selects some
	$(BIN)/python -m pytest $(PARALLEL) -m "not architectures" $(ARGS)

test-architectures: $(DEV_READY) ## compare every supported model family with transformers
	$(BIN)/python -m pytest $(FAMILIES) $(ARGS)

check: $(DEV_READY) ## check lint, format, types and imports, and run the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q $(PARALLEL) --hypothesis-profile=fast -m "$(FAST)" $(ARGS)

chaos: $(DEV_READY) ## kill processes during streaming for minutes and count every record
	$(BIN)/python -m bench.chaos $(ARGS)

bench: $(DEV_READY) ## measure throughput and latency against sentence-transformers
	$(BIN)/python -m bench $(ARGS)

bench-ops: $(DEV_READY) ## simulate releases, and time a large catalogue and the operator
	$(BIN)/python -m bench.ops $(ARGS)

lock: $(DEV_READY) ## resolve all versions again and rewrite the lock files
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --excludes $(EXCLUDED) \
		pyproject.toml -o requirements.lock
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --excludes $(EXCLUDED) \
		--extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	$(BIN)/python -m ops.embedded_kafka.runtime --relock

clean: ## remove .venv and everything that can be rebuilt; keeps .bertstream/
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last, so that an interrupted set-up is resumed; what a stamp covers is not
# fetched again, so that later runs need no network.

$(VENV)/.uv-$(UV_VERSION):
	@python=$${PYTHON:-}; \
	if [ -z "$$python" ]; then \
		for name in python3 python3.13 python3.12 python3.11; do \
			if $$name -c '$(IS_NEW_ENOUGH)' 2>/dev/null; then python=$$name; break; fi; \
		done; \
	fi; \
	if [ -z "$$python" ] || ! $$python -c '$(IS_NEW_ENOUGH)'; then \
		echo "error: no Python >= 3.11 ($${python:-python3}); name one: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	$$python -m venv $(VENV) || { \
		echo "error: $$python could not make $(VENV); on Debian and Ubuntu install python3-venv" >&2; \
		exit 1; \
	}
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	@echo openvino-telemetry > $(EXCLUDED)
	touch $@

# The lock files name every package, so dependencies are not resolved (--no-deps). OpenVINO runs
# without its telemetry package, so that it cannot send telemetry.
$(RUN_READY): $(VENV)/.uv-$(UV_VERSION) requirements.lock pyproject.toml ops/embedded_kafka/kafka_jars.lock
	@echo "installing packages into $(VENV) (several GB the first time)"
	$(INSTALL) --require-hashes --excludes $(EXCLUDED) -r requirements.lock
	$(INSTALL) --quiet --no-build-isolation -e .
	$(BIN)/python -m ops.embedded_kafka.runtime
	touch $@

$(DEV_READY): $(RUN_READY) requirements-dev.lock
	$(INSTALL) --require-hashes --excludes $(EXCLUDED) -r requirements-dev.lock
	touch $@
