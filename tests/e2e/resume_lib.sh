# Helpers of the tests that kill compressions and continue them; sourced. The test sets SOURCE, the model.
# shellcheck shell=bash
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

SEED=${SEED:-$(date +%s)}
RANDOM=$SEED
export SBIT_TEST_JOB=$$ LC_ALL=C # tells this test's processes from others
note "seed $SEED"

# make NAME RANKS ARGS...: the file of an undisturbed run.
make() {
    local name=$1 n=$2
    shift 2
    must_compress "$n" "$SOURCE" "$name" "$@"
}
# resume NAME RANKS ARGS...
resume() { make "$@" --resume; }
same() { cmp "$1" "$2" || fail "$3: another file than undisturbed"; }
clean() {
    local left
    left=$(find . -name 'new*' ! -name new.gguf)
    [ -z "$left" ] || fail "$1 leaves $left"
}
# lines WORD: how many the journal has.
lines() {
    local n
    n=$(grep -ac "^[0-9a-f]* $1 " new.gguf.journal 2>/dev/null)
    echo "${n:-0}"
}
units() { lines unit; }

# pid_of RANK: the process of this test's job.
pid_of() {
    local process
    for process in /proc/[0-9]*; do
        [ "$(cat "$process/comm" 2>/dev/null)" = sbit ] || continue
        tr '\0' '\n' 2>/dev/null <"$process/environ" >environ.txt
        grep -q "^SBIT_TEST_JOB=$SBIT_TEST_JOB\$" environ.txt || continue
        grep -q "^OMPI_COMM_WORLD_RANK=$1\$" environ.txt || continue
        echo "${process#/proc/}"
        return
    done
}

# attempt RANKS MILLISECONDS WORD COUNT ARGS...: continues the job and kills a random rank after that time and when the
# journal has so many lines of that word. Status: that of the job.
attempt() {
    local n=$1 ms=$2 word=$3 least=$4 job pid
    shift 4
    if [ "$n" -gt 0 ]; then
        mpirun -n "$n" "$SBIT" compress "$SOURCE" -o new.gguf "$@" >log 2>&1 </dev/null &
    else
        "$SBIT" compress "$SOURCE" -o new.gguf "$@" >log 2>&1 </dev/null &
    fi
    job=$!
    pid=$job
    sleep "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))"
    while kill -0 $job 2>/dev/null && [ "$(lines "$word")" -lt "$least" ]; do sleep 0.01; done
    [ "$n" -gt 0 ] && pid=$(pid_of $((RANDOM % n)))
    [ -n "$pid" ] && kill -KILL "$pid" 2>/dev/null
    { wait $job; } 2>/dev/null # without the shell's own word of what was killed
}
