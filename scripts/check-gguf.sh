#!/bin/sh
# Runs every GGUF file of a folder against its expectations, on the reference and on the default device.
#
#   usage: scripts/check-gguf.sh DIR
#
# DIR has the layout of tests/golden/gguf: quants/NAME.gguf with expected/NAME.json, and families/FIXTURE-bf16.gguf.
set -eu
[ -d "${1:-}/quants" ] || { echo 'usage: scripts/check-gguf.sh DIR, a folder with quants, expected and families' >&2; exit 2; }
GGUF_FILES=$(cd "$1" && pwd)
export GGUF_FILES
cd "$(dirname "$0")/.."
exec cargo test --test main -- it::gguf_models --nocapture
