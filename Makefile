# Each job sets up its own environment in .venv; without make: python tasks.py <job>
PYTHON ?= python3

.PHONY: help demo test check bench clean

help:
	@echo "make demo    phantom cohort, full run, report (offline after installation)"
	@echo "make test    checks, tests, and the built wheel"
	@echo "make check   lint, types, import contracts"
	@echo "make bench   list the measurements; make bench NAMES='denoising motion' runs them"
	@echo "make clean   remove the environment and build files"

demo test check:
	@$(PYTHON) tasks.py $@

bench:
	@$(PYTHON) tasks.py bench $(NAMES)

clean:
	rm -rf .venv build dist qcord-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
