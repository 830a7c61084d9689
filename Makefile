# `make run` and `make test` work in a fresh clone: what is missing on Debian or Ubuntu is installed first.

export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO ?= cargo
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test lint web web-serve web-test

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | while IFS='	' read -r goal text; do printf '  make %-9s %s\n' "$$goal" "$$text"; done

setup: ## install what building and running need and this machine lacks
	@scripts/setup.sh run

run: setup ## build, then run the bundled model; make run ARGS="'Once upon a time' -n 50"
	@$(CARGO) run --release -- run $(ARGS)

lint: ## formatting, clippy and documentation, with warnings as errors
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --lib --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

test: ## lint, every native test, and the page in a browser; a missing GPU adapter is a failure
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory lint
	REQUIRE_GPU=1 $(CARGO) test
	@scripts/web-test.sh

web: ## build the web page's half: web/pkg, an npm package
	@scripts/web.sh

web-serve: ## serve the page on this machine; make web-serve PORT=8080
	@[ -e web/pkg/index.js ] || $(MAKE) --no-print-directory web
	@node scripts/web-serve.mjs $(PORT)

web-test: ## the page in headless Chromium, on a software GPU
	@scripts/web-test.sh
