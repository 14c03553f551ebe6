# Everything a developer types. Each target provisions what it needs, with progress shown;
# downloads and builds are cached outside the checkout (see CONTRIBUTING.md).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PACKAGES := gpus kube service webhook extender nodeagent certs doctor explain scheduling preflight cli localcluster image release tests

.PHONY: help setup check format test demo bench fuzz manifests image release lock clean

help:
	@echo "make demo    a real control plane here, GPU pods placed, shown step by step (about 90 s once cached)"
	@echo "make test    all tests that this machine can run; says what it left out and why"
	@echo "make check   formatting, lint, types, import directions"
	@echo "make bench   speed and memory beside kube-scheduler alone and a stub; about 20 minutes, a first impression with BENCH_ARGS=--quick"
	@echo "make fuzz    a million wrong requests each through the webhook's and the extender's handlers; FUZZ_ARGS=--help"
	@echo "make manifests   render manifests/chart into the YAML files beside it"
	@echo "make image   the container image and its SBOM in build/image, without a container engine; IMAGE_ARGS=--help"
	@echo "make release all files of a release in dist"
	@echo "make setup   the virtual environment only        make lock   resolve the lock files anew"

setup: $(READY)

$(READY): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "gpudetour needs Python 3.11 or later; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "==> virtual environment in $(VENV) (about a minute when nothing is cached)"
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "python3 has no venv module here; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(READY)
	$(BIN)/python -m localcluster parts --keep-going
	$(BIN)/python -m pytest $(PYTEST_ARGS)

demo: $(READY)
	@$(BIN)/python -m localcluster.demo

bench: $(READY)
	@$(BIN)/python -m localcluster.bench $(BENCH_ARGS)

fuzz: $(READY)
	@$(BIN)/python -m localcluster.fuzz $(FUZZ_ARGS)

manifests: $(READY)
	@$(BIN)/python -m localcluster manifests

image: $(READY)
	@$(BIN)/python -m release image $(IMAGE_ARGS)

release: $(READY)
	@$(BIN)/python -m release dist $(IMAGE_ARGS)

# Hashes without an index: whoever installs chooses the index.
lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --upgrade --quiet \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url -o requirements/runtime.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --quiet \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url -o requirements/dev.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
