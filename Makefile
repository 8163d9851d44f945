# Everything lands in .venv; PYTHON=... picks the Python it is made with.
.DEFAULT_GOAL := help
.PHONY: help demo relay test peers check lint types arrows fmt dev soak asks logs imports automerge http power fuzz hostile hops kvsoak mutate docs bench clean
.NOTPARALLEL:

VENV := .venv/bin

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Install what is needed, then run the demo
	@sh scripts/bootstrap llama page smollm testing tui
	@$(VENV)/llmcrdt demo

relay: ## Install what is needed, then run the relay (ARGS='--port 8765')
	@sh scripts/bootstrap relay
	@$(VENV)/python -m sync_server $(ARGS)

test: ## Install what is needed, then check and test everything
	@$(MAKE) --no-print-directory peers & peers=$$!; \
	$(MAKE) --no-print-directory lint; failed=$$?; wait $$peers || failed=1; exit $$failed
	@$(VENV)/python scripts/run_tests.py $(ARGS)

peers: ## Install the Yjs and Automerge clients and the AI SDK that tests run, where there is npm
	@if command -v npm >/dev/null; then cd tests/peers && { [ -d node_modules/y-websocket-3 -a -d node_modules/ai -a -d node_modules/@ai-sdk/openai -a -d node_modules/@automerge/automerge-repo ] || npm install --silent --no-audit --no-fund --no-package-lock; }; \
	else echo "npm is not here: tests with Yjs and Automerge clients and the AI SDK on Node are skipped"; fi

check: lint types arrows

lint: dev ## Check style and format
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .

types: dev ## Check types
	$(VENV)/mypy

arrows: dev ## Check which module may import which
	$(VENV)/lint-imports

fmt: dev ## Format, and mend what can be mended
	$(VENV)/ruff format .
	$(VENV)/ruff check --fix .

dev: ## Install everything a developer needs
	@sh scripts/bootstrap llama automerge llm mcp page qr relay eddsa seal serve testing tui dev

soak: dev ## Run 120,000 schedules of devices, asks, relays and networks (ARGS='--schedules 1000 --seed 7'), and kill 420 processes
	$(VENV)/python tests/sim/soak.py --schedules 100000 $(ARGS)
	$(VENV)/python tests/sim/soak.py --asks --schedules 10000 $(ARGS)
	$(VENV)/python tests/sim/relay_soak.py --schedules 10000 $(ARGS)
	$(VENV)/python tests/sync_server/relay_kills.py --kills 300 --rollbacks 20
	LLMCRDT_FOLD_KILLS=100 $(VENV)/pytest tests/sync_server/core/test_compaction.py -k killed_while_it_folds

asks: dev ## Make 200 asks while workers, devices and the relay are killed, stopped and cut off (ARGS='--asks 20 --seed 7')
	$(VENV)/python tests/serve/asks_soak.py $(ARGS)

logs: dev ## Export 100,000 merged logs to every format, and check each request (ARGS='--logs 1000 --seed 7')
	$(VENV)/python tests/interop/logs_soak.py $(ARGS)

imports: dev ## Import files of 100 MB, and check the memory that it takes (ARGS='--megabytes 10 --kinds codex')
	$(VENV)/python tests/repo/import_soak.py $(ARGS)

automerge: dev ## Test the document layer with Automerge documents, and run 3,000 schedules (ARGS='--schedules 100 --seed 7')
	$(VENV)/pytest --crdt automerge tests/document -n 2 -k 'not without_pynacl'
	LLMCRDT_KINDS=300 $(VENV)/pytest tests/repo/test_kinds.py -n 2 -k same_operations
	$(VENV)/python tests/sim/soak.py --crdt automerge --schedules 3000 $(ARGS)
	$(VENV)/python tests/sim/soak.py --crdt automerge --files --schedules 100
	$(VENV)/llmcrdt demo --random --turns 10 --crdt automerge

http: dev ## Ask the HTTP APIs with bent requests, and with schemathesis, for two minutes each (ARGS='600 7' is 600 s, seed 7)
	-@$(VENV)/python -c 'import schemathesis' 2>/dev/null || $(VENV)/python -m pip install --quiet 'schemathesis>=4.32,<5' || echo "schemathesis is not here"
	$(VENV)/python -m tests.serve.apis.fuzz $(or $(ARGS),120)

power: dev ## Lose the power of clients, relays and operators' commands 6,000 times (ARGS='--states 1000 --seed 7 --only relay')
	$(VENV)/python tests/power/soak.py $(ARGS)

fuzz: dev ## Feed every decoder with changed frames, the wire's with a million, and repos with strangers' documents (ARGS='--frames 100000 --only wire --seconds 60')
	-@$(VENV)/python -c 'import atheris' 2>/dev/null || $(VENV)/python -m pip install --quiet 'atheris>=3,<4' || echo "atheris is not here: nothing is fuzzed by what it reaches"
	$(VENV)/python tests/fuzz/fuzz.py $(ARGS)

hostile: dev ## Attack relays in some thirty ways, and print what that costs a bystander (ARGS='--only pings')
	$(VENV)/python tests/hostile/soak.py $(ARGS)

kvsoak: dev ## Kill 200 writers of one KV cache, and harm 10,000 chunks (ARGS='--seed 7')
	$(VENV)/python tests/kvcache/kill_soak.py --kills 200 $(ARGS)
	$(VENV)/python tests/kvcache/kill_soak.py --kills 40 --engine $(ARGS)
	$(VENV)/python tests/engine/llama/damage_soak.py --chunks 10000 $(ARGS)

hops: dev ## Run 10,000 conversations that hop between stand-ins for five APIs (ARGS='--histories 1000 --seed 7')
	$(VENV)/python tests/providers/hop_soak.py $(ARGS)

bench: dev ## Run a benchmark (NAME=conversation, ARGS=...)
	@sh scripts/bootstrap bench
	@[ "$(NAME)" != relay ] || $(VENV)/python -m benchmarks.relay.install
	$(VENV)/python -m benchmarks $(or $(NAME),conversation) $(ARGS)

mutate: dev ## Break each rule in the code, and check that its test fails (ARGS='O6 O7')
	$(VENV)/python scripts/mutate.py $(ARGS)

docs: dev ## Write what is generated in docs/, and build the site in build/site
	$(VENV)/python scripts/mutate.py --table
	$(VENV)/python scripts/schema_doc.py
	@sh scripts/bootstrap docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build --strict --quiet
	@echo "The site is in build/site: open build/site/index.html"

clean: ## Remove .venv and the caches in this folder
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
