# make demo   train a teacher team, distil a student, look at all of it on a slide
# make test   the checks and the tests
# Both set up everything they need first (.venv, packages, system libraries); the second time that is quick.

VENV := .venv/bin
WINDOW := xvfb-run --auto-servernum --server-args="-screen 0 1600x1000x24"

.PHONY: demo test lint install

install:
	@scripts/setup.sh

demo: install
	@$(VENV)/kdseg demo --output demo-output

test: lint
	@OMP_NUM_THREADS=1 $(WINDOW) $(VENV)/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m "not exhaustive"

lint: install
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@PATH="$(CURDIR)/$(VENV):$$PATH" $(VENV)/lint-imports
