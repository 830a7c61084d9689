#!/bin/sh
# Tests the page in headless Chromium, on SwiftShader: a software device that WebGPU reaches on any machine. Installs what is missing.
#
#   usage: scripts/web-test.sh [TEST-FILE...]
set -eu
cd "$(dirname "$0")/.."

say() { printf 'web-test: %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

need() {
    has apt-get || fail "$1 is missing: install it with your system's package manager"
    say "installing $1"
    as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" ||
        fail "$1 could not be installed (what apt-get says is above): install it by hand, then run make web-test"
}

# Prints the browser's path.
find_chromium() {
    for name in "${CHROMIUM:-chromium}" chromium-browser google-chrome; do
        if command -v "$name"; then return; fi
    done
    return 1
}

node_is_new_enough() {
    node -e 'const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 20 || (major === 20 && minor >= 10) ? 0 : 1)'
}

# Debian 12 has Node 18; npm has newer ones.
install_node() {
    say "Node 20.10 or newer is needed, but this is $(node --version): fetching one into target/tools/node"
    npm install --prefix target/tools/node --no-audit --no-fund --loglevel=error node@22 >&2 ||
        fail 'npm could not fetch a newer Node (what it says is above): install one from https://nodejs.org'
}

has node || need nodejs
has npm || need npm
if ! node_is_new_enough; then
    export PATH="$PWD/target/tools/node/node_modules/.bin:$PATH"
    node_is_new_enough || install_node
    node_is_new_enough || fail "this is still Node $(node --version): install 20.10 or newer from https://nodejs.org"
fi
find_chromium >/dev/null || need chromium
CHROMIUM=$(find_chromium) || fail 'Chromium is missing: install it, or name the command in the variable CHROMIUM'
export CHROMIUM
scripts/web.sh
# What the page shows is compared with what the program writes.
cargo build --locked
# The package under test is linked, so that a new build is what the tests see.
if ! (cd tests/web && npm ls >/dev/null 2>&1); then
    (cd tests/web && npm install --no-audit --no-fund --no-package-lock --loglevel=error) ||
        fail 'npm could not fetch playwright-core and typescript (what it says is above): they are needed once, from its registry'
fi

cd tests/web
node_modules/.bin/tsc --project .
if [ $# -eq 0 ]; then set -- ./*.test.mjs; fi
# One after the other: a software GPU takes every core.
exec node --test --test-concurrency=1 --test-reporter=spec "$@"
