#!/bin/bash
# Builds sbit and runs its tests; ends with ctest's own summary.
#
#   ./test.sh                 everything in build/
#   ./test.sh --sanitize      before that: unit, kernels and mpi tests in build-asan/
#   ./test.sh -L unit -R gguf ...    further arguments go to ctest
#
# A skipped test is a failure, except that tests of files in ../shared may be skipped where that
# folder is absent, and tests of a CPU's instructions where the CPU lacks them. Installs missing
# Debian packages first (scripts/prepare.sh).
set -euo pipefail
cd "$(dirname "$0")"

sanitize=no
if [ "${1-}" = --sanitize ]; then
    sanitize=yes
    shift
fi

scripts/prepare.sh
# shellcheck source=scripts/mpi-env.sh
. scripts/mpi-env.sh

# Most tests run several ranks themselves, so only one test for every two cores at a time.
jobs=$((($(nproc) + 1) / 2))

# unexplained_skips JUNIT-FILE: the names of tests that were skipped for no good reason.
unexplained_skips() {
    local excuse='this CPU'
    [ -d ../shared ] || excuse='\.\./shared|this CPU'
    awk -v excuse="$excuse" '
        /<testcase / {
            name = $0
            sub(/^[ \t]*<testcase name="/, "", name)
            sub(/".*/, "", name)
            skipped = excused = 0
        }
        /<skipped/ { skipped = 1 }
        $0 ~ excuse { excused = 1 }
        /<\/testcase>/ { if (skipped && !excused) print name }' "$1"
}

# run_tests BUILD-FOLDER CTEST-ARGUMENTS...
run_tests() {
    local folder=$1 status=0 skips
    shift
    ctest --test-dir "$folder" --output-on-failure --no-tests=error -j "$jobs" \
        --output-junit ctest.xml "$@" || status=$?
    skips=$(unexplained_skips "$folder/ctest.xml")
    if [ -n "$skips" ]; then
        printf 'test.sh: these tests were skipped, and must not be: %s\n' "${skips//$'\n'/ }" >&2
        status=1
    fi
    return $status
}

if [ $sanitize = yes ]; then
    echo "Building into build-asan/"
    cmake --preset asan >build/asan.log
    cmake --build build-asan >>build/asan.log 2>&1 || {
        cat build/asan.log >&2
        exit 1
    }
    export UBSAN_OPTIONS=print_stacktrace=1
    run_tests build-asan -L '^(unit|kernels)$'
    # Open MPI keeps memory until the process ends, and unloads the plug-ins that a list of known
    # leaks would name; without mpirun sbit never starts it, so our own leaks show above. The test
    # of memory measures what the sanitizer itself uses.
    ASAN_OPTIONS=detect_leaks=0 run_tests build-asan -L '^mpi$' -E memory
fi
run_tests build "$@"
