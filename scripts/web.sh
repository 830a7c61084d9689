#!/bin/sh
# Builds the browser's half of Moebius: web/pkg, which the page imports and which is an npm package as it stands.
#
#   usage: scripts/web.sh
#
# Needs Node, and the wasm target of Rust: from rustup where it can be added, from Debian's rustc-web otherwise. The wasm-bindgen command of the
# version in Cargo.lock is built once into target/tools. wasm-opt makes the result smaller where it is installed.
set -eu
cd "$(dirname "$0")/.."

target=wasm32-unknown-unknown
tools=target/tools
pkg=web/pkg
# Apart from target/, so that building the page does not make everything else build again.
export CARGO_TARGET_DIR=target/web

say() { printf 'web: %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# macOS has no sha256sum.
sum_of() {
    if has sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

has_target() {
    [ -e "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] && ls "$(rustc --print sysroot)/lib/rustlib/$target/lib"/libstd-*.rlib >/dev/null 2>&1
}

build_with_debian() {
    has apt-get || fail "this Rust has no target $target: run \`rustup target add $target\`"
    if ! [ -x /usr/bin/rustc ] || ! [ -d /usr/lib/rustlib/src ] || ! has wasm-ld-19; then
        say 'installing rustc-web cargo-web rust-web-src lld-19'
        as_root apt-get update -qq &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rustc-web cargo-web rust-web-src lld-19 ||
            fail "this Rust has no target $target, and neither rustup nor apt-get could get it: run \`rustup target add $target\` when there is a network"
    fi
    RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19 \
        /usr/bin/cargo build -Z build-std=std,panic_abort --locked --target $target --profile web --lib --no-default-features
}

build() {
    if ! has_target && has rustup; then
        say "adding the target $target"
        rustup target add $target || say 'rustup cannot fetch it'
    fi
    if has_target; then
        cargo build --locked --target $target --profile web --lib --no-default-features
    else
        build_with_debian
    fi
}

# The generated JavaScript and the wasm fit each other only if the command has exactly the version of the crate.
install_wasm_bindgen() {
    version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)
    if "$tools/bin/wasm-bindgen" --version 2>/dev/null | grep -qx "wasm-bindgen $version"; then return; fi
    say "building wasm-bindgen $version (some minutes, once)"
    cargo install --quiet wasm-bindgen-cli --version "$version" --no-default-features --bin wasm-bindgen \
        --root "$tools" --target-dir "$tools/build" ||
        fail "wasm-bindgen $version could not be built (what cargo says is above): it is needed once, from crates.io"
}

# Older ones mix up the tables of a module that uses reference types.
oldest_wasm_opt=116

optimise() {
    found=$(wasm-opt --version 2>/dev/null | sed -n 's/^wasm-opt version \([0-9]*\).*/\1/p')
    if [ "${found:-0}" -lt "$oldest_wasm_opt" ]; then
        say "no wasm-opt of version $oldest_wasm_opt or newer here: the result is larger than it could be"
        return
    fi
    wasm-opt -Os --all-features "$pkg/moebius_bg.wasm" -o "$pkg/optimised.wasm"
    mv "$pkg/optimised.wasm" "$pkg/moebius_bg.wasm"
}

has node || fail 'Node is missing: install it with your system'\''s package manager, or from https://nodejs.org'
install_wasm_bindgen
build
rm -rf "$pkg"
"$tools/bin/wasm-bindgen" --target web --out-dir "$pkg" "$CARGO_TARGET_DIR/$target/web/moebius.wasm"
optimise
# `Symbol.dispose` is in no published version of the language yet: with `lib` es2022 the types have to do without.
sed -i.bak '/\[Symbol\.dispose\](): void;/d' "$pkg/moebius.d.ts" && rm "$pkg/moebius.d.ts.bak"
cp web/package/*.js web/package/index.d.ts "$pkg/"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
sed "s/VERSION/$version/" web/package/package.json >"$pkg/package.json"
# The page checks what it fetches of the bundled model against this.
(
    cd examples/models/demo
    separator='{'
    for file in config.json generation_config.json tokenizer.json tokenizer_config.json model.safetensors; do
        printf '%s\n  "%s": { "size": %s, "sha256": "%s" }' "$separator" "$file" "$(wc -c <"$file" | tr -d ' ')" "$(sum_of "$file")"
        separator=','
    done
    printf '\n}\n'
) >"$pkg/demo.json"
cp LICENSE-MIT LICENSE-APACHE web/package/README.md web/package/example.html "$pkg/"
# What the page consists of, for its service worker.
node scripts/web-shell.mjs >"$pkg/shell.js"
bytes=$(gzip -9 -c "$pkg/moebius_bg.wasm" | wc -c)
say "$pkg: moebius_bg.wasm $(wc -c <"$pkg/moebius_bg.wasm") bytes, gzipped $bytes"
[ "$bytes" -le 2500000 ] || fail "the wasm is larger than 2.5 MB gzipped"
