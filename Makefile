# make verify ARGS='--only redirect'   does a connect4 program redirect on this kernel? (set-up included, as root)
# make test                            the tests that fit CI's time; it tells which do not (ARGS go to pytest)
# make test-all                        all tests
# make vagrant-test                    a machine by Vagrant: box, up, verify, the Report, destroy, nothing left
# make lint | bench | fuzz | clean | install | requirements
VENV ?= .venv
export VENV
BIN := $(VENV)/bin
ARGS ?=
# Of `make test`, side by side (tests/workers.py); 0 for one after the other.
WORKERS ?= 2
UV ?= uv

# What ruff and mypy look at, of what there is.
CODE := $(wildcard harness setup tests bench vagrant)

.PHONY: verify test test-all vagrant-test lint bench fuzz clean install install-dev install-vagrant requirements
.DEFAULT_GOAL := verify

install:
	@sh setup/bootstrap.sh runtime

install-dev:
	@sh setup/bootstrap.sh dev

install-vagrant:
	@sh setup/bootstrap.sh vagrant

verify: install
	@"$(BIN)"/msp-harness verify $(ARGS)

test: install-dev
	@"$(BIN)"/python -m pytest -n $(WORKERS) $(ARGS)

test-all: install-vagrant
	@"$(BIN)"/python -m pytest -m 'slow or not slow' $(ARGS)

vagrant-test: install-vagrant
	@exec "$(BIN)"/python -m vagrant $(ARGS)

lint: install-dev
	"$(BIN)"/ruff check $(CODE)
	"$(BIN)"/ruff format --check $(CODE)
	"$(BIN)"/mypy --strict $(CODE)

bench: install
	@"$(BIN)"/python -m bench $(ARGS)

# Leftovers of killed runs (namespaces, cgroups, state) are the command's to find. The virtual environment stays.
clean:
	@if [ -x "$(BIN)"/msp-harness ]; then "$(BIN)"/msp-harness clean; fi
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

# Lock again after a change of the versions in pyproject.toml. uv is needed for this only. The dev lock is the
# resolution; the others are parts of it.
requirements:
	$(UV) pip compile --quiet pyproject.toml --group dev -o requirements-dev.txt
	$(UV) pip compile --quiet pyproject.toml -c requirements-dev.txt -o requirements.txt
	$(UV) pip compile --quiet --group build -c requirements-dev.txt -o requirements-build.txt

# The parsers against made-up texts, and damaged objects, for SECONDS each; a short run of the same is part of the tests.
SECONDS ?= 300
fuzz: install-dev
	@$(BIN)/python -m tests.fuzz.fuzz_explain $(SECONDS)
	@$(BIN)/python -m tests.fuzz.fuzz_object $(SECONDS)
	@$(BIN)/python -m tests.fuzz.fuzz_readers $(SECONDS)
	@$(BIN)/python -m tests.fuzz.fuzz_image $(SECONDS)
