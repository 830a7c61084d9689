#!/bin/bash
# Builds Mesa's fake kernel drivers for AMD and Intel GPUs from its source, without building Mesa: shims.sh OUT_DIR
# The distribution's own libvulkan_radeon and libvulkan_intel run on them; see fake-gpu.sh. Needs gcc, apt with network, python3-venv.
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
work=$out/work
mkdir -p "$work"/{lists/partial,cache/archives/partial,o,gen/intel/dev}
cd "$work"

suite=${MESA_SUITE:-bookworm-backports}
apt=(-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache")
# The mirror that this machine uses already.
site=$(apt-get indextargets --format '$(SITE)' "Created-By: Packages" "Release: $suite" | head -n 1)
[ -n "$site" ] || { echo "apt has no source for $suite: add it, or set MESA_SUITE to the suite of the installed mesa-vulkan-drivers" >&2; exit 2; }
echo "deb-src $site $suite main" > sources.list
if ! ls -d mesa-*/ > /dev/null 2>&1; then
    apt-get "${apt[@]}" update -qq
    # The upstream archive is all that is needed; an outdated mirror may lack the rest.
    apt-get "${apt[@]}" source --download-only -qq mesa || true
    tar xf mesa_*.orig.tar.xz
fi
[ -d drm ] || { apt-get download -qq libdrm-dev && dpkg -x libdrm-dev_*.deb drm; }
[ -d venv ] || { python3 -m venv venv && venv/bin/pip install -q mako pyyaml; }

mesa=$(cd mesa-*/ && pwd)
dev=$mesa/src/intel/dev gen=$work/gen/intel/dev
venv/bin/python "$dev/gen_wa_helpers.py" "$dev/mesa_defs.json" "$gen/intel_wa.h" "$gen/intel_wa.c"
venv/bin/python "$dev/intel_device_info_gen_h.py" "$gen/intel_device_info_gen.h"
venv/bin/python "$dev/intel_device_info_serialize_gen_c.py" "$gen/intel_device_info_serialize_gen.c"

common="drm-shim/device drm-shim/drm_shim util/anon_file util/blob util/futex util/hash_table util/log util/os_file util/os_misc util/os_time
    util/ralloc util/set util/simple_mtx util/string_buffer util/u_call_once util/u_debug util/u_printf util/u_process util/vma
    c11/impl/threads_posix c11/impl/time"
amd="amd/drm-shim/amdgpu_noop_drm_shim amd/drm-shim/amdgpu_devices"
intel="intel/tools/intel_noop_drm_shim intel/dev/i915/intel_device_info intel/dev/xe/intel_device_info intel/dev/intel_debug
    intel/dev/intel_device_info intel/dev/intel_hwconfig intel/dev/intel_kmd intel/common/intel_gem intel/common/intel_engine
    intel/common/i915/intel_gem intel/common/i915/intel_engine intel/common/xe/intel_gem intel/common/xe/intel_engine
    intel/common/xe/intel_device_query util/bitscan util/mesa-sha1 util/sha1/sha1 util/parson util/u_cpu_detect util/u_thread"
has="PTHREAD STRUCT_TIMESPEC TIMESPEC_GET MEMFD_CREATE SECURE_GETENV ENDIAN_H DLADDR LINUX_FUTEX_H REALLOCARRAY PROGRAM_INVOCATION_NAME
    FUNC_ATTRIBUTE_PACKED __BUILTIN_EXPECT __BUILTIN_UNREACHABLE __BUILTIN_CLZ __BUILTIN_CLZLL __BUILTIN_CTZ __BUILTIN_FFS __BUILTIN_FFSLL
    __BUILTIN_POPCOUNT __BUILTIN_POPCOUNTLL __BUILTIN_BSWAP32 __BUILTIN_BSWAP64"
flags="-O1 -fPIC -std=gnu11 -w -D_GNU_SOURCE -DUSE_GCC_ATOMIC_BUILTINS -DPACKAGE_VERSION=\"shim\" -DUTIL_ARCH_LITTLE_ENDIAN=1
    -I$mesa/include -I$mesa/src -I$mesa/src/amd -I$mesa/src/intel -I$mesa/src/intel/dev -I$mesa/src/intel/common -I$mesa/src/util
    -I$work/gen -I$work/gen/intel -I$gen -Idrm/usr/include -Idrm/usr/include/libdrm"
for word in $has; do flags+=" -DHAVE_$word"; done

compile() { # NAME FILE...
    local name=$1 objects="" file
    shift
    for file in "$@"; do
        local object=o/${file//\//_}.o
        [ -f "$object" ] || gcc $flags -c "$( [ -f "$file" ] && echo "$file" || echo "$mesa/src/$file.c" )" -o "$object"
        objects+=" $object"
    done
    gcc -shared -Wl,--no-undefined -o "$out/lib${name}_fake.so" $objects -ldl -lpthread -lm
    echo "$out/lib${name}_fake.so"
}
compile amdgpu $common $amd
compile intel $common $intel "$gen/intel_device_info_serialize_gen.c" "$gen/intel_wa.c"
