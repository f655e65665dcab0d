# Everything a clone needs: `make demo` runs the main job, `make test` the tests. Both set up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# All is listed whole in constraints.txt, so that pip has nothing to search for, and is taken only with the SHA-256 that
# constraints.hashes.txt has of it. torch comes after: what it needs of that list is there by then, and the rest it brings
# for this machine (nothing, or CUDA and the Triton that fits it). Without CUDA Triton runs its kernels on the CPU, in the
# tests. Where no wheel is locked (musl), or the index builds its own: make setup LOCK="--requirement constraints.txt"
LOCK := --require-hashes --requirement constraints.hashes.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

# Every module is compiled once, not by each of the many processes anew. So are numba's kernels, by a first run over two
# languages at the end of `setup`: else every process that runs at the same time would compile them (36 s).
unexport PYTHONDONTWRITEBYTECODE
FIRST := --set workdir=$(VENV)/first/work --set "languages=[sw, yo]" --set tokenizer.vocab_size=1000 \
	--set executor.tasks=1 --set executor.workers=1 \
	$(addprefix --only=,download identify dedup sample tokenizer tokenize balance)

.PHONY: demo test test-cluster lint bench setup browser cluster lock lock-check audit clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt constraints.hashes.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV) (once; some minutes)"
	@$(PIP) --no-deps $(LOCK)
	@$(PIP) --constraint constraints.txt torch
	@$(BIN)/python -c "import triton" 2> /dev/null || $(PIP) --no-deps triton==3.9.0
	@$(PIP) --no-deps --editable .
	@$(BIN)/python -c "import train.loop"
	@$(BIN)/lola-data init --preset demo --out $(VENV)/first/demo.yaml --force > $(VENV)/first.log 2>&1 && \
		$(BIN)/lola-data run $(VENV)/first/demo.yaml $(FIRST) >> $(VENV)/first.log 2>&1 || { cat $(VENV)/first.log; exit 1; }
	@rm -r $(VENV)/first
	@touch $@

demo: $(STAMP)
	@test -f work/demo.yaml || $(BIN)/lola-data init --preset demo --out work/demo.yaml
	@$(BIN)/lola-data run work/demo.yaml

# Test files on all cores; a file stays in one process, which its fixtures count on.
test: $(STAMP)
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder \
		--ignore=tests/cluster

# On a Slurm of one node, a Ray of two processes, and stores that fail.
test-cluster: $(STAMP) cluster
	@$(BIN)/python -m pytest tests/cluster $(CLUSTER)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright

# Chromium, in which the tests try the HTML pages; without one they are skipped.
browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium; \
	}

# What test-cluster needs besides; what cannot be had is said, and its tests are skipped.
cluster: $(STAMP)
	@$(PIP) --no-deps --requirement tests/cluster/requirements.txt || echo "Ray cannot be installed: its tests are skipped"
	@command -v slurmctld > /dev/null && command -v munged > /dev/null || { \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends \
			slurm-wlm munge > /dev/null; \
	} || echo "Slurm cannot be installed here (it needs root, and Debian's packages): its tests are skipped"

# Ours and the peers side by side; STAGES="identify dedup" for some. Results: benchmarks/RESULTS.md.
bench: $(VENV)/.bench
	@$(BIN)/python -m benchmarks $(STAGES)

$(VENV)/.bench: benchmarks/requirements.txt $(STAMP)
	@$(PIP) --no-deps --requirement benchmarks/requirements.txt && touch $@ || \
		echo "Not all contenders could be installed; those that are missing will be shown as such"

# After a change of constraints.txt: the hashes of all wheels anew, from pip's index.
lock: $(STAMP)
	@$(BIN)/python -m tests.lock

lock-check: $(STAMP)
	@$(BIN)/python -m tests.lock --check

# Known vulnerabilities of what constraints.txt names; says so where the database cannot be asked.
audit: $(STAMP)
	@$(BIN)/python -m tests.audit

clean:
	rm -rf work build dist *.egg-info .pytest_cache .ruff_cache
