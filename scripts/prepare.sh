#!/bin/bash
# Makes this machine able to build and test sbit, and builds it into build/.
#
#   scripts/prepare.sh [TARGET...]     TARGETs of the build; all, for the tests, when none is named
#
# Called by demo.sh and test.sh. Installs the Debian packages that are missing (by sudo where the user
# is not root), says which, and installs nothing when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

# gcc and libc6-dev are named apart because a bare system installs no recommended packages.
packages=(gcc libc6-dev cmake ninja-build pkgconf libopenmpi-dev openmpi-bin libprotobuf-c-dev
    protobuf-c-compiler liblz4-dev libxxhash-dev libjansson-dev libpcre2-dev libutf8proc-dev
    libopenblas-openmp-dev libcmocka-dev)

# What only tests need: the kernels' tests on AArch64, which an AArch64 machine runs by itself.
test_packages=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)

die() {
    printf 'prepare: %s\n' "$*" >&2
    exit 1
}

# The packages of the list above that are not installed, one a line.
missing_packages() {
    local name
    for name in "${packages[@]}"; do
        # The status of a package never heard of is an error: as good as missing.
        case $(dpkg-query -W -f '${Status}\n' "$name" 2>/dev/null || true) in
        *"install ok installed"*) ;;
        *) printf '%s\n' "$name" ;;
        esac
    done
}

# apt_get ARGUMENTS...: as root, waiting for another apt to finish.
apt_get() {
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q \
        -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

install_missing() {
    local missing
    mapfile -t missing < <(missing_packages)
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        die "these packages are missing and there is no sudo: as root, run
    apt-get install ${missing[*]}"
    fi
    echo "Installing Debian packages: ${missing[*]}"
    # The lists are fetched only where they are absent or too old to serve.
    if ! apt-cache show "${missing[@]}" >/dev/null 2>&1; then
        apt_get update
    fi
    if ! apt_get install -y --no-install-recommends "${missing[@]}"; then
        echo "That failed; trying once more with fresh package lists."
        apt_get update
        apt_get install -y --no-install-recommends "${missing[@]}" ||
            die "apt-get could not install: ${missing[*]}"
    fi
}

check_system() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        die "this is no Debian system. Install what these Debian packages hold: ${packages[*]}; then
    cmake --preset release && cmake --build build"
    fi
    case $(dpkg --print-architecture) in
    amd64 | arm64) ;;
    *) die "sbit needs a 64-bit system (amd64 or arm64), and this one is $(dpkg --print-architecture). \
A Raspberry Pi 3 or later runs the 64-bit Raspberry Pi OS." ;;
    esac
}

# quietly LOG COMMAND...: the output goes to LOG, and is shown only if the command fails.
quietly() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 || {
        cat "$log" >&2
        die "failed: $*"
    }
}

check_system
if [ $# -eq 0 ] && [ "$(dpkg --print-architecture)" = amd64 ]; then
    packages+=("${test_packages[@]}")
fi
install_missing
mkdir -p build
echo "Building into build/"
quietly build/configure.log cmake --preset release
if [ -t 1 ]; then
    cmake --build build ${1+--target "$@"}
else
    quietly build/build.log cmake --build build ${1+--target "$@"}
fi
