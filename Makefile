# Every target sets up what it needs: a virtual environment in .venv, from nothing but Python >= 3.11 and make.

PYTHON ?= python3
BIN := .venv/bin

CASES ?= 10000
START ?= 0
SECONDS ?= 3600
KILLS ?= 200
SEED ?= 1

.PHONY: help demo test check bench benchmarks lengths parity simulate mutants crash concurrency damage fuzz format clean

help:
	@echo "make demo    replay a year of purchases and compare every sequence with the oracle"
	@echo "make test    all tests"
	@echo "make check   lint, types, import rule: what CI checks besides the tests"
	@echo "make bench   speed against Fat Rows, as ratios"
	@echo "make benchmarks    all suites, and docs/benchmarks.md of them; hours, on a quiet machine; RESUME=1 goes on"
	@echo "make lengths EVENTS=FILE      what longer histories bring on real data, and docs/trainings.md of it; an hour or more"
	@echo "long proofs, of which make test runs a slice:"
	@echo "make parity                   an epoch of HSTU fed from Fat Rows and from latewood, and docs/trainings.md of it"
	@echo "make simulate CASES=100000    the whole store on a simulated disk, log and clock, by seed"
	@echo "make mutants                  switch each rule of the protocol off: the simulation must find it"
	@echo "make crash KILLS=200          kill real processes in the middle of what they do"
	@echo "make concurrency SECONDS=300  real processes on one store at once"
	@echo "make damage                   flip, cut, swap and forge every byte of a store's files"
	@echo "make fuzz SECONDS=3600        forged shard files against a guarded reader"

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	$(BIN)/latewood warmup
	touch $@

.venv/.developer: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	touch $@

demo: .venv/.installed
	$(BIN)/latewood demo

test: .venv/.developer
	$(BIN)/python -m pytest --numprocesses=2

check: .venv/.developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit/test_architecture.py

bench: .venv/.developer
	$(BIN)/python -m bench

# FOLDER is where the data lies, so which disk is measured; YARDSTICK a folder with C++ stripes to run beside ours; RESUME=1
# runs only the suites that docs/benchmarks.json lacks, after a run that was cut off, or in which a suite failed
benchmarks: .venv/.developer
	$(BIN)/python -m pip install --quiet --editable '.[peers]'
	$(BIN)/python -m bench all --no-floors --json docs/benchmarks.json \
		$(if $(FOLDER),--folder $(FOLDER)) $(if $(YARDSTICK),--yardstick $(YARDSTICK)) $(if $(RESUME),--only-missing); \
	ended=$$?; $(BIN)/python -m bench.document docs/benchmarks.json docs/benchmarks.md && exit $$ended

# EVENTS is git-events' Parquet file; without it, completejourney alone. Goes on where it was stopped
lengths: .venv/.developer
	$(BIN)/python -m trainings lengths completejourney $(if $(EVENTS),git-events --events $(EVENTS)) \
		--json docs/trainings/lengths.json
	$(BIN)/python -m trainings.document docs/trainings.md

parity: .venv/.developer
	$(BIN)/python -m trainings hstu completejourney --parity --length 64 --examples 2000000 --json docs/trainings/parity.json
	$(BIN)/python -m trainings.document docs/trainings.md

simulate: .venv/.developer
	$(BIN)/python -m latewood.testing.simulation --cases $(CASES) --start $(START) --processes 2

mutants: .venv/.developer
	$(BIN)/python -m tests.simulation.mutants

crash: .venv/.developer
	$(BIN)/python tests/crash/crash_run.py --kills $(KILLS) --seed $(SEED)

concurrency: .venv/.developer
	$(BIN)/python tests/concurrency/concurrency_run.py --seconds $(SECONDS) --seed $(SEED)

damage: .venv/.developer
	PYTHONPATH=tests $(BIN)/python tests/damage/exhaustive.py

fuzz: .venv/.developer
	PYTHONPATH=tests $(BIN)/python tests/damage/fuzz.py --seconds $(SECONDS) --seed $(SEED)

format: .venv/.developer
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist
