# From a bare clone, with only Python 3.10-3.13 and make:  make train
VENV  ?= .venv
DATA  ?= shapes10
MODEL ?= sl_vit
# RECIPE names a training recipe; without it the train command picks the one that suits the data set.
# BENCH names benchmarks, one or several. ARGS adds options: to the train command, to pytest, to the benchmarks.
RECIPE ?=
BENCH  ?= train_step
ARGS   ?=
QUICK  ?= --quick

PY = $(VENV)/bin/python
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train test test-thorough lint lessons bench docs clean

help: ## list what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  Variables: DATA=$(DATA) MODEL=$(MODEL) RECIPE=$(RECIPE) BENCH="$(BENCH)" ARGS="$(ARGS)" PYTHON=$(PYTHON)'
	@echo '  Examples:  make train DATA=cifar100 ARGS="--time-budget 30"'
	@echo '             make bench BENCH="$(BENCHES)"'

train: $(VENV)/.has-images,plots ## install, then train MODEL on DATA (sl_vit on shapes10: no download)
	@echo "Training $(MODEL) on $(DATA)"
	@$(PY) -m minivit.train --model '$(MODEL)' --data '$(DATA)' $(if $(RECIPE),--recipe '$(RECIPE)') $(ARGS)

test: $(VENV)/.has-test ## run the tests (ARGS="-k name" selects some)
	@MINIVIT_HYPOTHESIS=ci $(PY) -m pytest -q $(ARGS)

test-thorough: $(VENV)/.has-test ## run the tests with many more random examples
	@MINIVIT_HYPOTHESIS=thorough $(PY) -m pytest -q $(ARGS)

lint: $(VENV)/.has-test ## check style and the import floors
	@$(PY) -m ruff check .
	@$(PY) -m pytest -q tests/test_import_floors.py

lessons: $(VENV)/.has-images,plots ## run every lesson in its short form (QUICK= in its full one)
	@for lesson in lessons/[0-9][0-9]_*.py; do $(PY) "$$lesson" $(QUICK) || exit; done

BENCHES = train_step xnor_gemm packed_inference augmentation
bench: $(VENV)/.has-test ## time what BENCH names: train_step (against PyTorch), xnor_gemm, packed_inference, augmentation
	@$(if $(filter-out $(BENCHES),$(BENCH)),$(error no benchmark "$(BENCH)": BENCH takes one or more of $(BENCHES)))
	@[ -z '$(filter train_step packed_inference,$(BENCH))' ] || $(PY) -c 'import torch' 2>/dev/null || \
	  { echo 'Installing PyTorch to compare with (a large download)'; \
	  $(PY) -m pip install -qq --disable-pip-version-check -e '.[bench]'; } || \
	  echo 'PyTorch could not be installed: train_step times minivit alone' >&2
	@for name in $(BENCH); do $(PY) benchmarks/$$name.py $(ARGS) || exit; done

docs: $(VENV)/.has-test ## write docs/models.md: what every model costs, counted
	@$(PY) docs/models_table.py

clean: ## remove the virtual environment and all caches (runs/ and data/ stay)
	@[ ! -e '$(VENV)/pyvenv.cfg' ] || rm -rf '$(VENV)'
	rm -rf build minivit.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./.git -prune -o -name __pycache__ -type d -exec rm -rf {} +

# One stamp for each set of extras; a change of pyproject.toml installs them anew.
$(VENV)/.has-%: pyproject.toml setup.py | $(VENV)/.created
	@echo 'Installing minivit with extras "$*" into $(VENV)'
	@$(PY) -m pip install -qq --disable-pip-version-check -e '.[$*]' || \
	  { echo 'Installation failed: the lines above say why (is the network there?)' >&2; exit 1; }
	@touch '$@'

# PYTHON names the interpreter; without it, the newest supported one that runs.
CANDIDATES = $(or $(PYTHON),python3.13 python3.12 python3.11 python3.10 python3 python)
$(VENV)/.created:
	@if [ -x '$(PY)' ] && '$(PY)' -m pip --version >/dev/null 2>&1; then \
	  echo 'Using the virtual environment in $(VENV)'; touch '$@'; exit 0; \
	elif [ -d '$(VENV)' ] && [ -n "$$(ls -A '$(VENV)')" ]; then \
	  echo '$(VENV) is there but is no virtual environment that runs: remove it, or name another: make VENV=DIR' >&2; \
	  exit 1; \
	fi; \
	for python in $(CANDIDATES); do \
	  "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	    >/dev/null 2>&1 || continue; \
	  echo "Creating $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv '$(VENV)' && touch '$@' && exit 0; \
	  exit 1; \
	done; \
	echo 'No Python 3.10 to 3.13 with venv found (tried $(CANDIDATES)).' >&2; \
	echo 'Install one (Debian, Ubuntu: apt install python3-venv) or name it: make PYTHON=python3.12' >&2; exit 1
