# Every target does its own set-up: a machine needs Python 3.11 or later and nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
MONTHS ?= 7
MINUTES ?= 65
TIMES  := .tidemill/times.jsonl
unexport PYTHONDONTWRITEBYTECODE  # set in many images: without compiled files each process of a test run compiles the tests again

.PHONY: help install check types quick test demo up prove down bench peers faults soak containers clean
help:           ## what can be made
	@grep -E '^[a-z]+: ' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/'

$(VENV)/.installed: pyproject.toml infra/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tidemill needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c infra/constraints.txt -e ".[dev]"
	touch $@

install: $(VENV)/.installed   ## make the virtual environment

check: install                ## the fast part: format, lint, types, tests without servers but for the slow ones
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -f $(TIMES)
	$(MAKE) --no-print-directory -j2 types quick

types:
	$(BIN)/mypy
quick:
	$(BIN)/python -m pytest -q -n auto -m "not integration and not slow" --times=$(TIMES)

test: check                   ## everything, the real Kafka and Valkey included; then the slowest tests, and folders beside their budgets
	$(BIN)/python -m tests.again -q -n auto -m "slow and not integration" --times=$(TIMES)
	$(BIN)/python -m tests.again -q -m "integration and not last and not soak" -n 4 --dist loadfile --no-loadscope-reorder --times=$(TIMES)
	$(BIN)/python -m tests.again -q -m "integration and last" -n 2 --dist loadfile --no-loadscope-reorder --times=$(TIMES)
	$(BIN)/python -m tests.times $(TIMES)

demo: install                 ## seven months of real flights through the whole system; MONTHS=2 for a shorter one
	$(BIN)/python examples/flights/demo.py --months $(MONTHS)

up: install                   ## start the whole system on the flights project, with history and a model, and keep it running
	$(BIN)/tidemill --project examples/flights up --detach
	$(BIN)/python examples/flights/prepare.py

prove: install               ## compare the running online store with Parquet, and recompute logged predictions
	$(BIN)/tidemill audit
	$(BIN)/tidemill replay

down: install                 ## stop it
	$(BIN)/tidemill down

peers:                        ## the peers of the benchmarks that need an environment of their own: Quix Streams, Feast
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check quixstreams "feast[duckdb]"

bench: install                ## speed, beside peers and limits, in one run
	$(BIN)/python -m benchmarks

faults: install               ## the whole system under every kind of fault, a quarter of an hour; SEED=7 for another schedule
	$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED))

soak: install                 ## every proof whole, then the same for an hour or more at full traffic, MINUTES=3 for a short one; SEED=7 to repeat one
	$(BIN)/python -m pytest -q -m soak
	TIDEMILL_TURN=all $(BIN)/python -m pytest -q -m share
	$(BIN)/python -m tests.verify --minutes $$(( ($(MINUTES) + 3) / 4 )) $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.faults --soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

containers: install          ## docker-compose.yml for real, by podman: built, a month of flights, stopped and started again; as root on Debian
	$(BIN)/python -m tests.containers

clean:                        ## remove the environments and all local data
	rm -rf $(VENV) .venv-peers .tidemill
