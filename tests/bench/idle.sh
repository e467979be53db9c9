#!/bin/sh
# What an idle rank costs while rank 0 computes: a JSON line with the share of a core, for shared memory
# and for TCP. Usage: tests/bench/idle.sh BUILD_DIR [RANKS [SECONDS]]
set -eu
build=${1:?usage: tests/bench/idle.sh BUILD_DIR [RANKS [SECONDS]]}
ranks=${2:-4}
seconds=${3:-10}
# shellcheck source=scripts/mpi-env.sh
. "$(dirname "$0")/../../scripts/mpi-env.sh"
cmake --build "$build" --target bench_idle >/dev/null
for btl in default tcp; do
    if [ "$btl" = tcp ]; then
        export OMPI_MCA_btl=self,tcp OMPI_MCA_pml=ob1
    fi
    printf '%s: ' "$btl"
    mpirun -n "$ranks" "$build/tests/mpi/bench_idle" "$seconds"
done
