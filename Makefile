# Everything happens in one virtual environment, made on first use.
PYTHON ?= python3
VENV ?= .venv
TEST_PROCESSES ?= 2
PIP := $(VENV)/bin/pip install --quiet --constraint constraints.txt

.PHONY: demo test check docs clean

demo: $(VENV)/.demo  ## crawl the miniature web and run every stage on it
	$(VENV)/bin/witmill demo

test: $(VENV)/.dev  ## what must pass before a change lands: linter, types, tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

check: $(VENV)/.dev  ## linter and types alone
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/.dev  ## write the pages of docs/ that come from the code
	$(VENV)/bin/python -m pipeline.reference docs

clean:  ## remove the virtual environment and the demo's workspace
	rm -rf $(VENV) demo

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[download,train]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[all,dev]'
	touch $@ $(VENV)/.demo
