#!/bin/bash
# kernels.sh compile|run SOURCE BUILD CONFIGURATION COMPILE-OPTIONS: cross-compiles the kernels of the repository
# SOURCE, and their tests, for AArch64 into BUILD; runs those tests by qemu.
set -euo pipefail
step=$1 source=$2 build=$3 configuration=$4 options=$5

if ! command -v aarch64-linux-gnu-gcc >/dev/null ||
    ! { command -v qemu-aarch64 || command -v qemu-aarch64-static; } >/dev/null; then
    echo "skipped: needs gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user"
    exit 77
fi
case $step in
compile)
    cmake -S "$source/tests/aarch64/kernels" -B "$build" -G Ninja \
        --toolchain "$source/cmake/aarch64.cmake" \
        -DCMAKE_BUILD_TYPE="$configuration" -DSBIT_COMPILE_OPTIONS="$options"
    cmake --build "$build" -j 2
    ;;
run)
    ctest --test-dir "$build" -L emulated --output-on-failure --no-tests=error -j 2
    ;;
esac
