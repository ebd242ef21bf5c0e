# Every target sets up what it needs: a virtual environment in .venv, from nothing but Python >= 3.11 and make.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test check bench format clean

help:
	@echo "make demo    replay a year of purchases and compare every sequence with the oracle"
	@echo "make test    all tests"
	@echo "make check   lint, types, import rule: what CI checks besides the tests"
	@echo "make bench   speed against Fat Rows, as ratios"

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

format: .venv/.developer
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist
