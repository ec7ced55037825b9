# Two commands do everything: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo quick test lint format clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(INSTALLED) ## make .venv with the exact versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: install ## transcribe, train and score on real recordings (training takes most of the time)
	$(BIN)/python recipes/prompts/prepare.py --languages en --out data/prompts-en
	$(BIN)/python recipes/prompts/demo.py --data data/prompts-en

quick: install ## the same in two minutes, to see that it runs
	$(BIN)/python recipes/prompts/prepare.py --languages en --out data/prompts-en
	$(BIN)/python recipes/prompts/demo.py --data data/prompts-en --out exp/quick --quick

test: install ## run the tests
	$(BIN)/python -m pytest -n 2

lint: install ## ruff and mypy
	$(BIN)/ruff check asr recipes tests
	$(BIN)/ruff format --check asr recipes tests
	$(BIN)/mypy

format: install ## put the code into shape
	$(BIN)/ruff check --fix asr recipes tests
	$(BIN)/ruff format asr recipes tests

clean: ## remove the environment and what tools left behind (data and runs stay)
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
