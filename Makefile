# Every target sets up what it needs: a fresh clone, Python 3.11 or newer and make are enough.
# ARGS goes to the command that a target runs: make demo ARGS="--seed 7 --keep", make test ARGS="tests/ml -x".

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-faults soak lint audit bench bench-mi bench-mi-seeds bench-search bench-load reproduce lock

VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
MINUTES ?= 30
COMPILE := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header
SUITS = import sys; sys.exit(sys.version_info < (3, 11))

# The newest Python; PYTHON=/some/python3 chooses another.
ifndef PYTHON
PYTHON := $(shell for name in python3.14 python3.13 python3.12 python3.11 python3; do \
	if $$name -c '$(SUITS)' >/dev/null 2>&1; then command -v $$name; break; fi; done)
endif

# An environment whose Python is gone or does not start is made anew.
ifneq ($(wildcard $(READY)),)
ifneq ($(shell $(BIN)/python -c 'print("starts")' 2>/dev/null),starts)
$(shell rm -f $(READY))
endif
endif

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(READY) ## Make the virtual environment .venv with everything in it.

demo: $(READY) ## Trace a real curve: mutual information against accuracy, on handwritten digits.
	@$(BIN)/sweetspot demo $(ARGS)

test: $(READY) ## Run the tests, in two processes; those on real datasets look for them in SWEETSPOT_DATASETS.
	$(BIN)/python -m pytest -q -n 2 $(ARGS)

test-faults: $(READY) ## Everything that the service survives, at full length: kills, freezes, servers that go, all of it a hundred times.
	$(BIN)/python -m pytest -q tests/faults -m "long or not long" $(ARGS)

soak: $(READY) ## Any sequence of submissions, cancels, retries, deletes and faults, for MINUTES.
	SOAK_MINUTES=$(MINUTES) $(BIN)/python -m pytest -q tests/faults/test_machine.py -m long $(ARGS)

lint: $(READY) ## Check style, types, and who may import whom.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# B101: assertions say what is so anyway, to people and to mypy; no input decides them, and -O changes nothing.
# B403, B404: that pickle or subprocess is imported is no finding. B603, B606: commands are lists of our own words, without a shell.
SKIPPED := B101,B403,B404,B603,B606

audit: $(READY) ## Look for what bandit finds unsafe in the code, and for known holes in what is installed.
	$(BIN)/bandit --quiet --recursive --skip $(SKIPPED) app ml workers migrations
	$(BIN)/pip-audit --requirement requirements.lock --require-hashes --no-deps --disable-pip --strict

bench: $(READY) ## Measure what the documentation says about speed.
	$(BIN)/python -m benchmarks.run $(ARGS)

bench-mi: $(READY) ## Set every estimator of mutual information beside what is known: half an hour, resumable.
	$(BIN)/python -m benchmarks.mi $(ARGS)

bench-mi-seeds: $(READY) ## The default estimators on many draws, also of what no rule was chosen on: an hour, resumable.
	$(BIN)/python -m benchmarks.mi_seeds $(ARGS)

bench-search: $(READY) ## What a search for the peak saves against a dense grid, and whether its intervals hold: resumable.
	$(BIN)/python -m benchmarks.search $(ARGS)

bench-load: $(READY) ## Fifty clients submit and poll at once while two workers run five thousand tiny jobs.
	$(BIN)/python -m benchmarks.load $(ARGS)

reproduce: $(READY) ## Trace the paper's curves on real data: hours, resumable; one family with reproduce-NAME.
	$(BIN)/python -m benchmarks.reproduce $(ARGS)

reproduce-%: $(READY)
	$(BIN)/python -m benchmarks.reproduce $* $(ARGS)

lock: ## Pin all dependencies anew, with their hashes; needs uv.
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	printf 'torch==2.13.0\ntorchvision==0.28.0\n' > .constraints.txt
	$(COMPILE) --all-extras --constraint .constraints.txt --output-file requirements.lock; \
	status=$$?; rm -f .constraints.txt; exit $$status
	$(COMPILE) --constraint requirements.lock --output-file requirements-api.lock
	$(COMPILE) --extra ml --constraint requirements.lock --output-file requirements-worker.lock

# Without the stamp an environment was left half-made, and is begun again; with it, it is brought up to date.
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Sweetspot needs Python 3.11 or newer, and none was found: install one (on Debian" \
		"python3 and python3-venv), or name one with PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c '$(SUITS)' || { echo "$(PYTHON) is older than Python 3.11." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments:" \
		"install its venv module (on Debian: apt-get install python3-venv)." >&2; exit 1; }
	@test -e $@ || { echo "Making $(VENV) with $(PYTHON) and installing everything, which takes some minutes."; \
		$(PYTHON) -m venv --clear $(VENV); }
	@rm -f $@
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
