#!/bin/sh
# Cross-compiles the library for ARM64 and runs the tests of its kernels under qemu-user: once on a CPU without bf16 products (kernel
# set neonmixed), once on one with everything that qemu knows (neonbf16, and neon again). What the library links comes from Debian's
# arm64 packages, unpacked under BUILD; nothing is installed.
#   scripts/check-arm.sh [BUILD]      JOBS, CMAKE_ARGS: as for make
set -eu
build=${1:-build-arm}
jobs=${JOBS:-$(nproc)}
libraries="libc6-dev libgomp1 libcmocka-dev libdnnl-dev libjansson-dev libpcre2-dev libutf8proc-dev libzip-dev zlib1g-dev"
# The kernels against their definitions and the double-precision oracle, then what stands on them. The attention of neon needs no
# second run on the small CPU: test_model enters it there.
small="test_glue test_int8 test_coded test_gemm_coded test_score test_select_kernels test_select test_model"
all="$small test_attend test_attend_int8 test_cache"

for tool in aarch64-linux-gnu-gcc qemu-aarch64 cmake make pkg-config apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || {
        echo "check-arm: $tool is missing: apt-get install -y gcc-aarch64-linux-gnu qemu-user cmake make pkgconf (Debian 12)" >&2
        exit 1
    }
done
mkdir -p "$build"
build=$(cd "$build" && pwd)
sysroot=$build/sysroot

# apt-get with lists, status and cache of its own, which knows no other architecture than arm64 and installs nothing.
unpack_sysroot() {
    apt=$build/apt
    rm -rf "$sysroot" "$apt"
    mkdir -p "$sysroot/usr/lib" "$apt/lists/partial" "$apt/archives/partial"
    ln -s usr/lib "$sysroot/lib"
    : >"$apt/status"
    for step in update "install -y --download-only --no-install-recommends $libraries"; do
        apt-get -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$apt" -o Dir::State::status="$apt/status" \
            -o Dir::Cache="$apt" -o Dir::Log="$apt" -o Debug::NoLocking=1 $step || return 1
    done
    for package in "$apt"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$sysroot" || return 1
    done
    find "$sysroot" -type l -lname '/*' | while read -r link; do ln -sfn "$sysroot$(readlink "$link")" "$link"; done
    rm -rf "$apt"
    echo "$libraries" >"$sysroot/complete"
}

if [ "$(cat "$sysroot/complete" 2>/dev/null)" != "$libraries" ]; then
    unpack_sysroot >"$build/sysroot.log" 2>&1 || {
        tail -n 15 "$build/sysroot.log" >&2
        echo "check-arm: Debian's arm64 packages could not be fetched (last lines above): check the network and the sources" >&2
        exit 1
    }
fi

export PKG_CONFIG_LIBDIR="$sysroot/usr/lib/aarch64-linux-gnu/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$sysroot"
cmake -S . -B "$build" -DCA_TESTS=ON -DCA_TOOL=OFF -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_C_FLAGS="--sysroot=$sysroot" -DCMAKE_LIBRARY_ARCHITECTURE=aarch64-linux-gnu \
    -DCMAKE_FIND_ROOT_PATH="$sysroot" -DCMAKE_FIND_ROOT_PATH_MODE_LIBRARY=ONLY -DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY \
    -DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64 ${CMAKE_ARGS:-} >"$build/configure.log" 2>&1 || { cat "$build/configure.log"; exit 1; }
cmake --build "$build" --parallel "$jobs" --target $all

# The set that the library must choose by itself is given, so that a test cannot pass by leaving it out.
run() {
    echo "check-arm: kernel set $2 on $1"
    (
        cd "$build"
        export QEMU_LD_PREFIX="$sysroot" QEMU_CPU="$1" CA_TEST_BEST_ISA="$2"
        shift 2
        ctest --output-on-failure --no-tests=error --parallel "$jobs" -R "^($(echo "$*" | tr ' ' '|'))\$"
    )
}
run cortex-a72 neonmixed $small
run max neonbf16 $all
