#!/bin/sh
# Installs what this machine lacks to build Moebius and, with `test`, to test it.
#
#   usage: scripts/setup.sh [run | test]
#
# Debian and Ubuntu: with apt-get, as root or through sudo. Elsewhere: says in one sentence what to install, and fails.
# To see every branch on one machine: MOEBIUS_SETUP_DRY_RUN=1 prints the commands instead of running them, and
# MOEBIUS_SETUP_ROOT=DIR looks for the system's files below DIR.
set -eu

goal=${1:-run}
root=${MOEBIUS_SETUP_ROOT:-}
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf '\nhint: %s\n' "$2" >&2
    exit 2
}

has() { command -v "$1" >/dev/null 2>&1; }

# The value of a key of os-release, without quotes.
os_release() {
    [ -r "$root/etc/os-release" ] || return 0
    sed -n "s/^$1=//p" "$root/etc/os-release" | tr -d '"'
}

# debian (which includes Ubuntu and their kin), fedora, arch, macos or other.
family() {
    [ "$(uname -s)" != Darwin ] || { echo macos; return; }
    case " $(os_release ID) $(os_release ID_LIKE) " in
        *' debian '* | *' ubuntu '*) echo debian ;;
        *' fedora '* | *' rhel '*) echo fedora ;;
        *' arch '*) echo arch ;;
        *) echo other ;;
    esac
}

as_root() {
    if [ -n "${MOEBIUS_SETUP_DRY_RUN:-}" ]; then
        printf '+ %s\n' "$*" >&2
    elif [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

apt_updated=
apt_install() {
    if [ -z "${MOEBIUS_SETUP_DRY_RUN:-}" ]; then
        has apt-get || fail "apt-get is needed to install $*, and is not here"
        [ "$(id -u)" = 0 ] || has sudo || fail "installing needs root: run \`apt-get install $*\` as root, then try again"
    fi
    say "installing $*"
    if [ -z "$apt_updated" ]; then
        as_root apt-get update -qq || say 'some package lists could not be fetched; trying with what is there'
        apt_updated=1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# need WHAT DEBIAN FEDORA ARCH MACOS: the packages that bring WHAT.
need() {
    case $(family) in
        debian)
            # shellcheck disable=SC2086 # several packages in one argument
            apt_install $2 || fail "could not install $2, which brings $1" 'see what apt-get says above'
            ;;
        fedora) fail "$1 is missing: sudo dnf install $3" ;;
        arch) fail "$1 is missing: sudo pacman -S $4" ;;
        macos) fail "$1 is missing: $5" ;;
        *) fail "$1 is missing: install it with your system's package manager (on Debian it is in $2)" ;;
    esac
}

check_rust() {
    wanted=$(sed -n 's/^rust-version = "1\.\([0-9]*\)".*/\1/p' Cargo.toml)
    if ! has cargo || ! has rustc; then
        fail "Rust is missing: install version 1.$wanted or newer from https://rustup.rs"
    fi
    found=$(rustc --version)
    minor=$(printf '%s' "$found" | sed -n 's/^rustc 1\.\([0-9]*\).*/\1/p')
    if [ "${minor:-0}" -lt "$wanted" ]; then
        fail "Rust 1.$wanted or newer is needed, but this is $found" 'run rustup update stable, or install rustup from https://rustup.rs'
    fi
}

check_rust_components() {
    if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then return; fi
    has rustup || fail 'rustfmt and clippy are missing: install them from where Rust came from'
    say 'adding rustfmt and clippy'
    rustup component add rustfmt clippy
}

# True where a Vulkan loader and at least one driver are installed. Drivers named in the environment are the user's own choice.
has_vulkan() {
    [ "$(uname -s)" != Darwin ] || return 0
    [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] || return 0
    loader=
    for library in "$root"/usr/lib/*/libvulkan.so.1 "$root"/usr/lib/libvulkan.so.1 "$root"/usr/lib64/libvulkan.so.1 \
        "$root"/lib/*/libvulkan.so.1 "$root"/usr/local/lib/libvulkan.so.1; do
        # Browsers carry a private copy that nothing else can load.
        case $library in */chromium/* | */chrome/*) continue ;; esac
        [ ! -e "$library" ] || loader=$library
    done
    [ -n "$loader" ] || return 1
    for driver in "$root"/usr/share/vulkan/icd.d/*.json "$root"/etc/vulkan/icd.d/*.json \
        "$root"/usr/local/share/vulkan/icd.d/*.json "$root${HOME:-}"/.local/share/vulkan/icd.d/*.json; do
        [ ! -e "$driver" ] || return 0
    done
    return 1
}

# Debian 12 itself has Mesa 22; the software driver of its backports is years newer.
install_mesa_from_backports() {
    list=$root/etc/apt/sources.list.d/bookworm-backports.list
    added=
    if ! grep -rqsE --include='*.list' --include='*.sources' '^[^#]*bookworm-backports' \
        "$root/etc/apt/sources.list" "$root/etc/apt/sources.list.d"; then
        mirror=$(grep -rhosE --include='*.list' --include='*.sources' 'https?://[^ ]+/debian/?( |$)' \
            "$root/etc/apt/sources.list" "$root/etc/apt/sources.list.d" | head -n 1 | tr -d ' ')
        line="deb ${mirror:-http://deb.debian.org/debian} bookworm-backports main"
        say "adding $line"
        printf '%s\n' "$line" | as_root tee "$list" >/dev/null || return 1
        added=1
        apt_updated=
    fi
    if apt_install -t bookworm-backports mesa-vulkan-drivers libvulkan1; then return; fi
    if [ -n "$added" ]; then
        as_root rm -f "$list"
        apt_updated=
    fi
    return 1
}

install_vulkan() {
    say 'no Vulkan driver found: a software driver (Mesa lavapipe) will do'
    if [ "$(family)" = debian ] && [ "$(os_release VERSION_CODENAME)" = bookworm ]; then
        if install_mesa_from_backports; then return; fi
        say 'no Mesa from bookworm-backports: taking the one of the release'
    fi
    need 'a Vulkan driver' 'mesa-vulkan-drivers libvulkan1' 'mesa-vulkan-drivers vulkan-loader' 'vulkan-swrast vulkan-icd-loader' \
        'nothing should be needed on macOS, please report this'
}

# SwiftShader, a second software device for the tests, comes inside Debian's Chromium.
check_swiftshader() {
    [ ! -e "$root/usr/lib/chromium/vk_swiftshader_icd.json" ] || return 0
    if [ "$(os_release ID)" = debian ]; then
        need SwiftShader chromium '' '' ''
    else
        say 'no /usr/lib/chromium/vk_swiftshader_icd.json here: tests on SwiftShader are left out'
    fi
}

case $goal in
    run | test) ;;
    *) fail "unknown goal \`$goal\`: expected run or test" ;;
esac
check_rust
has cc || need 'a C compiler (cc)' build-essential gcc base-devel 'xcode-select --install'
has_vulkan || install_vulkan
if [ "$goal" = test ]; then
    check_rust_components
    has spirv-val || need spirv-val spirv-tools spirv-tools spirv-tools 'brew install spirv-tools'
    check_swiftshader
fi
