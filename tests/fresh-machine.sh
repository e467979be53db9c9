#!/bin/bash
# Proves that a machine with nothing but Debian and git runs ./demo.sh and then ./test.sh from a
# fresh clone: makes such a system with debootstrap, clones the committed state into it, and runs
# both there. Needs what debian.sh says, and some minutes; with arm64 an hour.
#
#   tests/fresh-machine.sh [--keep] bookworm|trixie [arm64]
#
# With arm64 the system is an emulated AArch64, the nearest thing to a Raspberry Pi without one.
# --keep leaves the system (its folder is printed) for a look inside.
set -euo pipefail
# shellcheck source=debian.sh
. "$(dirname "$0")/debian.sh"

arguments=("$@")
keep=no
if [ "${1-}" = --keep ]; then
    keep=yes
    shift
fi
[ $# -eq 1 ] || { [ $# -eq 2 ] && [ "$2" = arm64 ]; } ||
    die "usage: tests/fresh-machine.sh [--keep] bookworm|trixie [arm64]"

own_mounts "${arguments[@]}"
start_machine "$1" "${2-$host_arch}" $keep
clone
for script in demo test; do
    echo "== $*: ./$script.sh"
    SECONDS=0
    inside "cd sbit && ./$script.sh" || die "$script.sh failed on $*"
    echo "== $*: ./$script.sh succeeded in $SECONDS s"
done
