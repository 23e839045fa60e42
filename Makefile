# Needs Python 3.12 or newer and make; all else is installed into .venv here, but
# for `make gpu`.
#   make demo   the embedded demo: table and picture in runs/demo
#   make rivals all methods on the demo's task, one seed: a report in runs/rivals
#   make study  what is missing of the study; PACS=... WEIGHTS=... SCALE=cpu
#   make docs   the documentation, in build/site
#   make docs-check  that, and a look at every page on a phone and a screen, light
#               and dark, where there is a Chromium (on PATH, or CHROMIUM=...)
#   make torture  kills small runs a hundred times, of every kind; full disks
#   make fuzz     damages files and command lines for five minutes; SECONDS=...,
#               SEED=...
#   make test   linters, types, tests, the examples in the docstrings; coverage
#   make test-all     the same, and all other combinations of what it tests
#   make test-fast    linters, types and the quick tests of the library
#   make test-oldest  the quick tests with the oldest jax there is support for
#   make gpu    on a machine with a GPU: its tests and benches, in eight minutes;
#               installs nothing, PYTHON=... is the Python to take; OUT=...
#   make wheel  builds sdist and wheel, and tries the wheel without all this

PYTHON ?= $(shell command -v python3.12 >/dev/null 2>&1 && \
  python3.12 -c '' >/dev/null 2>&1 && echo python3.12 || echo python3)
BIN := .venv/bin
READY := .venv/ready

# Python compiles what it imports; compiling all that is installed would be a
# third of the time that setting up takes.
INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile

SCALE := cpu
PACS := data/PACS
# A line of results names these two files and the folder PACS: under other names
# all would be run again.
WEIGHTS := data/vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors
CLIP := runs/clip_flickr8k_96

.PHONY: demo rivals study docs docs-check torture fuzz gpu test test-all test-fast
.PHONY: test-oldest wheel lint lock clean

demo: $(READY)
	@echo "==> The demo: a small CLIP, fine-tuned four ways (runs/demo)"
	$(BIN)/python -m experiments.sweep --config demo \
	  --results runs/demo/results.jsonl --picture runs/demo/demo.png

rivals: $(READY)
	@echo "==> All methods on the demo's task (runs/rivals)"
	$(BIN)/python -m experiments.sweep --config study_cpu --cases digits \
	  --seeds 0 --results runs/rivals
	$(BIN)/python -m experiments.report runs/rivals/curves_digits_cpu.jsonl \
	  --out runs/rivals

study: $(READY)
	@echo "==> The study: what experiments/results lacks of it"
	$(BIN)/python -m experiments.sweep --config study_$(SCALE) --root $(PACS) \
	  --backbone $(WEIGHTS) --checkpoint runs/study --results experiments/results
	if [ -d $(CLIP) ]; then $(BIN)/python -m experiments.sweep \
	  --config study_$(SCALE) --cases words --root $(PACS) --backbone $(CLIP) \
	  --checkpoint runs/study --results experiments/results; fi

docs: $(READY)
	@echo "==> The documentation (build/site)"
	$(BIN)/python -m docs.draw_episode
	$(BIN)/python -m docs.draw_augmentations
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "file://$(CURDIR)/build/site/index.html"

docs-check: docs
	@echo "==> A look at every page"
	$(BIN)/python docs/check_pages.py build/site

SECONDS ?= 300
SEED ?= 0
fuzz: $(READY)
	@echo "==> Damaged files and command lines: refused, or read as they may be?"
	$(BIN)/python -m experiments.reliability.fuzz --seconds $(SECONDS) --seed $(SEED)

torture: $(READY)
	@echo "==> Kills: do runs end as if nobody had touched them?"
	$(BIN)/python -m experiments.reliability.torture

# Takes what Python is given, with what that has: a .venv would have no GPU.
OUT ?= runs/gpu
gpu:
	$(PYTHON) -m experiments.bench.gpu --out $(OUT)

# One worker more than there are cores: some tests wait for what they start.
WORKERS = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

# The files in their order: xdist would begin with those of the most tests, and
# the longest, which have few, would end when the others are done.
ALL = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --cov

test: lint
	@echo "==> Tests and docstring examples"
	$(BIN)/python -m pytest -m "not exhaustive" $(ALL)

test-all: lint
	@echo "==> Tests and docstring examples, in all combinations"
	$(BIN)/python -m pytest $(ALL)

# What a change of the library most likely breaks, in a minute and a half.
FAST := -m "not slow and not exhaustive" --numprocesses auto --dist loadfile \
  tests/gmixout_jax tests/pallas_kernels

test-fast: lint
	@echo "==> Quick tests"
	$(BIN)/python -m pytest $(FAST) tests/test_house.py

OLDEST := .venv-oldest
test-oldest: $(OLDEST)/ready
	@echo "==> Quick tests with the versions in requirements-oldest.txt"
	$(OLDEST)/bin/python -m pytest $(FAST)

$(OLDEST)/ready: requirements.lock requirements-oldest.txt
	@echo "==> Setting up $(OLDEST) (once)"
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@names=$$(sed -n 's/^\([a-z0-9-]*\)==.*/\1/p' requirements-oldest.txt | \
	  paste -s -d '|' -); grep -Ev "^($$names)==" requirements.lock | \
	  cat - requirements-oldest.txt > $(OLDEST)/constraints
	@$(OLDEST)/bin/python $(INSTALL) --constraint $(OLDEST)/constraints \
	  --editable ".[dev]" pillow tokenizers
	@touch $(OLDEST)/ready

wheel: $(READY)
	@echo "==> sdist and wheel (dist), and the wheel in an environment of its own"
	$(BIN)/python tests/build_the_wheel.py

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
	@$(BIN)/python $(INSTALL) -r requirements.lock
	@$(BIN)/python $(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $(READY)

# Pins every dependency for all platforms; names no package index.
lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra experiments --extra dev --extra docs \
	  --universal --python-version 3.12 --no-emit-index-url \
	  --no-emit-find-links --no-annotate --quiet \
	  --custom-compile-command "make lock" --output-file requirements.lock

clean:
	rm -rf .venv $(OLDEST) runs build dist *.egg-info
