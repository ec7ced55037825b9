# Two commands do everything: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test lint format lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(INSTALLED) ## make .venv with the exact versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: install ## prepare the English prompts and train on them for two minutes
	$(BIN)/python recipes/prompts/prepare.py --languages en --out data/prompts
	$(BIN)/asr train conf/prompts/en.yaml out=exp/demo trainer.max_steps=$(DEMO_STEPS) trainer.validate_every_steps=$(DEMO_STEPS)
	$(BIN)/asr evaluate data/prompts/cuts_dev.jsonl.gz --model exp/demo/model

DEMO_STEPS ?= 300

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
