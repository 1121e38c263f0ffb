# `make bench K="fastv and docvqa"` runs the selected cases, `make test` the tests. Both make the environment on first use.
PYTHON ?= python3
VENV ?= .venv
SPARSEML_VENV ?= .venv-sparseml
CASES := $(VENV)/.cases
STAMP := $(VENV)/.installed
AUTOAWQ := $(VENV)/.autoawq
KVPRESS := $(VENV)/.kvpress
SPARSEML := $(SPARSEML_VENV)/.installed
PYTEST := $(VENV)/bin/python -m pytest
# Without bytecode of the thousands of modules that nobody imports: the first import makes that of those that are.
PIP := $(VENV)/bin/python -m pip install -q --no-compile -c constraints.txt

.PHONY: bench clean docs env env-autoawq env-kvpress env-sparseml help test test-autoawq test-kvpress test-sparseml
.DEFAULT_GOAL := help

help:  ## what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

env: $(STAMP)  ## the virtual environment alone

# What cases need, without the tools of the tests.
# torch first: resolved after the others it would come with gigabytes of CUDA where a CPU build serves.
$(CASES): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "effivlm needs Python 3.11 or later, this is %s; set PYTHON=..." % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e .
	@touch $@

$(STAMP): $(CASES)
	$(PIP) -e ".[test]"
	@touch $@

bench: $(CASES)  ## run cases: K="fastv and docvqa" selects, ARGS="--vlm-limit 10" passes on
	$(PYTEST) bench_tests $(if $(strip $(K)),-k "$(K)") $(ARGS)

test: $(STAMP)  ## run the tests: K and ARGS as above
	$(PYTEST) tests $(if $(strip $(K)),-k "$(K)") $(ARGS)

docs: $(STAMP)  ## the documentation, into site/
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet

env-autoawq: $(AUTOAWQ)  ## bring AutoAWQ into the environment

# Without its dependencies: all that it needs is there, and triton would bring a gigabyte and break its way on a CPU.
$(AUTOAWQ): $(STAMP)
	$(VENV)/bin/python -m pip install -q --no-deps autoawq==0.2.9 zstandard==0.25.0
	$(VENV)/bin/python -c 'from effivlm.weights._autoawq import quantizer; quantizer()'
	@touch $@

env-kvpress: $(KVPRESS)  ## bring kvpress into the environment

# Without its dependencies: it asks for a transformers older than ours, and runs with ours.
$(KVPRESS): $(STAMP)
	$(VENV)/bin/python -m pip install -q --no-deps kvpress==0.5.5 cachetools==5.5.2 fire==0.7.1 termcolor==3.1.0
	$(VENV)/bin/python -c 'from effivlm.weights._kvpress import kvpress; kvpress()'
	@touch $@

env-sparseml: $(SPARSEML)  ## the environment of the sparseml engine, apart from the other: 2 GB; wants Python 3.11

$(SPARSEML): constraints-sparseml.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "sparseml 1.8.0 needs Python 3.11, this is %s; set PYTHON=..." % sys.version.split()[0])'
	$(PYTHON) -m venv $(SPARSEML_VENV)
	$(SPARSEML_VENV)/bin/python -m pip install -q -c constraints-sparseml.txt torch
	$(SPARSEML_VENV)/bin/python -m pip install -q -c constraints-sparseml.txt setuptools "sparseml[transformers]==1.8.0"
	NM_DISABLE_ANALYTICS=True $(SPARSEML_VENV)/bin/python -I effivlm/weights/_sparseml_worker.py </dev/null
	@touch $@

test-autoawq: $(AUTOAWQ)  ## the tests of that engine; they fail where it is not there
	REQUIRED_ENGINE=autoawq $(PYTEST) tests/engines -m autoawq $(ARGS)

test-kvpress: $(KVPRESS)  ## the tests of its presses; they fail where it is not there
	REQUIRED_ENGINE=kvpress $(PYTEST) tests/engines -m kvpress $(ARGS)

test-sparseml: $(STAMP) $(SPARSEML)  ## the same
	REQUIRED_ENGINE=sparseml EFFIVLM_SPARSEML_PYTHON=$(abspath $(SPARSEML_VENV))/bin/python $(PYTEST) tests/engines -m sparseml $(ARGS)

clean:  ## drop the environments
	rm -rf $(VENV) $(SPARSEML_VENV)
