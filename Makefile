# The verbs of this repository; each sets up what it needs (deploy/setup.sh), then does one thing.
PHALANX := .venv/bin/phalanx
PYTHON_ENV := .venv/bin/python

.PHONY: quickstart test check fuzz bench fmt setup bundle bundle-arm64 unit real long sim soak lab-down

quickstart: setup ## set everything up and run the main job on a two-host lab
	$(PYTHON_ENV) deploy/quickstart/quickstart.py

test: setup ## everything: lint, types, unit, real engines
	$(PYTHON_ENV) -m tests

check: setup ## lint, types, import contracts and the tests that need no engine
	$(PYTHON_ENV) -m tests check

unit: setup ## the tests that need no engine
	$(PYTHON_ENV) -m tests unit

real: setup ## the tests on real engines
	$(PYTHON_ENV) -m tests real

long: setup ## daemons die and freeze at every point, engines die, and others, on real engines
	$(PYTHON_ENV) -m tests long

fuzz: setup ## throw mutated input at the runner's parsers for SECONDS=60
	$(PYTHON_ENV) -m tests.unit.runner.fuzz $(or $(SECONDS),60)

sim: setup ## the cluster on virtual time, 10,000 seeds of bad luck; SEEDS=.. START=.. JOBS=..
	$(PYTHON_ENV) -m tests.sim --start $(or $(START),0) --seeds $(or $(SEEDS),10000) --jobs $(or $(JOBS),2)

soak: setup ## sessions on real engines while daemons, links and engines fail; SESSIONS=.. SEED=..
	$(PYTHON_ENV) -m tests.soak --sessions $(or $(SESSIONS),1000) $(if $(SEED),--seed $(SEED))

bench: setup ## measure against the raw engine; writes tests/bench/results.json and docs/BENCHMARKS.md
	$(PYTHON_ENV) -m tests.bench

fmt: setup ## format
	.venv/bin/ruff format . && .venv/bin/ruff check --fix .

setup: ## Debian packages, Python environment, runner bundle
	@deploy/setup.sh

bundle: ## build the runner bundle
	@deploy/setup.sh packages python_environment bundle

bundle-arm64: setup ## build the runner bundle for arm64, by zig (100 MB from PyPI)
	.venv/bin/python -m pip install --quiet -e '.[cross]'
	$(PYTHON_ENV) -m phalanx_runner.build --arch arm64
