# Needs Python 3.12 and make; all else is installed into .venv here.
#   make demo   the embedded demo: table and picture in runs/demo
#   make rivals all methods on the demo's task: a table, in runs/rivals
#   make study  what is missing of the study; PACS=... WEIGHTS=... SCALE=cpu
#   make docs   the documentation, in build/site
#   make torture  kills small runs 20 times, in one process and in two
#   make test   linters, types, tests and the examples in the docstrings

PYTHON ?= $(shell command -v python3.12 >/dev/null 2>&1 && \
  python3.12 -c '' >/dev/null 2>&1 && echo python3.12 || echo python3)
BIN := .venv/bin
READY := .venv/ready

SCALE := cpu
PACS := data/PACS
WEIGHTS := data/vit_tiny.safetensors
CLIP := runs/clip

.PHONY: demo rivals study docs torture test lint lock clean

demo: $(READY)
	@echo "==> The demo: a small CLIP, fine-tuned three ways (runs/demo)"
	$(BIN)/python -m experiments.demo

rivals: $(READY)
	@echo "==> All methods on the demo's task (runs/rivals)"
	$(BIN)/python -m experiments.rivals

study: $(READY)
	@echo "==> The study: what experiments/results lacks of it"
	$(BIN)/python -m experiments.study --scale $(SCALE) --root $(PACS) \
	  --weights $(WEIGHTS) --clip $(CLIP)

docs: $(READY)
	@echo "==> The documentation (build/site)"
	$(BIN)/python docs/draw_episode.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "file://$(CURDIR)/build/site/index.html"

torture: $(READY)
	@echo "==> Kills: do runs end as if nobody had touched them?"
	$(BIN)/python -m experiments.torture

test: lint
	@echo "==> Tests and docstring examples"
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(READY)
	@echo "==> Format, lint and types"
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/pyright

# The lock pins everything; the package itself needs no index.
$(READY): requirements.lock pyproject.toml .python-version
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 12) and \
	  "Python 3.12 or newer is needed, found %d.%d: make PYTHON=..." % v[:2])'
	@echo "==> Setting up .venv (1.5 GB; two minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation --editable .
	@touch $(READY)

# Pins every dependency for all platforms; names no package index.
lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra experiments --extra dev --extra docs \
	  --universal --python-version 3.12 --no-emit-index-url \
	  --no-emit-find-links --no-annotate --quiet \
	  --custom-compile-command "make lock" --output-file requirements.lock

clean:
	rm -rf .venv runs build dist *.egg-info
