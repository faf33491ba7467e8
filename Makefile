# The one task runner. `make demo` and `make test` need Python >= 3.11, git and make; nothing else.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CLIENT := clients/python
PROTOC := ../$(BIN)/python -m grpc_tools.protoc -I. \
	--plugin=protoc-gen-mypy=../$(BIN)/protoc-gen-mypy \
	--plugin=protoc-gen-mypy_grpc=../$(BIN)/protoc-gen-mypy_grpc

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

# uv resolves and installs in seconds what pip takes a minute for; it lives in the environment.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "SoundHash needs Python 3.11 or later; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ echo "cannot make .venv (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'
	$(BIN)/python -m soundhash_engine.warm
	@touch $@

.PHONY: setup
setup: $(READY) ## make the environment in .venv

.PHONY: demo
demo: $(READY) ## the main job on real processes; MEDIA=folder uses your recordings
	@$(BIN)/python -m clients.python.examples.demo $(if $(MEDIA),--media '$(MEDIA)') $(if $(DATA),--data-dir '$(DATA)')

.PHONY: test
test: $(READY) ## the whole test suite; TESTS='tests/unit -k words' chooses
	$(BIN)/python -m pytest $(if $(TESTS),$(TESTS),--numprocesses 2 --dist loadfile)

.PHONY: crash
crash: $(READY) ## kill -9 the worker 50 times while 100 recordings come in; KILLS=n ITEMS=n SEED=n
	SOUNDHASH_CRASH_WORKER_KILLS=$(or $(KILLS),50) SOUNDHASH_CRASH_WORKER_ITEMS=$(or $(ITEMS),100) \
		SOUNDHASH_CRASH_SEED=$(or $(SEED),1) $(BIN)/python -m pytest -s tests/integration/test_crash_worker.py

.PHONY: check
check: $(READY) ## lint, types, import borders, proto style, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code --path proto/soundhash
	$(MAKE) --no-print-directory drift

.PHONY: format
format: $(READY) ## format Python and proto
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format -w --path proto/soundhash

.PHONY: proto
proto: $(READY) ## make the committed gRPC code anew from proto/
	$(MAKE) --no-print-directory generate INTO=$(CLIENT)

.PHONY: drift
drift: $(READY) ## fail when the committed gRPC code is not what proto/ makes
	@rm -rf build/drift && mkdir -p build/drift
	@$(MAKE) --no-print-directory generate INTO=build/drift
	@diff -r -x __pycache__ -x __init__.py build/drift/soundhash/v1 $(CLIENT)/soundhash/v1 && \
		diff -r -x __pycache__ build/drift/buf $(CLIENT)/buf && echo "generated code: no drift" || \
		{ echo "generated code has drifted: run make proto"; exit 1; }

.PHONY: generate
generate:
	@cd proto && $(PROTOC) --python_out=../$(INTO) --mypy_out=quiet:../$(INTO) \
		buf/validate/validate.proto
	@cd proto && $(PROTOC) --python_out=../$(INTO) --grpc_python_out=../$(INTO) \
		--mypy_out=quiet:../$(INTO) --mypy_grpc_out=quiet:../$(INTO) soundhash/v1/*.proto

.PHONY: docs
docs: $(READY) ## write the generated pages of docs/ anew
	$(BIN)/python -m tests.contract.test_settings_doc
	$(BIN)/python -m tests.bench.explained docs/explain.svg
	$(BIN)/python -m tests.contract.test_failures_doc
	$(BIN)/python -m tests.contract.test_env_example

# A labelled set, and what is measured on it. SET=folder names another set; MEDIA=folder makes one of
# your recordings; without either, Debian packages are downloaded. RECORD=1 keeps the result in docs/.
EVAL := build/eval
SET ?= $(EVAL)/set
RESULTS := $(EVAL)/results
REPORT = $(BIN)/python -m tests.eval.report $(RESULTS) --out $(if $(RECORD),docs,$(EVAL))

$(EVAL)/set/queries.csv: | $(READY)
	$(BIN)/python -m tests.eval.build $(EVAL)/set $(if $(MEDIA),--music '$(MEDIA)')

.PHONY: eval
eval: $(READY) $(if $(filter $(EVAL)/set,$(SET)),$(EVAL)/set/queries.csv) ## how well: recall and false answers; SET=folder or MEDIA=folder
	@mkdir -p $(RESULTS)
	$(BIN)/python -m tests.eval.run --set '$(SET)' $(if $(LIMIT),--limit $(LIMIT)) --by families \
		--json $(RESULTS)/result-$(notdir $(SET)).json \
		$(if $(RECORD),--history tests/eval/history.jsonl)
	$(REPORT)

.PHONY: calibrate
calibrate: $(READY) ## what a confidence means at each catalogue size; SET=folder HOURS='0 100 1000'
	@mkdir -p $(RESULTS)
	$(BIN)/python -m tests.eval.calibrate --set '$(SET)' $(if $(HOURS),--hours $(HOURS)) \
		$(if $(LIMIT),--limit $(LIMIT)) --json $(RESULTS)/calibration.json

.PHONY: ceiling
ceiling: $(READY) ## what limits recall: the evidence or the search; SET=folder
	@mkdir -p $(RESULTS)
	$(BIN)/python -m tests.eval.ceiling --set '$(SET)' $(if $(LIMIT),--limit $(LIMIT)) \
		--json $(RESULTS)/ceiling.json

.PHONY: peers
peers: $(READY) ## other programs beside ours on the same clips; SET=folder
	@mkdir -p $(RESULTS)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[peers]'
	$(BIN)/python -m tests.bench.peers --set '$(SET)' $(if $(LIMIT),--limit $(LIMIT)) \
		--json $(RESULTS)/peers.json

.PHONY: bench
bench: $(READY) ## how fast: MEDIA=folder of recordings
	find '$(MEDIA)' -type f \( -name '*.ogg' -o -name '*.mp3' \) -print0 | sort -z | head -z -n 12 | \
		xargs -0 $(BIN)/python -m tests.bench.extraction
	$(BIN)/python -m tests.bench.platform '$(MEDIA)'

.PHONY: bench-ingest
bench-ingest: $(READY) ## how fast sources become searchable, and where the time goes; MEDIA=folder
	$(BIN)/python -m tests.bench.ingest $(if $(MEDIA),'$(MEDIA)')

.PHONY: lock
lock: ## resolve the pins of constraints.txt anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --upgrade \
		--no-header --no-annotate --no-emit-index-url --no-emit-package soundhash \
		pyproject.toml -o constraints.txt
	@echo "uv==$$($(BIN)/uv --version | cut -d' ' -f2)" >> constraints.txt

.PHONY: clean
clean: ## remove the environment and everything built
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
