# make demo   train a teacher team, distil a student, look at all of it on a slide
# make test   the checks and the tests; make test THREADS=2: with so many threads of torch a test, instead of 1
# make test-numeric   the tests that compare numbers, under twelve settings of processor and threads (minutes)
# make docs   the documentation as a site, in build/docs
# All set up everything they need first (.venv, packages, system libraries); the second time that is quick.

VENV := .venv/bin
THREADS := 1
WINDOW := xvfb-run --auto-servernum --server-args="-screen 0 1600x1000x24"

.PHONY: demo test test-numeric lint docs install

install:
	@scripts/setup.sh

demo: install
	@$(VENV)/kdseg demo --output demo-output

test: lint
	@OMP_NUM_THREADS=$(THREADS) $(WINDOW) $(VENV)/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m "not exhaustive"

test-numeric: install
	@$(VENV)/python scripts/test_numeric.py

lint: install
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@PATH="$(CURDIR)/$(VENV):$$PATH" $(VENV)/lint-imports

docs: install
	@$(VENV)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo build/docs/index.html
