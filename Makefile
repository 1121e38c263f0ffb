# `make bench K="fastv and docvqa"` runs the selected cases, `make test` the tests. Both make the environment on first use.
PYTHON ?= python3
VENV ?= .venv
STAMP := $(VENV)/.installed
PYTEST := $(VENV)/bin/python -m pytest

.PHONY: bench clean env help test
.DEFAULT_GOAL := help

help:  ## what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

env: $(STAMP)  ## the virtual environment alone

# torch first: resolved after the others it would come with gigabytes of CUDA where a CPU build serves.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "effivlm needs Python 3.11 or later, this is %s; set PYTHON=..." % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -c constraints.txt torch
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e ".[test]"
	@touch $@

bench: $(STAMP)  ## run cases: K="fastv and docvqa" selects, ARGS="--vlm-limit 10" passes on
	$(PYTEST) bench_tests $(if $(strip $(K)),-k "$(K)") $(ARGS)

test: $(STAMP)  ## run the tests: K and ARGS as above
	$(PYTEST) tests $(if $(strip $(K)),-k "$(K)") $(ARGS)

clean:  ## drop the environment
	rm -rf $(VENV)
