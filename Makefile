# make quickstart   installs and trains the whole curriculum on the embedded world
# make test         installs what is missing and runs the tests
#                   (those in a browser where there is Chromium; .ci/run installs it)
# TORCH names the build of PyTorch to install; a CPU build is enough.
TORCH ?= torch==2.13.0
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install quickstart test test-long lint clean

install: .venv/.installed

.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q "$(TORCH)"
	$(BIN)/pip install -q -e ".[dev]"
	touch $@

quickstart: install
	$(BIN)/trivium run recipes/quickstart.yaml

ifneq ($(shell command -v chromium || command -v chromium-browser || command -v google-chrome),)
test: install
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
else
test: install
	@echo "There is no Chromium here: the tests in a browser are left out. To have them: apt-get install chromium"
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not long and not browser"
endif

test-long: install
	$(BIN)/pip install -q -e ".[eval]"
	$(BIN)/python -m pytest -m long

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf .venv build .pytest_cache .ruff_cache .mypy_cache
