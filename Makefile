# Everything runs in $(VENV), which is made when it is missing or requirements.txt has changed. `make help` lists the targets.
# Settings: PYTHON (3.11 or newer), VENV, CONFIG, ARGS (more arguments), PORT, TORCH_INDEX (empty: plain pip only).

VENV ?= .venv
CONFIG ?= integrate.yaml
PORT ?= 6006
ARGS ?=
# The first Python that runs here and is new enough.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; done)
# Without an NVIDIA GPU, PyPI's Linux build of torch would bring gigabytes of CUDA; this index has the CPU build.
TORCH_INDEX ?= $(shell command -v nvidia-smi >/dev/null 2>&1 || [ "$$(uname -s)" != Linux ] || \
	echo https://download.pytorch.org/whl/cpu)
TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)

STAMP := $(VENV)/.requirements-installed
RUN := $(VENV)/bin/python
# A file's tests stay in one process, since they share what was trained for them.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile
# Python compiles what it imports and keeps that; where it may not, as in many containers, every process would compile anew.
PIP := $(RUN) -m pip --disable-pip-version-check install $(if $(PYTHONDONTWRITEBYTECODE),--compile,--no-compile)

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all check bench board docs clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

env: $(STAMP)  ## the environment, exactly as requirements.txt pins it

demo: $(STAMP)  ## train, merge and integrate experts by CONFIG on the embedded data (CPU); `make board` shows it
	$(RUN) train.py --config $(CONFIG) $(ARGS)

test: $(STAMP)  ## the tests that need neither a GPU nor minutes
	OMP_NUM_THREADS=1 $(RUN) -m pytest $(PARALLEL) -m "not slow and not gpu" $(ARGS)

test-all: $(STAMP)  ## every test that this machine can run
	OMP_NUM_THREADS=1 $(RUN) -m pytest $(PARALLEL) $(shell command -v nvidia-smi >/dev/null 2>&1 || echo '-m "not gpu"') $(ARGS)

check: $(STAMP)  ## lint, format, import directions
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m pytest -q tests/test_imports.py

bench: $(STAMP) .venv-bench/.installed  ## RL and SFT steps of the small model beside TRL's, in CPU seconds (about ten minutes)
	$(RUN) -m benchmarks.rl_vs_trl --size 5m --work fixed --out benchmark-results
	$(RUN) -m benchmarks.sft_vs_trl --size 5m --work fixed --out benchmark-results

board: $(STAMP)  ## TensorBoard over runs/, opened on what matters
	$(RUN) -m experiment.board runs --port $(PORT)

docs: $(STAMP) .venv-docs/.installed  ## the documentation as a site in site/, with the reference made from the code
	$(RUN) -m configs.reference --out .docs/reference
	.venv-docs/bin/mkdocs build --strict --quiet
	@echo "open site/index.html; llms.txt beside it lists every page as Markdown"

clean:  ## remove caches; runs/, assets/ and the environment stay
	rm -rf .pytest_cache .ruff_cache .hypothesis
	find . -path './.venv' -prune -o -type d -name __pycache__ -exec rm -rf {} +

# The peers' packages live apart: they pin other versions of what we use.
.venv-bench/.installed: requirements-bench.txt
	[ -x .venv-bench/bin/python ] || "$(PYTHON)" -m venv .venv-bench
	.venv-bench/bin/python -m pip --disable-pip-version-check install -r requirements-bench.txt
	@touch $@

.venv-docs/.installed: requirements-docs.txt
	[ -x .venv-docs/bin/python ] || "$(PYTHON)" -m venv .venv-docs
	.venv-docs/bin/python -m pip --disable-pip-version-check install -r requirements-docs.txt
	@touch $@

# The CPU build comes first and alone (--no-deps), so that nothing else is taken from its index. When that index cannot
# be reached, pip says so and takes what its own sources have.
$(STAMP): requirements.txt
	@[ -x $(RUN) ] || [ -n "$(PYTHON)" ] || { \
		echo "Python 3.11 or newer is needed and none was found; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@[ -x $(RUN) ] || "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is older than Python 3.11 or does not run; name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	[ -x $(RUN) ] || "$(PYTHON)" -m venv $(VENV)
	[ -z "$(TORCH_INDEX)" ] || $(PIP) --no-deps --retries 1 --timeout 15 --extra-index-url "$(TORCH_INDEX)" "$(TORCH)" \
		|| $(PIP) --no-deps "$(TORCH)"
	$(PIP) -r requirements.txt
	@touch $@
