#!/bin/sh
# Moebius beside llama.cpp on one device, with the bundled model: npm's node-llama-cpp brings llama.cpp with its Vulkan backend, PyPI's gguf
# writes the model for it. Needs Node, Python and Cargo; everything that is fetched or made goes to target/llama-cpp.
#
#   usage: scripts/compare-llama-cpp.sh [PROMPT-TOKENS [NEW-TOKENS [REPETITIONS]]]     512, 64 and 3 where left out
#
# The engines take turns three times, with REPETITIONS each; medians are compared. llama.cpp compiles its shaders during its first run, which takes
# ten minutes and more on a software device of two cores; that run is printed, and not compared. Mesa keeps what it compiled in
# target/llama-cpp/shaders, so that another start of the script is quick.
set -eu
cd "$(dirname "$0")/.."
num_prompt=${1:-512} num_new=${2:-64} repetitions=${3:-3}
model=examples/models/demo
work=target/llama-cpp

say() { printf 'compare: %s\n' "$*" >&2; }

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
    # Its own script would build llama.cpp where the shipped one does not run, which is not what is compared.
    (cd "$work" && npm install --ignore-scripts --no-audit --no-fund --loglevel=error node-llama-cpp@3.22.1) ||
        fail 'npm could not fetch node-llama-cpp (what it says is above)'
fi
if ! [ -x "$work/venv/bin/python" ] || ! "$work/venv/bin/python" -c 'import gguf, safetensors' 2>/dev/null; then
    say 'fetching gguf'
    python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q gguf==0.19.0 safetensors numpy ||
        fail 'pip could not fetch gguf (what it says is above); on Debian, python3-venv has to be installed'
fi
[ "$work/demo.gguf" -nt "$model/model.safetensors" ] ||
    "$work/venv/bin/python" scripts/compare-llama-cpp.py "$model" "$work/demo.gguf"
# Modules are found from where a script lies.
cp scripts/compare-llama-cpp.mjs "$work/compare.mjs"

say 'building moebius'
cargo build --release --quiet
moebius=target/release/moebius
node "$work/compare.mjs" request "$model/expected.json" "$num_prompt" "$num_new" "$repetitions" "$work"

for ids in "$work"/prompt-*.json; do
    "$moebius" run "$model" --ids-file "$ids" --quant f16 --temp 0 --ignore-eos -n 48 --json 2>/dev/null
done >"$work/moebius-texts.json"

export MESA_SHADER_CACHE_DIR="${MESA_SHADER_CACHE_DIR:-$PWD/$work/shaders}"
# In turns, because other work on the machine comes and goes.
for turn in 1 2 3; do
    say "measuring moebius, $turn of 3"
    "$moebius" bench "$model" --quant f16 -p "$num_prompt" -n "$num_new" -r "$repetitions" --json >"$work/moebius-$turn.json"
    for backend in vulkan cpu; do
        say "measuring llama.cpp, $backend, $turn of 3"
        # Without the variable llama.cpp leaves out devices that are no hardware, and quietly takes the CPU instead.
        GGML_VK_VISIBLE_DEVICES=0 node "$work/compare.mjs" measure "$work/demo.gguf" "$backend" "$work/request.json" >"$work/$backend-$turn.json"
    done
done
node "$work/compare.mjs" table "$work"
