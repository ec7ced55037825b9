# Two commands do everything: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

PACKAGES := $(VENV)/.packages

.PHONY: help install demo quick test lint format bench reliability lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(INSTALLED) ## make .venv with the exact versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt | $(PACKAGES)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# Debian's packages: venv makes the environment, ffmpeg reads what libsndfile cannot, chromium opens reports in the tests.
$(PACKAGES):
	@missing=""; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || missing="python3-venv"; \
	command -v ffmpeg >/dev/null || missing="$$missing ffmpeg"; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	command -v chromedriver >/dev/null || missing="$$missing chromium-driver"; \
	if test -z "$$missing"; then :; \
	elif test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
		apt-get update -qq >/dev/null; \
		for package in $$missing; do \
			DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$package >/dev/null \
			|| echo "could not install $$package; going on without"; \
		done; \
	else echo "going on without $$missing; as root: apt-get install $$missing"; fi
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	touch $@

demo: install ## transcribe, train and score on real recordings (training takes most of the time)
	$(BIN)/python recipes/prompts/prepare.py --languages en --out data/prompts-en
	$(BIN)/python recipes/prompts/demo.py --data data/prompts-en

quick: install ## the same with four training steps and greedy search, to see that it runs
	$(BIN)/python recipes/prompts/prepare.py --languages en --out data/prompts-en
	$(BIN)/python recipes/prompts/demo.py --data data/prompts-en --out exp/quick --quick

# A thread for each of the two processes: with two each, they wait for one another's and take twice as long.
test: install ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: install ## ruff and mypy
	$(BIN)/ruff check asr recipes benchmarks docs tests
	$(BIN)/ruff format --check asr recipes benchmarks docs tests
	$(BIN)/mypy

bench: install ## how fast recordings become text, beside faster-whisper
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python recipes/prompts/prepare.py --languages en --out data/prompts-en
	$(BIN)/python benchmarks/transcribe.py data/prompts-en/cuts_*.jsonl.gz

reliability: install ## kill it, fill its disk, feed it broken audio, and look at what is left (an hour)
	$(BIN)/python -m benchmarks.reliability

lock: install ## find the newest versions that pyproject.toml allows and write constraints.txt
	$(BIN)/python -m pip install --quiet uv
	echo '# Exact versions that `make install` uses; `make lock` resolves them for the oldest Python supported.' > $(VENV)/lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra bench --python-version 3.10 --no-header --no-annotate --quiet >> $(VENV)/lock
	mv $(VENV)/lock constraints.txt

format: install ## put the code into shape
	$(BIN)/ruff check --fix asr recipes benchmarks docs tests
	$(BIN)/ruff format asr recipes benchmarks docs tests

clean: ## remove the environment and what tools left behind (data and runs stay)
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
