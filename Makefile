# make demo      learn the bundled clothes on the CPU and write runs/demo/report.html
# make test      run the tests, on all cores
# make test-all  also build the package, and install and try it in an environment of its own
# make check     formatting, lint and types
PYTHON ?= python3
export OMP_WAIT_POLICY = PASSIVE

.PHONY: demo test test-all check clean

demo: .venv/ready
	.venv/bin/mfimage demo --outdir runs/demo

test: .venv/ready
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto

test-all: test
	.venv/bin/python benchmarks/fresh_install.py

check: .venv/ready
	.venv/bin/ruff format --check mfimage tests benchmarks conftest.py
	.venv/bin/ruff check mfimage tests benchmarks conftest.py
	.venv/bin/mypy

.venv/ready: requirements.txt constraints.txt pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --requirement requirements.txt --constraint constraints.txt
	.venv/bin/pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf .venv runs
