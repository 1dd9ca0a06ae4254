# Two commands: `make run` and `make test`. Both first make .venv from python3 and a package index.
#   make run                                        the demo on the embedded virtual adult
#   make run RECORD=my.csv SYSTEM=T1DMinimal        on a file of one's own (also UNITS, ZONE: see README)
PYTHON ?= python3
BIN    := .venv/bin
LOCK   := $(shell $(PYTHON) -c 'import sys; print("requirements-py311.lock" if sys.version_info < (3, 12) else "requirements-py312.lock")')
STAMP  := .venv/.installed-$(LOCK)

.PHONY: run test test-all lint setup clean

run: setup
	@$(BIN)/python -m hybridtwin.demo $(if $(RECORD),--record "$(RECORD)") $(if $(SYSTEM),--system "$(SYSTEM)") $(if $(UNITS),--units "$(UNITS)") $(if $(ZONE),--tz "$(ZONE)") $(ARGS)

test: lint
	$(BIN)/python -m pytest -n 2 -m "not heavy"

test-all: lint
	$(BIN)/python -m pytest -n 2

lint: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python -m basedpyright --level error

setup: $(STAMP)

# uv where it is on the path, else pip; the locked versions; the package itself editable and without resolving again.
$(STAMP): pyproject.toml $(LOCK)
	@if command -v uv >/dev/null 2>&1; then \
	  test -x $(BIN)/python || uv venv -q --python "$$(command -v $(PYTHON))" .venv; \
	  uv pip install --python $(BIN)/python -r $(LOCK) && \
	  uv pip install --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
	  test -x $(BIN)/python || $(PYTHON) -m venv .venv; \
	  $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip; \
	  echo "installing the packages of $(LOCK) into .venv (a few minutes the first time)"; \
	  $(BIN)/python -m pip install -q -r $(LOCK) && \
	  $(BIN)/python -m pip install -q --no-deps --no-build-isolation -e . ; \
	fi
	@rm -f .venv/.installed-*; touch $@

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
