# Two commands to know: `make demo` and `make test`. Both set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed
ENGINES := $(VENV)/.engines-installed
FUZZ := $(VENV)/.fuzz-installed
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?=
# Whatever else asks for none: tests start hundreds of processes, and without bytecode each of them
# compiles some 300 modules anew, for one second to two.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 2
PROCESSES := tests/bench tests/e2e  # they start processes, and wait for them most of the time
INSTALL = .ci/install $(PYTHON) $(VENV)
# What is compiled at an import is kept, as an installer would keep it: a demo has four processes.
unexport PYTHONDONTWRITEBYTECODE

COMPILED := tests/test_compiled.py tests/transport tests/wire tests/membership tests/scheduler \
  tests/inference tests/net tests/node \
  tests/e2e/test_demo.py::test_three_processes_answer_as_one_engine_would

# What they test is left pure, so once is enough.
PURE := $(addprefix tests/wire/test_,arrays.py calibration.py centred.py entropy.py frame_json.py \
  hostile_calibration.py kv_calibration.py kv_codec.py tensor.py) \
  $(addprefix tests/net/test_,addresses.py control.py control_crowd.py control_door.py interfaces.py \
  jobs.py local_nodes.py mdns.py polling.py service_manager.py wakeup.py) \
  $(addprefix tests/node/test_,checkpoints.py download.py fetching.py gpu_use.py grammars.py hub.py \
  huge_pages.py identity.py invite.py log_file.py model_cache.py models.py own_models.py places.py \
  pulls.py remembered.py sources.py text_worker.py web.py)

HEAVY := tests/engines  # torch, transformers, llama.cpp and jax: some 1.7 GB

.PHONY: demo test test-fast test-engines fast pure check fuzz format docs clean

demo: $(CORE)  ## three real nodes answer a prompt together
	$(BIN)/p2pnode demo

fast: $(DEV)  ## compile the cores: the same sources, quicker; needs a C compiler
	$(BIN)/python .ci/compile_cores.py

pure:  ## go back: what is compiled is thrown away
	rm -rf p2pnode/_compiled build/compiled

test: $(DEV)  ## lint, types, contracts and every test
	$(MAKE) --no-print-directory check
	$(BIN)/p2pnode models pull smollm2-135m
	$(BIN)/p2pnode models pull gemma3-270m
	$(BIN)/p2pnode models pull minilm
	$(PYTEST) $(foreach room,$(PROCESSES) $(HEAVY),--ignore $(room))
	$(PYTEST) $(PROCESSES)
	@echo "Not run: tests/engines (against transformers and llama.cpp), torch and jax in the suite of every engine: make test-engines"

test-fast: fast  ## the suite of what is compiled, compiled: `make test` runs it pure
	$(BIN)/p2pnode models pull smollm2-135m
	P2PNODE_PURE=0 $(PYTEST) $(COMPILED) $(addprefix --ignore ,$(PURE))

test-engines: $(ENGINES)  ## every engine against transformers and llama.cpp, on tiny models and a real one
	$(BIN)/p2pnode models pull gemma3-270m
	$(PYTEST) --dist loadfile $(HEAVY)
	$(PYTEST) --dist loadfile tests/engine/conformance -k "torch or jax"

check: $(DEV)  ## lint, types and import contracts alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy --num-workers 2
	$(BIN)/lint-imports

fuzz: $(FUZZ)  ## hostile bytes into every parser, guided by coverage, for FUZZ_SECONDS in all
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV)  ## write anew what the protocol's pages take from the code
	$(BIN)/python -m p2pnode.testing.protocol_pages

clean: pure
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "p2pnode needs Python 3.11 or newer; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	if $(PYTHON) -m pip --python "$$(command -v $(PYTHON))" --version >/dev/null 2>&1; \
	  then $(PYTHON) -m venv --without-pip $(VENV); else $(PYTHON) -m venv $(VENV); fi

$(CORE): pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e .
	touch $@

$(DEV): pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e '.[dev]'
	touch $@ $(CORE)

$(ENGINES): pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e '.[dev,engines]'
	touch $@ $(CORE) $(DEV)

$(FUZZ): pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e '.[dev,fuzz]' || \
	  { echo "make fuzz needs atheris, which has no build for this machine; \
	the corpus itself is replayed by: make test"; exit 1; }
	touch $@ $(CORE) $(DEV)
