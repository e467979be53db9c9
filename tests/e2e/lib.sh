# Helpers of the end-to-end tests; sourced. The test gets: $SBIT the program, $TOOLS the folder of the test
# programs, $ROOT the repository. Works in a temporary folder that disappears at exit.
# shellcheck shell=bash

set -u
SBIT=${SBIT:?path of sbit}
ROOT=${ROOT:?path of the repository}
SHARED=$ROOT/../shared
# shellcheck source=../../scripts/mpi-env.sh
. "$ROOT/scripts/mpi-env.sh"
# shellcheck source=../../scripts/json.sh
. "$ROOT/scripts/json.sh"
WORK=$(mktemp -d)
FAILED=0
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1

note() { printf '%s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*"
    FAILED=$((FAILED + 1))
}
finish() {
    [ "$FAILED" -eq 0 ] && exit 0
    printf '%d checks failed\n' "$FAILED"
    exit 1
}
need_shared() {
    [ -d "$SHARED/models" ] && return
    note "skipped: ../shared is not here"
    exit 77
}

# ranks N COMMAND...: under mpirun, or alone for N = 0.
ranks() {
    local n=$1
    shift
    if [ "$n" -eq 0 ]; then
        "$@"
    else
        mpirun -n "$n" "$@"
    fi
}

# must_compress RANKS SRC FILE ARGS...: the test ends where that fails.
must_compress() {
    local n=$1 source=$2 file=$3
    shift 3
    ranks "$n" "$SBIT" compress "$source" -o "$file" "$@" >log 2>&1 && return
    cat log
    fail "compress $source $* on $n ranks"
    finish
}

# within A B SHARE: whether |A - B| <= SHARE * B.
within() { awk -v a="$1" -v b="$2" -v s="$3" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(a != "" && d <= s * b) }'; }

# transport NAME: makes mpirun carry messages by shared memory or by TCP on the loopback interface from here on.
transport() {
    export OMPI_MCA_pml=ob1
    case $1 in
        tcp) export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo ;;
        shared) if mpirun --version | grep -q ' 4\.'; then
            export OMPI_MCA_btl=self,vader
        else
            export OMPI_MCA_btl=self,sm
        fi ;;
    esac
}
