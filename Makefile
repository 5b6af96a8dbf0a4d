# Two commands matter: `make run` and `make test`. Everything they need is installed into .venv by themselves.
.DELETE_ON_ERROR:
.PHONY: run test test-long test-slow test-cluster test-tools check bench bench-submits bench-sizes bench-local bench-placement bench-deaths bench-events bench-ssh soak-disks simulate-month chart api identity lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests wait more than they compute: three workers keep two cores busy.
WORKERS ?= 3
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

run: $(READY)
	@$(BIN)/python -m deploy.local run

identity: $(READY)
	@$(BIN)/python -m deploy.local identity "$(NAME)"

test: check
	@$(BIN)/python -m deploy.chart.tools > /dev/null
	$(PYTEST) -m "not slow and not long" tests --ignore tests/install --ignore tests/nodes --ignore tests/tools

# What takes long end to end: half a minute by itself, or a browser, SSH, deaths and outages at length. It is run before a
# change lands all the same.
test-long: $(READY)
	$(PYTEST) -m "long and not slow" tests/integration tests/e2e

# What takes a minute by itself: deaths at every instant of a disk's life and of a job's preparing, a thousand tags, replicas
# that die while placing, gigabytes over SSH, 10,000 submits over cut connections; and the linters of the API document, which want
# Node.js with npm.
test-slow: $(READY)
	$(PYTEST) -m slow tests/integration tests/e2e

# The cluster tests on a real cluster. Hollow nodes run nothing: tests that need running containers are left out there
# by their marker, which CLUSTER_MARKERS says. tests/nodes/conftest.py says what those want of a cluster.
CLUSTER_MARKERS ?= not needs_containers
test-cluster: $(READY)
	@test -n "$$GPUDEV_KUBECONFIG" || { echo "Set GPUDEV_KUBECONFIG to the kubeconfig of a cluster"; exit 2; }
	$(BIN)/python -m pytest tests/cluster tests/e2e/test_jobs_on_cluster.py tests/e2e/test_queue_on_cluster.py tests/nodes \
	  --ignore tests/cluster/simulator -m "$(CLUSTER_MARKERS)"

# The tools image in roots of every kind. Makes containers by itself: needs root, and Debian's packages to build with.
test-tools: $(READY)
	$(BIN)/python -m pytest tests/tools

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy services shared deploy client/src
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m tests.bench

# Submits at a steady rate: whether the queue keeps up, and where the CPU time of a job goes.
bench-submits: $(READY)
	$(BIN)/python -m tests.bench.whole_way

# What calls take with a million jobs, 50,000 that wait and 1,000 nodes, beside a small lab. Takes minutes to fill.
bench-sizes: $(READY)
	$(BIN)/python -m tests.bench.sizes

# How soon the local stack is ready, what it takes at rest, and how soon a job runs on it.
bench-local: $(READY)
	$(BIN)/python -m tests.bench.local

# Leases a second on 1,000 nodes with up to 50,000 waiting jobs, beside the same leases written by bare asyncpg.
bench-placement: $(READY)
	$(BIN)/python -m tests.bench.placement

# Two replicas, PostgreSQL and NATS killed while 10,000 jobs are placed on 1,500 nodes: no lease doubled, no place lost.
bench-deaths: $(READY)
	REPLICAS_SCALE=25 $(BIN)/python -m pytest -q tests/integration/capacity/test_replicas.py --durations 1

# 10,000 random steps of everything that disks can do, with deaths and trouble with AWS in between, beside a model.
soak-disks: $(READY)
	DISK_WALKS=$${DISK_WALKS:-20} DISK_STEPS=500 $(BIN)/python -m pytest -q -s -p no:randomly tests/integration/disks/test_model.py

# How much 1,000 logs that are followed at once slow the reading of a job.
bench-logs: $(READY)
	$(BIN)/python -m tests.bench.logs

# From a change to 1,000 clients that follow events.
bench-events: $(READY)
	$(BIN)/python -m tests.bench.events

# What SSH over the API costs beside the direct way, 200 sessions at once, and what a client that takes nothing costs.
bench-ssh: $(READY)
	PYTHONPATH=client/src $(BIN)/python -m tests.bench.ssh

# A lab's month on the rules of the queue, beside plain first come first served: minutes.
simulate-month: $(READY)
	$(BIN)/python -m tests.bench.month

# What the chart has of the code: its schema, its routes, and deploy/kubernetes, which is the chart rendered.
chart: $(READY)
	$(BIN)/python -m deploy.chart.generate

# The API's documents, made of the code: OpenAPI of each service and of all, AsyncAPI of the events.
api: $(READY)
	$(BIN)/python -m deploy.api.generate

# The lock names versions and hashes only; where they come from is the installer's setting. What a dependency of ours wants
# for other uses than ours stays out of the images.
UNUSED := asgiref django faker sqlparse
lock: $(READY)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes --no-emit-index-url \
	  --no-header --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --output-file deploy/images/tools/jupyter.txt deploy/images/tools/jupyter.in
	for service in auth jobs disks capacity; do $(BIN)/uv pip compile --quiet --python-version 3.11 --extra $$service \
	  --constraints requirements.lock --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  $(UNUSED:%=--no-emit-package %) --output-file deploy/images/services/$$service.txt pyproject.toml || exit; done

$(READY): requirements.lock pyproject.toml
	@echo "Installing packages into $(VENV) (first time: some minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

clean:
	rm -rf $(VENV) .local tests/openapi/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
